.PHONY: help install test slow check format bench

PYTHON ?= python3
BIN := .venv/bin

help:  ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install:  ## Make .venv with everything needed to develop
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e '.[dev]'
	$(BIN)/pip install -q --no-deps recbole  # for the ratings it carries

test:  ## Run the tests (about 6 minutes on 2 cores)
	$(BIN)/python -m pytest

slow:  ## Run the slow tests too
	$(BIN)/python -m pytest -m slow

check: lint test  ## What CI runs, but for the slow tests

lint:  ## Style, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format:  ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
