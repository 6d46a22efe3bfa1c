# Everything a newcomer needs: make demo, make test. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed

.DEFAULT_GOAL := help
FUZZ_S ?= 60
KILLS ?= 30
RELIABILITY ?= reports/reliability.md

.PHONY: help demo plan test faults fuzz lint types format verify clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	@echo 'Installing into .venv; torch brings 6 GB of CUDA libraries on Linux, which takes some minutes.'
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)

demo: $(READY) ## install, run every stage on the synthetic demo tiles, print where the report lies
	$(BIN)/python -m pipeline --run reports/demo

plan: $(READY) ## sources held out in turn, with the random twin, on small demo tiles
	$(BIN)/python -m pipeline --run reports/demo-plan --data-dir data/small --demo-tiles 240 --demo-px 64 \
		--protocol logo --folds 5 --twin --epochs 3 --tile-px 48 --floor-px 48
	$(BIN)/python -m pipeline.verify --run reports/demo-plan

test: $(READY) ## install, run the default tests
	$(BIN)/python -m pytest

faults: $(READY) ## kill, starve and damage every stage, KILLS=30 times; writes reports/reliability.md
	HISTOHEADS_KILLS=$(KILLS) $(BIN)/python -m pytest -m fault --reliability $(RELIABILITY)

fuzz: $(READY) ## feed made-up files to the readers, FUZZ_S=60 seconds for each kind (Linux)
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	for target in tile manifest hdf5; do $(BIN)/python -m fuzz $$target -max_total_time=$(FUZZ_S) || exit 1; done

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy on pipeline/
	$(BIN)/mypy

format: $(READY) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

verify: $(READY) ## check every file of the demo run against its recorded hash
	$(BIN)/python -m pipeline.verify --run reports/demo

clean: ## remove the demo runs, their tiles and the caches (not .venv)
	rm -rf reports/demo reports/demo-plan data/demo data/small .pytest_cache .mypy_cache .ruff_cache build *.egg-info
