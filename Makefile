PYTHON ?= python3.11
BIN := .venv/bin
SCENE := demo/scene.tif

.PHONY: demo check lint test

demo: .venv/installed $(SCENE)
	$(BIN)/python examples/demo.py demo

check: .venv/installed lint test

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: .venv/installed
	$(BIN)/pytest -q -n 2

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(SCENE): .venv/installed examples/make_scene.py
	mkdir -p demo
	$(BIN)/python examples/make_scene.py $@
