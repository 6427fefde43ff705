# Two commands do everything on a machine with python3, make and a C compiler: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    := demo-out

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench docs lock dist sbom audit clean

help: ## show these targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[local]'
	@touch $@

# SecantusDB speaks MongoDB's protocol; the tests run it as a process of its own and never import it.
$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,check]'
	$(BIN)/pip install --quiet --disable-pip-version-check secantusdb || echo "no SecantusDB: the MongoDB tests will be skipped"
	@touch $@

demo: $(VENV)/.demo ## plan, simulate and load-test the example; prints the table, writes demo-out/report.html
	$(BIN)/python examples/demo.py --out $(OUT)

test: check ## everything that is not opt-in, a file at a time on each core
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

check: $(VENV)/.test ## ruff, mypy --strict, import contracts, generated docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache | tail -n 7
	$(BIN)/python tools/make_docs.py --check

format: $(VENV)/.test ## put the code into shape
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

docs: $(VENV)/.test ## write the generated pages of docs/
	$(BIN)/python tools/make_docs.py

bench: $(VENV)/.test ## measure planner, simulator and load generator
	$(BIN)/python -m benchmarks

lock: $(VENV)/.test ## write the exact versions and hashes that the backend's image installs; needs the network
	$(BIN)/python tools/make_lock.py

dist: | $(BIN)/python ## write dist/wheels: atoll and all that it needs, to carry where no network is; needs the network
	rm -rf dist/wheels
	$(BIN)/pip wheel --quiet --disable-pip-version-check --wheel-dir dist/wheels '.[local]'
	@echo "Carry dist/wheels to a machine with the same sort of system and Python $$($(BIN)/python -V | cut -d' ' -f2 | cut -d. -f1,2). There:"
	@echo "  python3 -m venv atoll && atoll/bin/pip install --no-index --find-links wheels 'atoll[local]'"

dist/env/bin/python: pyproject.toml
	rm -rf dist/env dist/*.whl
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv --without-pip dist/env
	$(PYTHON) -m pip --python dist/env/bin/python install --quiet dist/*.whl

dist/tools/bin/pip: | $(BIN)/python
	$(PYTHON) -m venv dist/tools
	dist/tools/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom pip-audit

sbom: dist/env/bin/python dist/tools/bin/pip ## write dist/sbom.cdx.json, what the wheel brings along; needs the network
	dist/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --of JSON -o dist/sbom.cdx.json dist/env/bin/python

audit: dist/env/bin/python dist/tools/bin/pip ## ask for known holes in what the wheel brings along; needs the network
	dist/tools/bin/pip-audit --path $$(echo dist/env/lib/python3.*/site-packages)

clean: ## remove what make made
	rm -rf $(VENV) $(OUT) dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
