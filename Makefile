# Two targets do everything: `make madison` and `make test`. Both set the environment up first and may be run again.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONUNBUFFERED := 1

.PHONY: bench-ray setup-locked locks audit sbom fuzz setup madison ladder test lint ui docs report faults bench clean-venv help

help:
	@echo "make madison   environment, whole chain (trains v3b and R2), score table, report"
	@echo "make ladder    trains and judges all declared runs, prints measured beside reported"
	@echo "make test      environment, lint, types, every test"
	@echo "make ui        the Dagster UI on http://127.0.0.1:3000"
	@echo "make docs      manifest.json, catalog.json and the documentation site, into .foundry/docs/"
	@echo "make bench     measurements, into benchmarks/results/"

setup: $(VENV)/.ready

# torch first and by itself: where an index offers a CPU build of this version it is taken, and nothing later replaces it.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "Foundry needs Python 3.11 or 3.12; run: make PYTHON=python3.11 setup")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@# Last, so that `dagster` is this project's command and not the one of the package it wraps.
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall -e .
	touch $@

madison: setup
	dagster asset materialize --select '*madison_r2_serving_matrix'
	foundry report madison_r2

# A run that fails leaves the others to go on; the table says which row is missing, and the target then fails.
ladder: setup
	-dagster asset materialize --select "$$(foundry ladder --select)"
	foundry ladder --complete

test: setup
	scripts/browser.sh
	ruff check foundry_pipeline tests benchmarks scripts
	ruff format --check foundry_pipeline tests benchmarks scripts
	mypy
	pytest

lint: setup
	ruff check foundry_pipeline tests benchmarks scripts
	ruff format --check foundry_pipeline tests benchmarks scripts
	mypy

ui: setup
	dagster dev -w workspace.yaml -h 127.0.0.1 -p 3000

docs: setup
	foundry docs

report: setup
	foundry report madison_r2

# What was done is kept, and the same command goes on from there (ONLY=cache, SEED=2).
faults: setup
	python -m benchmarks.faults --seed $(or $(SEED),1) $(foreach kind,$(ONLY),--only $(kind))

bench: setup
	python -m benchmarks.chain
	python -m benchmarks.step
	python -m benchmarks.step_parity
	python -m benchmarks.generation
	python -m benchmarks.data
	python -m benchmarks.trace
	python -m benchmarks.docs

# Every file by its hash; see docs/security.md. CPU builds of torch are allowed as locks/torch-builds.txt lists them.
setup-locked:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r locks/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --force-reinstall -e .
	$(BIN)/python -m pip check || $(BIN)/python -m pip install --quiet --require-hashes --no-deps -r locks/cuda.txt
	$(BIN)/python -m pip check
	touch $(VENV)/.ready

locks: setup
	python scripts/locks.py

audit: setup
	foundry audit

sbom: setup
	foundry sbom

fuzz: setup
	python -m tests.fuzz --seconds 600

# Wants quiet: ten runs of Dagster at once are more than two cores' work by themselves.
bench-ray: setup
	python -m benchmarks.ray_path

# The whole chain with its artifacts on an S3-compatible server (the tests run it to its dataset).
.PHONY: shared-store bench-shared-store
shared-store: setup
	WHOLE_CHAIN=1 pytest -n 0 tests/pipeline/test_shared_chain.py

# What that costs; takes the builds of R2 out of the store of `make madison`.
bench-shared-store: setup
	python -m benchmarks.shared_store
