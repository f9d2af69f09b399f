PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo check lint test docs training-data default-model

demo: demo/scene.tif
	$(BIN)/glraster segment demo/scene.tif -o demo/mask.tif --overwrite
	$(BIN)/glraster evaluate demo/mask.tif demo/scene_truth.tif

check: lint docs test

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

test: .venv/installed
	$(BIN)/pytest -q -n 2

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo/scene.tif: .venv/installed examples/make_scene.py $(wildcard examples/scenery/*.py)
	$(BIN)/python examples/make_scene.py $@ --force

# What the default model learns from; GLRASTER_DATA is the folder that holds the Dubai tiles in dubai/.
training-data: .venv/installed
	test -d "$(GLRASTER_DATA)/dubai"
	mkdir -p demo/training/synthetic
	ln -sfn "$(abspath $(GLRASTER_DATA))/dubai" demo/training/dubai
	$(BIN)/python examples/make_scene.py demo/training/synthetic/scene_101.tif --seed 101 --width 3072 --height 3072 --force
	$(BIN)/python examples/make_scene.py demo/training/synthetic/scene_102.tif --seed 102 --width 3072 --height 3072 --force

default-model: training-data
	$(BIN)/glraster train examples/default.yaml -o runs/default_1 --bfloat16 --set steps=2150 --set steps_per_epoch=325 \
		--set 'zoom=[0.6,1.6]' --set colour=0.2 --set blind=0 --set adjust=0 --set trust=1
	$(BIN)/glraster train examples/default.yaml -o runs/default_2 --bfloat16 --set steps=1500 --set steps_per_epoch=250 \
		--set warm_up=50 --set trust=1 --init runs/default_1/model.safetensors
	$(BIN)/glraster train examples/default.yaml -o runs/default_3 --bfloat16 --set steps=900 --set steps_per_epoch=300 \
		--set warm_up=50 --set learning_rate=0.0006 --init runs/default_2/model.safetensors
	$(BIN)/python examples/pack_model.py runs/default_3/model.safetensors glraster/model/default.safetensors
