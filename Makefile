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

.PHONY: demo test test-fast test-thorough coverage test-flaky test-architectures check format docs reports audit bench fuzz study release-check \
  lock clean help

help:  ## Show the commands.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.core: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e .
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml requirements/dev.txt
	$(BIN)/pip install --quiet -c requirements/dev.txt "$(TORCH)"
	$(BIN)/pip install --quiet -c requirements/dev.txt -e '.[dev]'
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev
	$(BIN)/pip install --quiet -c requirements/dev.txt -e '.[fuzz]'
	@touch $@

$(VENV)/.audit: requirements/audit.txt
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet -r requirements/audit.txt
	@touch $@

demo: $(VENV)/.core  ## Audit a small made checkpoint with known traps; writes llmtrap-reports/.
	$(BIN)/llmtrap audit --demo

test: $(VENV)/.dev  ## Run the tests; real weights are downloaded once to the user's cache.
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-thorough: $(VENV)/.dev  ## Run the tests that take long too, with more examples of every law; half an hour.
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --thorough

test-fast: $(VENV)/.dev  ## Run the quickest tests, for about a minute: by how long each took when it last ran.
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --fast 44

coverage: $(VENV)/.dev  ## Run all tests and print which lines and branches no test reaches; slower than `make test-thorough`.
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --thorough --cov --cov-report=term:skip-covered --cov-report=html:build/coverage

FLAKY := tests/cli/test_signals.py tests/audit/test_interrupted.py tests/test_orphans.py tests/audit/executors

test-architectures: $(VENV)/.dev  ## Name the weights of every architecture that transformers builds, and plan what it saves; two minutes.
	LLMTRAP_EVERY_ARCHITECTURE=1 $(BIN)/python -m pytest -q tests/checkpoint/naming/test_architectures.py tests/audit/test_saved_models.py

test-flaky: $(VENV)/.dev  ## Interrupt commands at 40 moments each, and run what depends on signals, processes and Ray 20 times, beside busy processes; takes hours.
	$(BIN)/python tests/support/beside_busy.py 2 $(BIN)/python -m pytest -q tests/cli/test_moments.py --stress
	$(BIN)/python tests/support/beside_busy.py 2 $(BIN)/python -m pytest -q $(FLAKY) --thorough --repeat 20

check: $(VENV)/.dev  ## Lint, type-check, and hold the packages to what they may import.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

format: $(VENV)/.dev  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev  ## Build the documentation into build/site/; a broken link or a name that does not resolve is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

reports: $(VENV)/.core  ## Make the pages of the reports in reports/, which are kept as JSON, and their index.
	$(BIN)/python .ci/pages_of_reports.py reports

audit: $(VENV)/.audit  ## Hold the locked dependencies against the published advisories.
	$(PYTHON) .ci/audit.py $(VENV)/audit/bin/pip-audit requirements/dev.txt

bench: $(VENV)/.dev  ## Measure speed and memory as ratios; writes benchmarks/results/.
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.gate

fuzz: $(VENV)/.fuzz  ## Fuzz the readers of a stranger's files and answers with over two million inputs.
	$(BIN)/python tests/hostile/fuzz_all.py

study: $(VENV)/.dev  ## Repeat the validity study and rewrite docs/validity.md; takes hours.
	$(BIN)/python -m studies.validity

$(VENV)/.release: requirements/release.txt
	$(PYTHON) -m venv $(VENV)/release
	$(VENV)/release/bin/pip install --quiet -r requirements/release.txt
	@touch $@

release-check: $(VENV)/.release  ## Build the archives of a release into dist/ and hold them against what is allowed.
	rm -rf dist
	$(VENV)/release/bin/python -m build --quiet
	$(VENV)/release/bin/python -m twine check --strict dist/*
	$(VENV)/release/bin/python .ci/release_check.py dist

lock:  ## Write requirements/dev.txt anew, from the newest releases within pyproject's ranges.
	PYTHON=$(PYTHON) .ci/lock.sh "$(TORCH)"

clean:  ## Remove what was made here.
	rm -rf $(VENV) build dist .coverage llmtrap-reports llmtrap-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
