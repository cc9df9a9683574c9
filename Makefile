# One target a task. `make run` and `make test` set up everything they need, in .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SETUP := setup.cfg scripts/make-venv
STARTED := $(shell date +%Y%m%d-%H%M%S)
# One more than there are processors: tests wait a quarter of their time.
PYTEST := $(BIN)/python -m pytest -n $$(( $$(nproc) + 1 )) --maxprocesses 4 --dist loadgroup

.PHONY: help run keras test test-all check bench bench-search bench-search-full bench-full trace chaos wheel docs gpu-check slurm-demo clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/ready-run ## tune the torch example on this machine with 2 workers (SQLite, no SLURM)
	$(BIN)/python optimize.py examples/torch/hyperparameters.yml examples/torch/model.yml --local 2 -s runs/torch-$(STARTED)
	$(BIN)/python examples/torch/digits.py examples/torch/model.yml runs/torch-$(STARTED)/best.yml

keras: $(VENV)/ready-test ## tune the Keras example on this machine with 2 workers
	$(BIN)/python optimize.py examples/keras/hyperparameters.yml examples/keras/model.yml --local 2 -s runs/keras-$(STARTED)
	$(BIN)/python examples/keras/tumours.py examples/keras/model.yml runs/keras-$(STARTED)/best.yml

test: $(VENV)/ready-test servers ## run the tests, with real PostgreSQL, Redis and SLURM
	$(PYTEST)

test-all: $(VENV)/ready-test servers ## run the tests, the long ones included
	$(PYTEST) -m "not gpu"

check: $(VENV)/ready-test ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/ready-bench servers ## measure what bookkeeping costs, beside Optuna, echo-opt, Syne Tune and Ray Tune (15 minutes)
	$(BIN)/python -m benchmarks.run

bench-search: $(VENV)/ready-test ## measure how fast the default search finds a good configuration, beside Optuna's, in virtual time
	$(BIN)/python -m benchmarks.search --workers 8 --seeds 20
	$(BIN)/python -m benchmarks.search --task hartmann --workers 64 --seeds 2

bench-search-full: $(VENV)/ready-test ## all tasks with 8 and 64 workers; beside Optuna's other samplers, Syne Tune, Ray Tune, SMAC3 and NePS (hours)
	$(BIN)/python -m benchmarks.search --docs
	$(BIN)/python -m benchmarks.search --peers --workers 8 --docs
	$(BIN)/python -m benchmarks.search --peers --tables --workers 8 --docs

bench-full: $(VENV)/ready-bench servers ## all cells of the benchmark (hours), and those of single parts
	$(BIN)/python -m benchmarks.run --full
	$(BIN)/python -m benchmarks.bench_command
	$(BIN)/python -m benchmarks.bench_submit
	$(BIN)/python -m benchmarks.bench_claims
	$(BIN)/python -m benchmarks.bench_start
	$(BIN)/python -m benchmarks.bench_first_step
	$(BIN)/python -m benchmarks.bench_footprint

trace: $(VENV)/ready-test ## print through which files and calls a report, a freed slot and a claim go
	$(BIN)/python -m benchmarks.trace
	$(BIN)/python -m benchmarks.trace --storage journal

chaos: $(VENV)/ready-test servers ## inject every fault many times and print what each has cost (an hour, as root)
	$(BIN)/python -m benchmarks.chaos

wheel: ## build the package as one file in dist/, to install it elsewhere with pip
	rm -rf build  # where files of an earlier version may lie
	$(PYTHON) -m pip wheel --no-deps --wheel-dir dist .

docs: $(VENV)/ready-test ## write the generated parts of docs/ and build the documentation site in site/
	$(BIN)/python scripts/write-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "open site/index.html"

gpu-check: $(VENV)/ready-run ## tune the torch example on this machine's GPU, show who uses it, and check trials_per_gpu: auto
	scripts/gpu-check $(BIN)/python

slurm-demo: $(VENV)/ready-run servers ## tune the torch example on a virtual SLURM cluster
	scripts/slurm-demo $(BIN)/python

clean: ## remove what make made; studies in runs/ stay
	rm -rf $(VENV) .venv-bench build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: servers
servers:
	scripts/install-test-servers

$(VENV)/ready-run: $(SETUP)
	scripts/make-venv $(PYTHON) $(VENV) torch,gpu,examples,report
	touch $@

$(VENV)/ready-test: $(SETUP) $(VENV)/ready-run
	scripts/make-venv $(PYTHON) $(VENV) torch,examples,keras,lightning,postgresql,mysql,redis,mlflow,tensorboard,dashboard,cmaes,optunahub,frameworks,report,docs,test,dev
	touch $@

$(VENV)/ready-bench: $(SETUP) $(VENV)/ready-test
	scripts/make-venv $(PYTHON) $(VENV) bench,postgresql,test,torch,examples
	touch $@
