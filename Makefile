# From a bare Python 3.11 and make to a running Turnout: `make demo`, `make test`, and `make check` before a commit.

SHELL := /bin/sh
VENV := .venv
WORKERS := 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export DO_NOT_TRACK := 1
export GX_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
# LightGBM's threads must not spin where cores are shared.
export OMP_WAIT_POLICY := passive
# Trust what the system trusts, and use the Python that is here.
export UV_SYSTEM_CERTS := true
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Bytecode is kept: without it each of the many servers and commands would compile MLflow and Prefect anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test check bench clean

help: ## Show the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

setup: $(STAMP) ## Make .venv and install the locked dependencies

demo: $(STAMP) ## Replay a season of flights through the running system (FAST=1: a short one)
	$(BIN)/turnout demo $(if $(FAST),--fast)

# A file stays with one worker, and the longest come first.
test: $(STAMP) ## Run every test: end to end, integration, unit; WORKERS=2 at a time
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests/e2e tests/integration tests/unit

check: $(STAMP) ## What must hold before a commit: lint, format, types, import contracts, unit tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/unit

bench: $(STAMP) ## Run the benchmarks
	@for file in $$(grep -l __main__ benchmarks/*.py); do $(BIN)/python -m "benchmarks.$$(basename "$$file" .py)" || exit 1; done

clean: ## Remove what was installed and cached; the state in .turnout stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything is installed with its hash checked. uv takes seconds; where it cannot be had, pip does the same in minutes.
$(STAMP): requirements.lock pyproject.toml $(wildcard models/*.c serving/*.c serving/native/*) .ci/build.py
	@sh .ci/python $(VENV)
	@awk '/^uv==/ {uv = 1} uv {print} uv && !/\\$$/ {exit}' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r $(VENV)/uv.lock 2> /dev/null \
	    || echo "uv cannot be had: pip takes over"
	@if $(BIN)/uv --version > /dev/null 2>&1; then \
	    VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --require-hashes -r requirements.lock \
	    && VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e . ; \
	else \
	    $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock \
	    && $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e . ; \
	fi
	@touch $(STAMP)
