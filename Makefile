# The front door of gradflow. Each target sets up what it needs by itself, in .venv.

PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TESTS  ?= not slow and not gpu
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo assets notebooks lab test mutations bench check clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with everything in it (the other targets do so by themselves)

# torch first and pinned, so that pip takes the CPU build where one is offered.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gradflow needs Python 3.11 or newer: make PYTHON=python3.11")'
	@echo "Setting up .venv (some minutes the first time) ..."
	@$(PYTHON) -m venv .venv
	@$(PIP) -r constraints.txt
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## Train a small triplet network and write its pictures and its recording to demo/
	$(BIN)/gradflow demo --out demo $(ARGS)

# One thread: how many there are changes the rounding, and after some steps the picture.
assets: $(READY) ## Make the pictures of the README and the gallery anew
	OMP_NUM_THREADS=1 $(BIN)/gradflow demo --out demo
	mkdir -p assets
	cp demo/equation.svg demo/flow.svg assets/
	OMP_NUM_THREADS=1 $(BIN)/python docs/gallery.py assets

notebooks: $(READY) ## Make the lessons anew from their sources (ARGS='01 05' for some)
	OMP_NUM_THREADS=1 $(BIN)/python notebooks/source/make.py $(ARGS)

lab: $(READY) ## Copy the lessons to my-lessons/, without the solutions, and open JupyterLab there
	$(BIN)/gradflow lessons my-lessons $(if $(ARGS),-- $(ARGS))

test: $(READY) ## Run the tests (all of them: make test TESTS='')
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m '$(TESTS)' $(ARGS)

mutations: $(READY) ## Take defences away one by one, and see the tests turn red
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutations.py

# Of the peers, and with one thread: ratios are then the same on a busy machine.
bench: .bench/.ready ## Measure what watching costs, beside the peers, and write benchmarks/RESULTS.md
	OMP_NUM_THREADS=1 .bench/bin/python -m benchmarks $(ARGS)

.bench/.ready: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv .bench
	.bench/bin/python -m pip install --quiet --disable-pip-version-check -r constraints.txt
	.bench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r benchmarks/requirements.txt -e .
	@touch $@

check: $(READY) ## Check format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clean: ## Remove everything that these targets made
	rm -rf .venv demo dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
