# make test   checks and tests, in an environment of its own (.venv)
# make demo   simulate, refine, compare with the truth; the picture and the numbers go to demo_output/
#
# On a machine with another torch (a CUDA build, say), name it:  make test TORCH="torch==2.11.0"
# and where torch comes from another index:                      make test PIP_TORCH="--index-url https://..."

SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
TORCH ?= torch==2.13.0
PIP_TORCH ?=
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
WORKERS ?= $(shell n=$(CORES); echo $$(( n > 4 ? 4 : n )))
PYTEST_ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.aurefine-installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install test lint types pytest demo clean

help:
	@echo "make test   ruff, mypy and pytest in their own environment ($(VENV))"
	@echo "make demo   simulate, refine, compare with the truth; see demo_output/"
	@echo "make clean  remove the environment, caches and the demo's output"

install: $(STAMP)

# Another torch than the pinned one brings its own Triton.
# torch goes first and by its exact version: an open range would fetch the newest build with its gigabytes of CUDA libraries.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "aurefine needs Python 3.11 or newer: install one, or name it: make PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	sed 's/^torch==.*/$(TORCH)/; $(if $(filter torch==2.13.0,$(TORCH)),,/^triton==/d)' constraints.txt > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet -c $(VENV)/constraints.txt $(PIP_TORCH) "$(TORCH)"
	$(BIN)/python -m pip install --quiet -c $(VENV)/constraints.txt -e ".[dev,model]"
	touch $(STAMP)

test: lint types pytest

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

# One thread a test process: the processes share the cores.
pytest: $(STAMP)
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 MPLBACKEND=Agg $(BIN)/python -m pytest -q -n $(WORKERS) $(PYTEST_ARGS)

demo: $(STAMP)
	$(BIN)/python -m aurefine.demo --output demo_output

clean:
	rm -rf $(VENV) demo_output build *.egg-info .pytest_cache .mypy_cache .ruff_cache .numba_cache
