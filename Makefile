# Everything runs in .venv; `make demo` and `make test` stand on `make install`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test test-slow test-all coverage check lint types bundled clean

install: $(STAMP)

# torch and torchvision come first and together: they are built as one matched pair of releases.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet torch==2.14.1 torchvision==0.29.1
	$(BIN)/pip install --disable-pip-version-check --quiet --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/kd-edge demo

# Two workers of one thread each. What cannot be made short is marked slow and left to `make test-all`.
test test-slow coverage: export OMP_NUM_THREADS := 1
# Tests start many interpreters; none of them should compile kd-edge again.
test test-slow coverage: export PYTHONDONTWRITEBYTECODE :=

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" --durations=10

test-slow: install
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow --durations=10

test-all: test test-slow

coverage: install
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

check: lint types

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

# The student that ships in the package: half an hour on two cores. Always a new run.
bundled: RUN := runs/bundled-$(shell date +%Y%m%d-%H%M%S)
bundled: install
	$(BIN)/kd-edge train bundled --out $(RUN)
	$(BIN)/kd-edge export $(RUN) --fp16 --out kd_edge/bundled.onnx

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
