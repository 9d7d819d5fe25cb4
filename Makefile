# make demo   install, then train and test a small Fast R-CNN (about 4 minutes)
# make test   install, then run the test suite
# make docs   build the tutorials and the reference into build/docs
# make test-gpu   the tests of layers and kernels, on the GPU too (CUDA=cuda12 for an older driver)
# make soak   the tests that take longer than that: faults by the hundred, every large net
PYTHON ?= python3
CUDA   ?= cuda13
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test docs test-gpu soak lint clean

demo: $(VENV)/installed
	$(BIN)/fast-rcnn demo

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto --dist loadfile

docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/python docs/build.py build/docs

test-gpu: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet -e '.[test,$(CUDA)]'
	$(BIN)/python -m pytest --need-gpu tests/layers tests/test_gpu_*.py tests/test_kernels_compile.py \
	    tests/test_device.py tests/test_device_query.py tests/test_cuda_on_host.py tests/test_strict_device.py

soak: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto --dist loadfile -m soak

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/installed: $(VENV)/bin/python setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet -e '.[test,dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist output *.egg-info .pytest_cache .mypy_cache .ruff_cache
