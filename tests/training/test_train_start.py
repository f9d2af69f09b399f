"""Stages one at a time, and what a training starts from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model.test_lite import published
from training.scenes import write_catalog

from glraster.errors import ModelError, UsageError
from glraster.model.checkpoint import load, read_spec
from glraster.model.resnet import ResNet
from glraster.training.train import TrainOptions, train

TINY = (
    *("stem=8", "width=8", "tile_px=64", "thumbnail_px=64", "batch=2", "steps=2", "steps_per_epoch=2"),
    *("warm_up=1", "learning_rate=0.001"),
)
PAPER = (*TINY, "backbone=resnet18")
TINY_TILES = (*TINY[1:], "stages=tiles")


@pytest.fixture(scope="module")
def paper(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of all three stages."""
    folder = tmp_path_factory.mktemp("runs") / "paper"
    train(catalog, folder, TrainOptions("paper", PAPER))
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load(path)[0].state_dict()


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(x, theirs[name]) for name, x in ours.items())


def test_the_papers_stages_follow_one_another(paper: Path) -> None:
    models = [load(paper / f"model_{stage}.safetensors")[0] for stage in ("global", "local", "full")]
    assert [model.arch.mode for model in models] == ["global", "local", "full"]
    guides = [models[i].guide.state_dict() for i in (0, 2)]
    assert all(torch.equal(x, guides[1][name]) for name, x in guides[0].items())


def test_stages_one_by_one_give_what_all_at_once_give(catalog: Path, paper: Path, tmp_path: Path) -> None:
    train(catalog, tmp_path / "one", TrainOptions("paper", PAPER, stages=("global",)))
    assert same(tmp_path / "one" / "model.safetensors", paper / "model_global.safetensors")
    assert not (tmp_path / "one" / "model_local.safetensors").exists()
    init = tmp_path / "one" / "model_global.safetensors"
    train(catalog, tmp_path / "two", TrainOptions("paper", PAPER, stages=("local", "full"), init=init))
    for name in ("local", "full"):
        assert same(tmp_path / "two" / f"model_{name}.safetensors", paper / f"model_{name}.safetensors")
    lines = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {"local", "full"}


@pytest.mark.parametrize(
    ("stages", "init", "told"),
    [
        (
            ("local",),
            None,
            "--stage local goes on from stage global, and --init gives nothing: give --init the file model_g",
        ),
        (("full",), "model_global", "--stage full goes on from stage local, and --init gives a global model"),
        (("joint",), None, "--stage 'joint' is none of the recipe's stages: global, local, full"),
        (("local", "global"), None, "each stage once and in the recipe's order"),
        (("global", "full"), None, "--stage full goes on from stage local, and --init gives nothing"),
    ],
)
def test_a_stage_without_the_one_before_is_told(
    catalog: Path, paper: Path, tmp_path: Path, stages: tuple[str, ...], init: str | None, told: str
) -> None:
    start = paper / f"{init}.safetensors" if init else None
    with pytest.raises(UsageError, match=re.escape(told)):
        train(catalog, tmp_path / "run", TrainOptions("paper", PAPER, stages=stages, init=start))
    assert not (tmp_path / "run").exists()


def test_a_model_is_gone_on_from_with_its_network_and_value_range(
    catalog: Path, finished: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    settings = [part for s in TINY if not s.startswith(("stem", "width")) for part in ("--set", s)]
    init, folder = finished / "model.safetensors", tmp_path / "second"
    outcome = run("train", catalog, "-o", folder, "--init", init, *settings)
    assert outcome.code == 0, outcome.err
    before, after = read_spec(init), read_spec(folder / "model.safetensors")
    assert after.architecture == before.architecture
    assert (after.architecture.stem, after.architecture.width) == (8, 8)
    assert (after.mean, after.std) == (before.mean, before.std)
    refused = run("train", catalog, "-o", tmp_path / "x", "--init", init, "--arch", "width=16", *settings)
    assert refused.code == 1
    assert "another network than the one to be trained: width 8 instead of 16" in refused.err


def test_a_model_of_other_classes_gets_a_new_head(
    paper: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = write_catalog(
        tmp_path,
        classes=[{"id": i, "name": n, "color": [90 * i, 0, 0]} for i, n in enumerate(("roof", "meadow", "sea"))],
    )
    init = paper / "model.safetensors"
    frozen = (*TINY, "steps=1", "learning_rate=1e-12", "normalise=false", "weight_decay=0", "ema=0")
    train(other, tmp_path / "run", TrainOptions(settings=(*frozen, "mode=full"), init=init))
    assert "knows 2 of the 3 classes by name" in caplog.text
    old, new = weights(init), weights(tmp_path / "run" / "model.safetensors")
    head = "guide.fpn.classify.weight"
    assert torch.allclose(new[head][:2], old[head][[2, 1]], atol=1e-6)  # roof and meadow
    assert not torch.allclose(new[head][2], old[head][0], atol=1e-3)
    assert torch.allclose(new["guide.fpn.lateral.0.weight"], old["guide.fpn.lateral.0.weight"], atol=1e-6)


def test_imagenet_weights_are_what_a_stage_starts_from(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(8)
    backbone = ResNet("resnet18", 3)
    torch.save(backbone.state_dict() | {"fc.bias": torch.zeros(1000)}, tmp_path / "resnet18-f37072fd.pth")
    monkeypatch.setenv("GLRASTER_IMAGENET", str(tmp_path))
    frozen = (*TINY[1:], "steps=1", "learning_rate=1e-12", "weight_decay=0", "ema=0")
    train(catalog, tmp_path / "run", TrainOptions(settings=frozen, arch="resnet18,stem=64", init="imagenet"))
    trained = weights(tmp_path / "run" / "model.safetensors")
    for branch in ("guide", "local"):
        assert torch.allclose(trained[f"{branch}.backbone.layer4.1.conv2.weight"], backbone.layer4[1].conv2.weight)
    offline = TrainOptions(settings=frozen, arch="resnet34,stem=64", init="imagenet", offline=True)
    with pytest.raises(ModelError, match="has no ImageNet weights of resnet34"):
        train(catalog, tmp_path / "x", offline)
    assert not (tmp_path / "x").exists()


def test_tiles_alone_are_trained_from_lite_weights(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    torch.save(published("lite0"), tmp_path / "efficientnet-lite0-57934424.pth")
    monkeypatch.setenv("GLRASTER_IMAGENET", str(tmp_path))
    settings = (*TINY_TILES, "freeze=2", "backbone_rate=0.3")
    options = TrainOptions(settings=settings, arch="lite0,mode=tiles", init="imagenet")
    train(catalog, tmp_path / "run", options)
    model, spec = load(tmp_path / "run" / "model.safetensors")
    assert (model.arch.mode, model.arch.stem, spec.mean) == ("tiles", 32, (127 / 255,))
    assert model.local is not None
    state = published("lite0")
    assert torch.equal(model.local.backbone.blocks[1].bn1.running_mean, state["_blocks.1._bn1.running_mean"])
    assert not torch.equal(model.local.backbone.blocks[9].bn1.running_mean, state["_blocks.9._bn1.running_mean"])
    assert spec.provenance["pretrained"]["licence"] == "Apache-2.0"
    description = run("model", "info", tmp_path / "run" / "model.safetensors").out
    assert "Apache-2.0" in description
    assert "lite0" in description
    again = TrainOptions(settings=TINY[1:], arch="lite0", init=tmp_path / "run" / "model.safetensors")
    with pytest.raises(UsageError, match="a training of mode local cannot start from a model of mode tiles"):
        train(catalog, tmp_path / "x", again)


def test_coarse_to_fine_trains_two_classes(tmp_path: Path, catalog: Path, caplog: pytest.LogCaptureFixture) -> None:
    classes = [{"id": i, "name": n, "color": [90 * i, 0, 0]} for i, n in enumerate(("land", "roof"))]
    two = write_catalog(tmp_path, classes=classes, labels={"encoding": "index", "values": {0: 0, 1: 0, 2: 1}})
    train(two, tmp_path / "run", TrainOptions(settings=(*TINY, "coarse_to_fine=true", "class_weights=inverse")))
    assert load(tmp_path / "run" / "model.safetensors")[0].arch.classes == 2
    assert "coarse_to_fine looks for" not in caplog.text
    with pytest.raises(UsageError, match="coarse_to_fine is for two classes, the catalog has 3"):
        train(catalog, tmp_path / "x", TrainOptions(settings=(*TINY, "coarse_to_fine=true")))
    with pytest.raises(UsageError, match="class_weights has 3 numbers for 2 classes: land, roof"):
        train(two, tmp_path / "x", TrainOptions(settings=(*TINY, "class_weights=[1,2,3]")))
    assert not (tmp_path / "x").exists()
