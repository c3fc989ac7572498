# make demo, make test: each sets up what it needs on a machine with Python 3.11+, make and a
# compiler; a second call installs nothing. make help lists the rest.

PYTHON ?= python3
VENV   ?= .venv
OUT    ?= runs/correspondence
SCALE  ?= quick
UV     ?= uv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Several processes with several threads each cost five times the time on two cores.
export OMP_NUM_THREADS ?= 1
# Without byte code every start takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test types clean lock

help:
	@echo "make demo   train circuits, test them against cortex, write $(OUT)/report.html"
	@echo "make test   lint, types, tests, doctests and the code of the README, as CI does"
	@echo "make types  types alone"
	@echo "make lock   renew constraints.txt (needs uv; keeps the pins that still fit)"
	@echo "make clean  remove the environment, builds and runs"
	@echo "With another Python: make test PYTHON=/path/to/python3.12"

demo: $(VENV)/.core.ok
	$(BIN)/pcsim run correspondence --scale $(SCALE) --out $(OUT)
	$(BIN)/pcsim report $(OUT)

test: $(VENV)/.test.ok
	$(BIN)/python tests/check.py

types: $(VENV)/.test.ok
	$(BIN)/python tests/check.py types

clean:
	rm -rf $(VENV) build dist runs *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "pcsim needs Python 3.11 or newer; run: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core.ok: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[deep]'
	@touch $@

$(VENV)/.test.ok: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[all,test,dev]'
	@touch $@ $(VENV)/.core.ok

# The torch pin is plain: a pin to +cpu names a file that the package index does not have.
lock:
	printf 'torch==2.13.0\n' | $(UV) pip compile --universal --python-version 3.11 --quiet --no-header \
		--no-annotate --extra all --extra test --extra docs --extra dev -c /dev/stdin \
		pyproject.toml -o constraints.txt
