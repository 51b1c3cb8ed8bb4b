# Everything here needs only make and Python >= 3.11. The rest goes to .venv, from the hash-locked lists.
# Another Python: make install PYTHON=python3.13

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
UV_COMPILE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 \
              --generate-hashes --no-annotate \
              --custom-compile-command 'make lock' $(UPGRADE)

.DEFAULT_GOAL := help
.PHONY: help install demo up deploy quick test soak bench check docs lock screenshots release

help:
	@echo 'make demo     the whole loop on an embedded Postgres and the bundled sandbox API'
	@echo 'make up       a complete local stack: Prefect and our page, a worker, the sandbox'
	@echo 'make deploy   prefect.yaml to the Prefect server of PREFECT_API_URL'
	@echo 'make quick    lint, types and the fast tests: a minute, before a commit'
	@echo 'make test     the whole test suite        (make test ARGS="tests/core -x")'
	@echo 'make soak     crashes, races, fuzzing and the state machine, on fresh seeds (make soak SECONDS=600 SEED=1)'
	@echo 'make bench    leadloop against a bare script, dlt, drt and Singer (make bench ONLY=push,poll)'
	@echo 'make check    lint, format, types, import rules'
	@echo 'make docs     write docs/reference, and the sources of dbt, from the code'
	@echo 'make release  the sdist and the wheel in dist/, and the wheel tried in an empty environment'
