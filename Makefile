# make run     start the product with a virtual instrument, show it, until Ctrl-C
# make test    everything that must hold: unit tests, lint, types, floors, system tests
#
# Both do their own set-up in $(VENV), the first time and whenever pyproject.toml changes.

VENV ?= .venv
ARGS ?=
SHELL := /bin/sh
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test test-unit test-system lint format docs bench endurance clean setup-run setup-test

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: setup-run ## start everything and show it; Ctrl-C stops it. ARGS="--open": options of 'baldr up'
	@$(BIN)/baldr up $(ARGS)

test: test-unit lint test-system ## unit tests, then lint, types and floors, then system tests

test-unit: setup-test ## the fast tests: no Tango server, no network
	$(PYTEST) tests/unit $(ARGS)

test-system: setup-test ## real servers, sockets and streams, on their own ports
	$(PYTEST) tests/system $(ARGS)

lint: setup-test ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup-test ## put imports and lines in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup-test ## write docs/reference anew
	$(BIN)/python -m devices.manual

bench: setup-test ## measure the product beside its goals; ARGS="--rows compute --runs 3 --write"
	$(BIN)/python -m benchmarks $(ARGS)

endurance: setup-test ## the existing clients' habits beside everything else, for an hour
	$(BIN)/python benchmarks/endurance.py $(ARGS)

clean: ## remove the virtual environment, caches and build products of this checkout
	[ ! -f $(VENV)/.made-for ] || rm -rf $(VENV)
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find * -name __pycache__ -type d -prune -exec rm -rf {} +

setup-run:
	@tools/venv.sh $(VENV) database

setup-test:
	@tools/venv.sh $(VENV) database dev
