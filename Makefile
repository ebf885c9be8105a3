# `make demo` and `make test` build a local environment in .venv once and reuse it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test lint clean

help:
	@echo "make demo    train on the shipped organism and show what changed (about two minutes)"
	@echo "make test    lint, types, import directions, tests"
	@echo "make clean   remove the environment and everything runs wrote"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 14)))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed; say which: make demo PYTHON=python3.12"; exit 1; }
	@echo "Installing into $(VENV), once (two to five minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $(READY)

demo: $(READY)
	@$(BIN)/dso demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -n 2

clean:
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
