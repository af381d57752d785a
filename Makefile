# SpotLab's commands. `make help` lists them; each works from a fresh clone with Python 3.11, gcc and git.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
MARKET ?=
ONLY ?=

.PHONY: help demo dev test check bench docs lock down clean

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(INSTALLED) ## Evaluate four demo accounts end to end and print the decisions (MARKET=DIR: another recording)
	@$(BIN)/python -m spotlab_pipelines_tests.demo $(if $(MARKET),--market "$(MARKET)")

dev: $(INSTALLED) ## Keep everything up: Dagster UI, MLflow, stores, local AWS; Ctrl-C ends it
	@$(BIN)/python -m spotlab_pipelines_tests.demo --keep-up $(if $(MARKET),--market "$(MARKET)")

test: $(INSTALLED) ## Run every test
	@# Three processes for two cores, as the longest tests mostly wait for servers and daemons. Linear algebra that took
	@# both cores in each of them would only wait for itself.
	@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist worksteal

check: $(INSTALLED) ## Lint, format, types, room order, the one door to AWS, Dagster definitions, migration drift
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports
	@$(BIN)/python -m spotlab_pipelines_tests.check

bench: $(INSTALLED) ## Measure the figures and write docs/benchmarks.md (ONLY=hot_queries: that section alone)
	@$(BIN)/python -m spotlab_pipelines_tests.bench $(ONLY)

docs: $(INSTALLED) ## Write the pages of docs/ that list what is in the code
	@$(BIN)/python -m spotlab_pipelines_tests.write_docs

lock: $(INSTALLED) ## Pin every dependency anew in requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --universal --upgrade --generate-hashes --no-strip-extras \
	  --no-annotate --custom-compile-command "make lock" --quiet --output-file requirements.lock

down: $(INSTALLED) ## Stop the embedded Postgres and Redis
	@$(BIN)/spotlab down

clean: ## Remove the virtual environment and caches; data stays
	@rm -rf .venv .ruff_cache .import_linter_cache .hypothesis *.egg-info

$(INSTALLED): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 is needed and none was found; install it or pass PYTHON=/path/to/python3.11" >&2; exit 1; }
	@command -v "$(PYTHON)" >/dev/null || { echo "make: Python 3.11 is needed and '$(PYTHON)' was not found; install it or pass PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { echo "make: Python 3.11 is needed; '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1 | head -1); install it or pass PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "make: '$(PYTHON)' cannot make virtual environments; install its venv module (Debian: python3.11-venv)" >&2; exit 1; }
	@test ! -x $(BIN)/python || $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { echo "make: .venv is not of Python 3.11; remove it with 'make clean' and try again" >&2; exit 1; }
	@mkdir -p .venv 2>/dev/null && test -w .venv || { echo "make: this folder cannot be written, and .venv goes here; give this user the right to it" >&2; exit 1; }
	@echo "Installing into .venv (about a minute the first time) ..."
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
