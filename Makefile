# make test    everything that a change must pass: lint, types, the built wheel, the tests
# make gpu-check    every GPU path on this machine; writes bench/results/DEVICE/gpu-check.json (DEVICE=name)
# make demo    the shipped bundles on this machine, without torch, data set or GPU; writes demo/
#
# Each makes the environment that it needs, from Python alone, in VENV.

PYTHON ?= python3
VENV ?= .venv
GPU_VENV ?= .venv-gpu
DEVICE ?= $(shell nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | \
  tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-' | grep . || echo unknown-gpu)
PYTEST_ARGS ?= --numprocesses auto --dist loadfile --no-loadscope-reorder

BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DELETE_ON_ERROR:
.PHONY: test demo gpu-check lint format types wheel clean

# The tests come last, so that their closing line closes the run.
test: lint types wheel
	$(BIN)/pytest $(PYTEST_ARGS)

demo: $(VENV)/.demo
	$(BIN)/fer-edge demo --out demo --overwrite

# What the environment has is what is checked: torch and TensorRT itself are added to GPU_VENV by hand. On a Jetson, whose
# environment is made otherwise (runtime/README.md), run the command itself.
gpu-check: $(GPU_VENV)/.gpu
	$(GPU_VENV)/bin/fer-edge gpu-check --json bench/results/$(DEVICE)/gpu-check.json --overwrite

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/.dev $(VENV)/.typings
	MYPYPATH=$(VENV)/typings $(BIN)/mypy

# TensorRT's stubs require TensorRT itself, which is too large for this, so they come alone, apart from the environment, where
# they would look like the package. Two lines of them are no Python: a parameter named `in`, and one without its default.
$(VENV)/.typings: $(VENV)/bin/python Makefile
	$(PIP_INSTALL) --no-deps --upgrade --target $(VENV)/typings tensorrt-stubs==10.13.0.35.1
	sed -i -e 's/\bin: list/in_: list/' -e 's/channel_axis: int)/channel_axis: int = ...)/' \
	  $(VENV)/typings/tensorrt_bindings/tensorrt.pyi
	touch $@

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

$(GPU_VENV)/.gpu: pyproject.toml
	test -x $(GPU_VENV)/bin/python || $(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[cuda,rtx]' nvidia-cuda-nvrtc
	touch $@

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(PIP_INSTALL) --editable '.[cpu,report]'
	touch $@

clean:
	rm -rf build dist demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
