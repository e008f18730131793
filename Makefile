# make test    everything that a change must pass: lint, types, the built wheel, the tests
# make demo    the shipped bundles on this machine, without torch, data set or GPU; writes demo/
#
# Each makes the environment that it needs, from Python alone, in VENV.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DELETE_ON_ERROR:
.PHONY: test demo lint format types wheel clean

# The tests come last, so that their closing line closes the run.
test: lint types wheel
	$(BIN)/pytest $(PYTEST_ARGS)

demo: $(VENV)/.demo
	$(BIN)/fer-edge demo --out demo

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/.dev
	$(BIN)/mypy

# The wheel as a user gets it: built, installed outside this tree, tested there. Only its dependencies are borrowed from
# VENV, by a .pth file, which saves downloading them again.
wheel: $(VENV)/.dev
	set -e; place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; \
	$(BIN)/python -m build --wheel --no-isolation --outdir "$$place" . >"$$place/log" || { cat "$$place/log"; exit 1; }; \
	$(BIN)/python -m venv "$$place/venv"; \
	"$$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index "$$place"/*.whl; \
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  >"$$("$$place/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth"; \
	tests="$(CURDIR)/tests/wheel"; config="$(CURDIR)/pyproject.toml"; cd "$$place"; \
	venv/bin/python -m pytest --config-file "$$config" --rootdir "$$place" -p no:cacheprovider "$$tests"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(PIP_INSTALL) --editable '.[dev]'
	touch $@

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(PIP_INSTALL) --editable '.[cpu,report]'
	touch $@

clean:
	rm -rf build dist demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
