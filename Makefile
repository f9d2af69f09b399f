PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo check lint test

demo: demo/scene.tif demo/model.safetensors
	$(BIN)/glraster segment demo/scene.tif -o demo/mask.tif --model demo/model.safetensors --overwrite

check: lint test

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

demo/scene.tif: .venv/installed examples/make_scene.py $(wildcard examples/scenery/*.py)
	$(BIN)/python examples/make_scene.py $@ --force

demo/model.safetensors: .venv/installed examples/make_model.py
	$(BIN)/python examples/make_model.py $@
