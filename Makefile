# Everything a newcomer needs: make demo, make test. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
# The versions that the tests passed with. `make demo LOCK=` takes the newest ones that pyproject.toml allows instead.
LOCK ?= requirements.lock

.DEFAULT_GOAL := help
FUZZ_S ?= 60
KILLS ?= 30
RELIABILITY ?= reports/reliability.md
# Options of the demo, such as DEMO='--epochs 4'; default: as README shows it.
DEMO ?=
# Files or folders of the slow tests; default: all.
SLOW ?=
# Processes of the tests.
JOBS ?= 2
TYPESCRIPT := 5.9.3

.PHONY: help demo plan slide annotations test slow faults fuzz lint types format verify lock audit lowest clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

$(READY): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	@echo 'Installing into .venv; torch brings 3.4 GB of CUDA libraries on Linux, which takes some minutes.'
	$(BIN)/python -m pip install --quiet $(addprefix --constraint ,$(LOCK)) --editable '.[dev]'
	touch $(READY)

demo: $(READY) ## install, run every stage on the synthetic demo tiles, print where the report lies
	$(BIN)/python -m pipeline --run reports/demo $(DEMO)

plan: $(READY) ## sources held out in turn, with the random-split control, on small demo tiles
	$(BIN)/python -m pipeline --run reports/demo-plan --data-dir data/small --demo-tiles 240 --demo-px 64 \
		--protocol logo --folds 5 --random-control --epochs 3 --tile-px 48 --baseline-px 48
	$(BIN)/python -m pipeline.verify --run reports/demo-plan

ANNOTATED := data/demo-slides/annotated
annotations: $(READY) ## tiles from annotated synthetic slides, heads, and a map of a slide of another source
	for n in 1 2 3 4; do $(BIN)/python -m pipeline.demo_slide --side 2400 --source $$n --seed $$n --annotations 3 \
		--out $(ANNOTATED)/s$$n.tif || exit 1; done
	$(BIN)/python -m pipeline --run reports/demo-annotations --data $(ANNOTATED) --cut-px 48 --cut-mpp 0.99 \
		--arch resnet10 --tile-px 48 --epochs 10
	$(BIN)/python -m pipeline.demo_slide --side 2400 --source 7 --seed 7 --out data/demo-slides/s7.tif
	$(BIN)/python -m pipeline.extract --run reports/demo-annotations --slide data/demo-slides/s7.tif
	$(BIN)/python -m pipeline.predict --run reports/demo-annotations --reject 0.05 \
		--embeddings reports/demo-annotations/slides/s7/s7.h5 --truth data/demo-slides/s7-truth.png

SLIDE := CRC-Prim-HE-03_demo3000-seed0
# The part of the demo whose network and heads have not seen source 3.
UNSEEN := reports/demo/parts/grouped-seed0-fold0
slide: demo ## a map of a synthetic slide by the demo's heads, scored against its known classes
	$(BIN)/python -m pipeline.demo_slide --side 3000 --source 3
	$(BIN)/python -m pipeline.extract --run $(UNSEEN) --slide data/demo-slides/$(SLIDE).tif
	$(BIN)/python -m pipeline.predict --run $(UNSEEN) --head all --truth data/demo-slides/$(SLIDE)-truth.png \
		--embeddings $(UNSEEN)/slides/$(SLIDE)/$(SLIDE).h5

test: $(READY) ## install, run the default tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope

slow: $(READY) ## the tests that take minutes: kills, full disks, several processes, Dask, int8, compilers
	HISTOHEADS_KILLS=$(KILLS) $(BIN)/python -m pytest -m slow -n $(JOBS) --dist loadscope $(SLOW)

faults: $(READY) ## kill, starve and damage every stage, KILLS=30 times; writes reports/reliability.md
	HISTOHEADS_KILLS=$(KILLS) $(BIN)/python -m pytest -m fault --reliability=$(RELIABILITY) -n $(JOBS) --dist loadscope

fuzz: $(READY) ## feed made-up files to the readers, FUZZ_S=60 seconds for each kind (Linux)
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	for target in tile manifest slide grid geojson hdf5; do $(BIN)/python tests/fuzz $$target -max_total_time=$(FUZZ_S) || exit 1; done

lint: $(READY) ## ruff: rules and format; the layers of the rooms; the types of the scripts of report.html, if node is there
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	@if npx --yes --package typescript@$(TYPESCRIPT) tsc --version >/dev/null 2>&1; then \
		npx --yes --package typescript@$(TYPESCRIPT) tsc -p .ci/tsconfig.json; \
		else echo 'skipped: no node, or no npm registry: the types of the scripts of report.html'; fi

types: $(READY) ## mypy on pipeline/
	$(BIN)/mypy

format: $(READY) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

verify: $(READY) ## check every file of the demo run against its recorded hash
	$(BIN)/python -m pipeline.verify --run reports/demo

lock: $(READY) ## write requirements.lock anew, its versions kept where they still fit (UPGRADE=--upgrade: newest)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-annotate $(UPGRADE) \
		--custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

audit: $(READY) ## known vulnerabilities of the locked versions (asks pypi.org)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock

lowest: ## run the tests with the lowest versions that pyproject.toml allows, in .venv-lowest
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	.venv-lowest/bin/python -m pytest

clean: ## remove the demo runs, their tiles and the caches (not .venv)
	rm -rf reports/demo reports/demo-plan reports/demo-annotations data/demo data/small data/demo-slides .pytest_cache .mypy_cache .ruff_cache build *.egg-info
