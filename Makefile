# One command a chore. `make` alone lists them.
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null)
READY := $(VENV)/.ready
# Two for each core: many tests wait for servers and processes of theirs.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1))')

help: ## list the chores
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# The environment: made by uv where it is there, else by venv and pip; pinned either way.
$(READY): pyproject.toml constraints.txt
ifdef UV
	uv venv --quiet --allow-existing --seed --python $(PYTHON) $(VENV)
	uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,databricks,dense,documents,mcp,postgres,spark,watch]'
else
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,databricks,dense,documents,mcp,postgres,spark,watch]'
endif
	@touch $@

install: $(READY) ## make .venv with everything in it

demo: $(READY) ## index the sample documents, ask, and score: seconds after installation
	@$(BIN)/citeqa index
	@printf '\n$$ citeqa ask "How do I keep API keys out of a saved DSPy program?"\n\n'
	@$(BIN)/citeqa ask "How do I keep API keys out of a saved DSPy program?"
	@printf '\n$$ citeqa eval --split dev\n\n'
	@$(BIN)/citeqa eval --split dev
	@printf '\nWhat next:\n'
	@printf '  %s/citeqa ask "…"                           ask your own question, in English or Japanese\n' $(BIN)
	@printf '  %s/citeqa serve                             ask on a page: http://127.0.0.1:8000\n' $(BIN)
	@printf '  %s/citeqa eval -k 10                        is more context better?\n' $(BIN)
	@printf '  %s/citeqa index --corpus DIR --base-url URL your own documents\n' $(BIN)
	@printf '  %s/mlflow ui --backend-store-uri sqlite:///build/mlflow.db   runs and traces\n' $(BIN)

test: $(READY) ## run the tests, but for those marked slow
	@$(BIN)/pytest -q -n $(WORKERS) --no-loadscope-reorder -m "not slow"

all-tests: $(READY) ## run all tests: local Spark, kills and model servers too
	@$(BIN)/pytest -q -n $(WORKERS) --no-loadscope-reorder

check: $(READY) ## lint, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY) ## measure against peers; DATA=<BEIR directory> for retrieval quality
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script $(if $(DATA),--data $(DATA)) || exit 1; done

clean: ## remove what was built, not the environment
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help install demo test all-tests check bench clean
