# Everything a newcomer or CI needs, each one command. `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The tests run models on the CPU; this version has a build that needs no GPU libraries where an index offers one.
TORCH ?= torch==2.13.0
# One BLAS thread in each process: several on busy cores are many times slower.
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export MKL_NUM_THREADS = 1

.PHONY: demo test check format bench fuzz study clean help

help:  ## Show the commands.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.core: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e .
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet -e '.[dev]'
	@touch $@

demo: $(VENV)/.core  ## Audit a small made checkpoint with known traps; writes llmtrap-reports/.
	$(BIN)/llmtrap audit --demo

test: $(VENV)/.dev  ## Run all tests; real weights are downloaded once to the user's cache.
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

check: $(VENV)/.dev  ## Lint and type-check.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## Measure speed and memory as ratios; writes benchmarks/results/.
	$(BIN)/python -m benchmarks

clean:  ## Remove what was made here.
	rm -rf $(VENV) llmtrap-reports llmtrap-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
