# Set-up and everyday tasks. `make demo` and `make test` work in a fresh clone.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.base
STAMP := $(VENV)/.built
BUILT_FROM := pyproject.toml constraints.txt scripts/build_environment.sh
DEMO_DIR ?= demo-output
WITH_DISPLAY := scripts/with_display.sh
# Two halves in the order of the files, so that what a file's tests share is made once;
# who is done takes over from the other. Compiled tests are kept for the next run.
PYTEST := env PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist=worksteal

.PHONY: help .venv demo test test-all test-avx2 soak coverage mutants hard lowest lint format bench tables docs links screenshots clean

help:  ## list these targets
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

.venv: $(STAMP)  ## build or update the environment

# What the commands need, and what panels, tests and checks need besides.
$(BASE): $(BUILT_FROM)
	@PYTHON="$(PYTHON)" scripts/build_environment.sh "$(VENV)"
	@touch $@

$(STAMP): $(BUILT_FROM) scripts/system_packages.sh
	@scripts/system_packages.sh || echo "Going on: commands need none of them, panels and tests do."
	@PYTHON="$(PYTHON)" scripts/build_environment.sh "$(VENV)" all,bioimageio,czi,em,hdf5,onnx,table,dev,docs
	@touch $(BASE) $@

demo:  ## stitch, train on SEM, evaluate and enhance simulated samples; write a report
	@scripts/show_demo.sh before "$(DEMO_DIR)" "$(VENV)"
	@$(MAKE) --no-print-directory "$(BASE)"
	@$(BIN)/semsr demo "$(DEMO_DIR)" --overwrite
	@scripts/show_demo.sh after "$(DEMO_DIR)" "$(VENV)"

test: $(STAMP)  ## the quick tests, on two processes and a virtual screen
	@scripts/system_packages.sh
	@$(WITH_DISPLAY) $(PYTEST) -m "not slow and not broad" tests

test-all: $(STAMP)  ## the broad tests: products, hostile input, packaging, manual
	@scripts/system_packages.sh
	@$(WITH_DISPLAY) $(PYTEST) -m "broad and not slow"

# Processors round differently: a test that holds on one may fail on another. What reads
# and writes files, shows and talks computes nothing itself: it asks these rooms.
COMPUTING := analysis core inference jobs models pairing registration restoration \
  simulation stitching training
test-avx2: $(STAMP)  ## the quick tests of rooms that compute, with AVX2 alone
	@scripts/system_packages.sh
	@BIN="$(BIN)" scripts/avx2.sh $(WITH_DISPLAY) $(PYTEST) -m "not slow and not broad" \
	  $(COMPUTING:%=tests/%)

soak: $(STAMP)  ## all tests, including slow ones
	@scripts/system_packages.sh
	@$(WITH_DISPLAY) $(PYTEST)

# A test that fails under the counting is told, and what was counted is shown.
coverage: export COVERAGE_FILE = $(CURDIR)/build/coverage/data
coverage: $(STAMP)  ## line and branch coverage of the quick tests
	@scripts/system_packages.sh
	@rm -rf build/coverage && mkdir -p build/coverage
	@$(WITH_DISPLAY) $(BIN)/python -m coverage run -m pytest -n 2 --dist=worksteal \
	  -m "not slow" || echo "Tests failed while they were counted."
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

mutants: $(STAMP)  ## mutation tests of PACKAGES="core analysis" (COUNT=100, SEED=0)
	@$(WITH_DISPLAY) $(BIN)/python -m scripts.mutants $(if $(COUNT),--count $(COUNT)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(PACKAGES),--packages $(PACKAGES)) \
	  $(if $(AGAIN),--again)

hard: $(STAMP)  ## the quick tests in difficult environments (CASES="other-user …")
	@scripts/system_packages.sh
	@$(BIN)/python scripts/hard_test.py $(CASES)

# torch as usual, whose lowest version pip takes with CUDA; TORCH=lowest takes it.
lowest: $(STAMP)  ## test the wheel with the lowest allowed versions
	@mkdir -p build
	@$(BIN)/python scripts/lowest_versions.py \
	  $(if $(filter lowest,$(TORCH)),,--pinned torch) > build/lowest.txt
	PYTHON= .ci/check_wheel.sh build/lowest.txt

lint: $(STAMP)  ## style, types, layers, docstrings and the manifest
	BIN="$(BIN)" scripts/lint.sh

format: $(STAMP)  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(STAMP)  ## install the compared packages, then print the results of benchmarks/
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[bench]" --no-build-isolation
	BIN="$(BIN)" scripts/bench.sh

# A final judgement trains nothing: another time would be another run.
tables: $(STAMP)  ## train and evaluate the papers' models: benchmarks/paper_tables/tables.md (HOURS=4, FINAL=1)
	$(if $(FINAL),,PYTHONPATH=benchmarks $(BIN)/python -m paper_tables train \
	  $(if $(HOURS),--hours $(HOURS)) $(if $(MINUTES),--minutes $(MINUTES)) \
	  $(if $(JOBS),--jobs $(JOBS)))
	PYTHONPATH=benchmarks $(BIN)/python -m paper_tables evaluate \
	  $(if $(FINAL),--final) $(if $(AGAIN),--again)

docs: $(STAMP)  ## the manual, in docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Manual: docs/_build/html/index.html"

links: $(STAMP)  ## check the manual's links to the web
	$(BIN)/python -m sphinx -q -b linkcheck docs docs/_build/links

screenshots: $(STAMP)  ## the screenshots of the manual, in docs/images
	$(WITH_DISPLAY) $(BIN)/python docs/take_screenshots.py

clean:  ## remove generated files, including the environment
	rm -rf $(VENV) build dist docs/_build docs/reference $(DEMO_DIR) artefacts \
	  .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
	find src tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
