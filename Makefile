# Every target does its own set-up: Python 3.11+ and make are all it takes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CALLS  ?=
ARGS   ?=
LOCK   := --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url

.DEFAULT_GOAL := help

.PHONY: help
help:  ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

# Rebuilt only when the lock or the package's metadata changes.
$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: setup
setup: $(STAMP)  ## Make .venv from the lock

.PHONY: run
run: $(STAMP)  ## Grade the sample calls end to end (CALLS=path takes other files)
	@$(BIN)/qa-worker evaluate $(if $(CALLS),$(CALLS),--samples) $(ARGS)

.PHONY: test
test: $(STAMP)  ## Run every test (ARGS="-k name" to choose)
	@$(BIN)/python -m pytest -n 2 $(ARGS)

.PHONY: lint
lint: $(STAMP)  ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: fmt
fmt: $(STAMP)  ## Format and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: bench
bench: $(STAMP)  ## Every benchmark, tables and JSON (30 min; ARGS="--quick" 8 min; DATA=path adds the labelled calls)
	@$(BIN)/python -m benchmarks $(if $(DATA),--data $(DATA)) $(ARGS)

.PHONY: bench-peers
bench-peers: $(STAMP)  ## promptfoo, deepeval and inspect_ai on the same calls, and their ratio to ours (installs 2.5 GB first)
	@$(BIN)/python -m benchmarks.peers $(ARGS)

.PHONY: lock
lock:  ## Renew both locks (needs uv): what runs, and what is needed to work on it
	uv pip compile pyproject.toml $(LOCK) --output-file requirements.lock
	uv pip compile pyproject.toml --group dev $(LOCK) --output-file requirements-dev.lock

.PHONY: clean
clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache benchmarks/.peers
