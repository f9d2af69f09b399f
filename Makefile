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

# What the default model learns from; GLRASTER_DATA is the folder that holds dubai/, buildings/ and banepa/.
training-data: .venv/installed
	test -d "$(GLRASTER_DATA)/dubai"
	mkdir -p demo/training/synthetic
	ln -sfn "$(abspath $(GLRASTER_DATA))/dubai" demo/training/dubai
	$(BIN)/python examples/make_scene.py demo/training/synthetic/scene_101.tif --seed 101 --width 3072 --height 3072 --force
	$(BIN)/python examples/make_scene.py demo/training/synthetic/scene_102.tif --seed 102 --width 3072 --height 3072 --force

default-model: training-data
	GLRASTER_DATA="$(abspath $(GLRASTER_DATA))" $(BIN)/glraster train examples/default.yaml examples/buildings.yaml -o runs/default \
		--init imagenet --arch lite0,width=64,mode=tiles --bfloat16 --set 'stages=[tiles]' --set 'shares=[5,3]' \
		--set tile_px=384 --set 'tiles=[1,2]' --set batch=4 --set sub_batch=8 --set steps=700 --set steps_per_epoch=350 \
		--set warm_up=50 --set freeze=2 --set backbone_rate=0.3 --set 'zoom=[0.6,1.6]' --set colour=0.2 --set blind=0 \
		--set trust=1 --set ema=0.99
	$(BIN)/python examples/pack_model.py runs/default/model.safetensors glraster/model/default.safetensors
