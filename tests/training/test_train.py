"""A training makes a model that segments, stops well, and goes on as if it had not stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rasterio
import torch
from training.scenes import NAMES, SMALL

from glraster.errors import CatalogError, OutputError, UsageError
from glraster.model.checkpoint import load, read_spec
from glraster.model.glnet import GLNet
from glraster.training.stages import scale_guide
from glraster.training.train import TrainOptions, train


def state(folder: Path) -> dict[str, Any]:
    loaded = torch.load(folder / "last.pt", weights_only=True)
    assert isinstance(loaded, dict)
    return loaded


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_folder_tells_the_whole_training(finished: Path) -> None:
    steps = [line for line in lines(finished) if line["kind"] == "step"]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines(finished) if line["kind"] == "validation"] == [2, 4, 6]
    with rasterio.open(finished / "joint_000006.png") as picture:
        assert picture.width == 3 * picture.height > 300
        assert picture.read().std() > 10
    spec = read_spec(finished / "model.safetensors")
    assert spec.bfloat16_agreement is not None
    assert 0.5 < spec.bfloat16_agreement <= 1
    provenance = spec.provenance
    assert provenance["catalog"] == "patches"
    assert set(provenance["val_iou"]) == set(NAMES)  # type: ignore[call-overload]


def test_the_model_is_the_averaged_one_and_segments(
    finished: Path, catalog: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    mask = tmp_path / "mask.tif"
    outcome = run("segment", catalog.parent / "image2.tif", "-o", mask, "-m", finished / "model.safetensors", "--json")
    assert outcome.code == 0, outcome.err
    assert [c["name"] for c in json.loads(outcome.out)["classes"]] == list(NAMES)
    model, _ = load(finished / "model.safetensors")
    best = max((line for line in lines(finished) if line["kind"] == "validation"), key=lambda line: line["miou"])
    if best["step"] == 6:
        trained = GLNet(model.arch)
        trained.load_state_dict(state(finished)["averaged"])
        trust = read_spec(finished / "model.safetensors").provenance["trust"]
        assert trust in (1.0, 0.5)
        expected = scale_guide(trained, float(str(trust))).state_dict()
        assert all(torch.equal(x, expected[name]) for name, x in model.state_dict().items() if x.is_floating_point())


def test_a_training_that_stopped_goes_on_to_the_same_weights(finished: Path, interrupted: Path, catalog: Path) -> None:
    assert state(interrupted)["step"] == 2
    assert lines(interrupted)[-1]["step"] == 3
    train(catalog, interrupted, TrainOptions(settings=SMALL, resume=True))
    whole, resumed = state(finished), state(interrupted)
    for part in ("model", "averaged"):
        assert all(torch.equal(x, resumed[part][name]) for name, x in whole[part].items())
    keys = ("kind", "stage", "step", "loss")
    assert [[line.get(k) for k in keys] for line in lines(interrupted)] == [
        [line.get(k) for k in keys] for line in lines(finished)
    ]


def test_learning_pays(catalog: Path, tmp_path: Path) -> None:
    result = train(catalog, tmp_path / "long", TrainOptions(settings=(*SMALL, "steps=60", "steps_per_epoch=60")))
    assert result.best.miou > 0.6


def test_a_finished_folder_is_not_trained_over(finished: Path, catalog: Path) -> None:
    with pytest.raises(OutputError, match="holds a training; go on with --resume"):
        train(catalog, finished, TrainOptions(settings=SMALL))
    with pytest.raises(OutputError, match="holds another training, steps differ"):
        train(catalog, finished, TrainOptions(settings=(*SMALL, "steps=9"), resume=True))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("stepz=3",), "'stepz=3' .keys: "),
        (("steps=many",), "'many' is no int"),
        (("loss=hope",), "unknown loss 'hope'"),
        (("backbone=vgg",), "backbone 'vgg'"),
        (("optimizer=sgd",), "optimizer 'sgd' .one of adam, adamw"),
        (("mode=fll", "batch=0"), "mode 'fll' .*; batch 0"),
        (("zoom=[0,1]",), "zoom .* .two positive numbers"),
        (("tiles=3",), "tiles .3. .rows and columns"),
        (("width=3",), "width 3 .an even number"),
        (("steps=0",), "steps 0 .at least 1"),
        (("tile_px=256",), "larger than the context of 128 px"),
    ],
)
def test_bad_settings_are_told_before_anything_is_made(
    catalog: Path, tmp_path: Path, settings: tuple[str, ...], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        train(catalog, tmp_path / "run", TrainOptions(settings=(*SMALL, *settings)))
    assert not (tmp_path / "run").exists()


def test_bad_data_is_told_before_anything_is_made(catalog: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    shutil.copytree(catalog.parent, folder)
    (folder / "label1.tif").unlink()
    with pytest.raises(CatalogError, match=r"label1\.tif"):
        train(folder / "catalog.yaml", tmp_path / "run", TrainOptions(settings=SMALL))
    assert not (tmp_path / "run").exists()
