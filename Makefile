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
.PHONY: help install demo up deploy quick test soak bench check docs lock screenshots release image-check

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
	@echo 'make image-check  the image and compose.yaml, built and run (as root, with buildah and debootstrap)'
	@echo 'make screenshots  docs/screenshots from the page, in a browser'
	@echo 'make install  install only: $(VENV), with $(BIN)/leadloop'
	@echo 'make lock     pin the requirements again   (make lock UPGRADE=--upgrade)'

install: $(VENV)/installed

demo: $(VENV)/installed
	@$(BIN)/leadloop demo $(ARGS)

up: $(VENV)/installed
	@$(BIN)/leadloop up $(ARGS)

deploy: $(VENV)/installed
	@$(BIN)/leadloop deploy

PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 \
          --dist loadscope --no-loadscope-reorder

test: $(VENV)/installed-dev
	@$(PYTEST) $(ARGS)

# Packages whose tests start no Prefect server, browser or command. tests/db is left out: its 400
# databases take longer than all the rest. ARGS adds what a change needs: make quick ARGS=tests/db
QUICK := tests/core tests/client tests/settings tests/sandbox tests/docs

quick: $(VENV)/installed-dev
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(PYTEST) -m 'not servers and not slow' $(QUICK) $(ARGS)

# The state machine, kills and races share the time; each pause point at which a run can die runs once.
SECONDS ?= 600
SEED    ?= $(shell date +%s)

soak: $(VENV)/installed-dev
	@echo 'seed $(SEED), $(SECONDS) seconds plus the time of the pause points'
	@SOAK_SECONDS=$(SECONDS) SOAK_SEED=$(SEED) $(BIN)/python -m pytest --timeout=0 \
	  tests/resilience/test_crash.py tests/resilience/test_race.py tests/resilience/test_state_machine.py \
	  tests/resilience/test_progress.py tests/resilience/test_create_progress.py \
	  tests/resilience/test_late_results.py tests/resilience/test_fuzz.py $(ARGS)

# All parts take some two hours; AMOUNT (of leads), TURNS and MINUTES (of live runs) can be set too,
# and for ONLY=growth AMOUNTS (of leads of history: a kilobyte and a half of disk each) and CAMPAIGNS.
bench: $(VENV)/installed-dev
	@$(BIN)/python -m tests.benchmarks

check: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/installed
	@$(BIN)/python docs/generate.py

screenshots: $(VENV)/installed-dev
	@SCREENSHOTS=1 BROWSER_REQUIRED=1 $(BIN)/python -m pytest -q tests/monitor -k problems_with

# The wheel is tried without the checkout: its own environment, in a folder with nothing else.
release: $(VENV)/installed
	@rm -rf dist
	@$(BIN)/python -m hatchling build
	@cp requirements.lock dist
	@$(PYTHON) -m venv dist/trial/venv
	@dist/trial/venv/bin/python -m pip --quiet install --no-deps --require-hashes -r dist/requirements.lock
	@dist/trial/venv/bin/python -m pip --quiet install --no-deps --no-index dist/*.whl
	@cd dist/trial && venv/bin/leadloop --version && venv/bin/leadloop demo
	@rm -r dist/trial
	@ls dist

# In a network namespace, where the ports of compose.yaml are free. Layers stay in IMAGE_STORE.
image-check: $(VENV)/installed-dev
	@$(BIN)/python -m tests.containers.build_image
	@unshare --net sh -c 'ip link set lo up && exec $(BIN)/python -m pytest -rP $(ARGS) \
	  tests/containers/check_image.py'

# A virtual environment stops working when its folder is moved or its Python removed: then it is
# created again, and what was installed in it no longer counts.
$(shell test "$$(cat $(VENV)/made-in 2>&1)" = "$$(pwd -P)" && $(BIN)/python -c '' 2>&1 || \
        rm -f $(VENV)/made-in $(VENV)/installed $(VENV)/installed-dev)

$(VENV)/made-in:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "leadloop needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1 | head -n 1)." \
	    'Name another: make PYTHON=python3.12 ...' >&2; exit 1; }
	@echo 'Making the virtual environment $(VENV) ...'
	@$(PYTHON) -m venv --clear $(VENV)
	@pwd -P > $@

# The build backend is in the lock too, so that pip fetches nothing unpinned for leadloop itself.
# The lists are complete: pip has nothing to resolve, only to fetch and to compare.
$(VENV)/installed: requirements.lock pyproject.toml leadloop/__init__.py $(VENV)/made-in
	@echo 'Installing what requirements.lock pins into $(VENV) (a minute or two the first time) ...'
	@$(PIP) install --no-deps --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock $(VENV)/installed
	@echo 'Installing what requirements-dev.lock pins into $(VENV) ...'
	@$(PIP) install --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

# The second list repeats the first one's pins, so that tests run on what users get.
lock: $(VENV)/installed-dev
	@$(UV_COMPILE) pyproject.toml --extra embedded --extra monitor --group build -o requirements.lock
	@$(UV_COMPILE) pyproject.toml --extra embedded --extra monitor --group build --group dev \
	  --constraints requirements.lock -o requirements-dev.lock
	@for peer in dlt drt singer pgqueuer dbos; do \
	  $(UV_COMPILE) tests/benchmarks/peers/$$peer.in -o tests/benchmarks/peers/$$peer.lock || exit; done
	@! grep -nE '://|--(index|extra|find)' requirements.lock requirements-dev.lock tests/benchmarks/peers/*.lock
	@echo 'Pinned: requirements.lock, requirements-dev.lock'
