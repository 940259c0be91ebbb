# What a contributor runs. `make demo` and `make test` set everything up first;
# setup itself is in resources/ci/setup and runs again when pyproject.toml changes.
#
#   make test                      make demo ARGS='--json'
#   make setup PYTHON=python3.13   make unit VENV=/tmp/other-venv
#   make e2e E2E_JOBS=1            (tests side by side: few, since each starts programs)

VENV   ?= .venv
TOOLS  ?= .tools
PYTHON ?=
ARGS   ?=
JOBS   ?= 2
# Much of what these tests do is waiting.
E2E_JOBS ?= 3

SHELL  := bash
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# What tests and demo keep in caches and settings stays in here, out of the user's folders.
OWN    := XDG_CACHE_HOME='$(CURDIR)/build/cache' XDG_CONFIG_HOME='$(CURDIR)/build/config' \
          XDG_DATA_HOME='$(CURDIR)/build/data' XDG_STATE_HOME='$(CURDIR)/build/state'
PYTEST := $(OWN) $(BIN)/python -m pytest
BESIDE := --numprocesses $(JOBS) --dist loadfile

# What a shell may hold that would lead these commands elsewhere.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME PYTEST_ADDOPTS SLEAP_SESSION QT_API

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test lint unit integration gui e2e clean

help: ## list the targets
	@sed -nE 's/^([a-z0-9]+):[^#]*## /  make \1	/p' Makefile | expand -t 20

setup: $(READY) ## make the environment in .venv (does nothing when up to date)
	@:

$(READY): pyproject.toml resources/ci/setup
	@PYTHON='$(PYTHON)' VENV='$(VENV)' TOOLS='$(TOOLS)' resources/ci/setup
	@touch $@

demo: setup ## train a small generated project on this machine, start to end
	$(OWN) $(BIN)/sleap-remote demo --headless $(ARGS)

test: lint unit integration gui e2e ## everything below, in this order; stops at the first failure

lint: setup ## ruff, mypy and the import contracts
	@TIMEFORMAT='lint took %0lR'; time { \
	  $(BIN)/ruff check . && \
	  $(BIN)/ruff format --check . && \
	  $(BIN)/mypy && \
	  $(BIN)/lint-imports --no-logo; }

unit: setup ## unit and property tests: seconds, no socket
	$(PYTEST) --numprocesses $(JOBS) tests/unit tests/property $(ARGS)

integration: setup ## real sockets, processes and aiortc peers
	$(PYTEST) $(BESIDE) tests/integration $(ARGS)

gui: setup ## SLEAP's real windows, drawn without a screen
	$(PYTEST) $(BESIDE) tests/gui $(ARGS)

e2e: setup ## the real programs with real sleap-nn
	$(PYTEST) --numprocesses $(E2E_JOBS) --dist loadfile --no-loadscope-reorder \
	  tests/e2e $(ARGS)

clean: ## remove what tests and tools left; keeps the environment
	rm -rf build dist demo-output .coverage .coverage.* \
	  .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find sleap_rtc_plugin worker signaling tests -name __pycache__ -prune -exec rm -rf {} +
