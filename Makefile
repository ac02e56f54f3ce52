# What people run. `make help` lists it; README's two commands are `make sweep` and `make test`.
PYTHON ?= python3
VENV := .venv/bin
CONFIG ?= configs/smoke.yaml
READY := .venv/.ready

# A GPU node may have no network: with PYTHON= given, test-gpu runs uninstalled with that interpreter.
ifeq ($(origin PYTHON),command line)
GPU_PYTHON := $(PYTHON)
GPU_NEEDS :=
else
GPU_PYTHON := $(VENV)/python
GPU_NEEDS := $(READY)
endif

.PHONY: help setup sweep test test-gpu check soak memcheck audit wheel-test clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv; an existing torch is used and never replaced

$(READY): pyproject.toml constraints.txt constraints-cpu-triton.txt tools/setup_env.py
	$(PYTHON) tools/setup_env.py
	@touch $@

sweep: $(READY) ## run CONFIG (default configs/smoke.yaml) on what this machine has, and report
	$(VENV)/bench sweep $(CONFIG)

# A file's tests stay in one process. One thread each: torch's and numpy's own would fight over the cores.
IN_PARALLEL := --numprocesses=auto --maxprocesses=4 --dist=loadfile

test: $(READY) ## all tests that need no GPU, with coverage
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest --cov --cov-report=term:skip-covered $(IN_PARALLEL)

test-gpu: $(GPU_NEEDS) ## the tests that need a GPU; PYTHON=python3 runs them uninstalled
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(GPU_PYTHON) -m pytest -m gpu tests/gpu

check: $(READY) ## lint, format, types, import contracts, what is unsafe
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports
	$(VENV)/bandit -q -c pyproject.toml -r bench moe_impl tools

SOAKED := tests/robustness tests/moe_impl/test_fuzzed_lanes.py tests/gpu/test_fuzzed_streams.py \
	tests/gpu/test_soak_on_gpu.py tests/gpu/test_faulted_sweep.py

soak: $(GPU_NEEDS) ## all damaged files, kills, fuzzed schedules; every engine 10,000 times, 20,000 on a GPU
	BENCH_SOAK=1 PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(GPU_PYTHON) -m pytest -s $(SOAKED)

memcheck: $(GPU_NEEDS) ## compute-sanitizer over a small sweep of every link, engine and precision
	$(GPU_PYTHON) tools/memcheck.py --plant; test $$? -eq 86
	$(GPU_PYTHON) tools/memcheck.py

audit: $(READY) ## known vulnerabilities of what is installed (asks PyPI)
	$(VENV)/python tools/audit.py

wheel-test: $(READY) ## build the wheel, install it elsewhere, run the smoke sweep from /
	$(VENV)/python tools/wheel_test.py

clean: ## remove what make made (runs/ stays)
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
