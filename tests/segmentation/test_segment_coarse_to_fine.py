"""`segment --coarse-to-fine`: a map as without it where every tile is kept, the guide's where it sees nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasters import landscape, write_raster
from segmentation.dying_run import dying_run

from glraster.config import Architecture, LandClass, ModelSpec
from glraster.model.checkpoint import save
from glraster.model.fold.local import FoldedLocal
from glraster.model.glnet import GLNet
from glraster.raster.resize import thumbnail

H, W = 330, 300
WINDOWS, TILES = 9, 9 * 4
CLASSES = (LandClass(4, "no building", (205, 178, 132)), LandClass(2, "building", (200, 60, 50)))
MEAN, STD = 0.35, 0.2


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return write_raster(tmp_path_factory.mktemp("scene") / "scene.tif", landscape(H, W))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Callable[..., Path]:
    """Model files whose guide sees a share of cells as foreground: all, none, or those of the highest scores."""
    folder = tmp_path_factory.mktemp("models")

    def make(share: float, mode: str = "local") -> Path:
        torch.manual_seed(3)
        network = GLNet(Architecture(mode, 3, classes=2, backbone="resnet18", width=16)).eval()
        for name, weight in network.named_parameters():
            if weight.dim() == 4 and ("fpn" in name or "aggregate" in name):
                torch.nn.init.kaiming_normal_(weight)
        set_threshold(network, share)
        path = folder / f"{mode}_{share}.safetensors"
        sizes = {"context_px": 128, "tile_px": 72, "thumbnail_px": 64}
        save(network, ModelSpec(network.arch, CLASSES, mean=(MEAN,), std=(STD,), **sizes), path)
        return path

    return make


def set_threshold(network: GLNet, share: float) -> None:
    small = thumbnail(landscape(H, W), H // 2, W // 2)
    with torch.no_grad():
        logits = network.guide(((torch.from_numpy(small).float() / 255 - MEAN) / STD)[None]).logits[0]
        lead = logits[1] - logits[0]
        assert network.guide.fpn.classify.bias is not None
        network.guide.fpn.classify.bias[0] += {0: 1e4, 1: -1e4}.get(share, float(lead.quantile(1 - share)))


@pytest.fixture
def mapped(scene, tmp_path, run):
    """Segment and return the JSON, the mask and the probabilities."""

    def call(model: Path, *arguments: object):
        outputs = ["-o", tmp_path / "mask.tif", "--probabilities", tmp_path / "probabilities.tif"]
        outcome = run("segment", scene, "-m", model, *outputs, "--overwrite", "--json", *arguments)
        assert outcome.code == 0, outcome.err
        with rasterio.open(outputs[1]) as mask, rasterio.open(outputs[3]) as probabilities:
            return json.loads(outcome.out), mask.read(1), probabilities.read()

    return call


def assert_same(first: tuple, second: tuple) -> None:
    np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_array_equal(first[2], second[2])


def test_where_every_tile_is_kept_the_map_is_the_plain_one(model, mapped):
    plain, coarse = mapped(model(1)), mapped(model(1), "--coarse-to-fine")
    assert (plain[0]["tiles"], plain[0]["tiles_skipped"]) == (coarse[0]["tiles"], coarse[0]["tiles_skipped"])
    assert (coarse[0]["tiles"], coarse[0]["tiles_skipped"]) == (TILES, 0)
    assert_same(plain, coarse)
    assert len(np.unique(plain[1])) == 2  # not one class everywhere, which would be alike by any way


def test_where_the_guide_sees_nothing_no_tile_is_computed(model, mapped, monkeypatch):
    guide = mapped(model(0), "--branch", "global")
    monkeypatch.setattr(FoldedLocal, "__call__", lambda *_: pytest.fail("a tile was computed"))
    coarse = mapped(model(0), "--coarse-to-fine")
    assert (coarse[0]["tiles"], coarse[0]["tiles_skipped"]) == (TILES, TILES)
    assert_same(guide, coarse)
    assert (guide[0]["tiles"], guide[0]["tiles_skipped"]) == (0, 0)


def test_some_tiles_are_left_to_the_guide(model, mapped, scene, tmp_path, run):
    plain, coarse = mapped(model(0.02)), mapped(model(0.02), "--coarse-to-fine")
    assert 0 < coarse[0]["tiles_skipped"] < coarse[0]["tiles"] == TILES
    assert not np.array_equal(plain[2], coarse[2])
    outcome = run("segment", scene, "-m", model(0.02), "-o", tmp_path / "told.tif", "--coarse-to-fine", "-q")
    assert f"{coarse[0]['tiles_skipped']} of {TILES} tiles left to the guide" in outcome.out


def test_all_views_are_counted(model, mapped):
    result, _, _ = mapped(model(0), "--coarse-to-fine", "--tta")
    assert (result["tiles"], result["tiles_skipped"]) == (8 * TILES, 8 * TILES)


def call(scene: Path, model: Path, folder: Path) -> list[str]:
    return [str(part) for part in ("segment", scene, "-m", model, "-o", folder / "mask.tif", "--coarse-to-fine")]


def test_resume_goes_on_to_the_same_bytes_and_refuses_a_change(model, scene, tmp_path, run):
    chosen = model(0.02)
    (tmp_path / "whole").mkdir()
    assert run(*call(scene, chosen, tmp_path / "whole")).code == 0
    arguments = call(scene, chosen, tmp_path)
    killed = dying_run("part:4", *arguments)
    assert killed.returncode == -9
    changed = run(*arguments[:-1], "--resume")
    assert changed.code == 1
    assert "coarse to fine was true, is false" in changed.err
    outcome = run(*arguments, "--resume", "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert (result["windows_reused"], result["tiles"]) == (3, TILES - 3 * 4)
    assert (tmp_path / "mask.tif").read_bytes() == (tmp_path / "whole" / "mask.tif").read_bytes()


@pytest.mark.parametrize(
    ("mode", "arguments", "text"),
    [
        ("full", (), "is for models of two classes and mode local; this one is of mode full: leave it out"),
        ("global", (), "is for models of two classes and mode local; this one is of mode global: leave it out"),
        ("local", ("--branch", "local"), "--coarse-to-fine joins guide and tiles; leave out --branch local"),
        ("local", ("--branch", "global"), "--coarse-to-fine joins guide and tiles; leave out --branch global"),
        ("local", ("--merge", "paper", "--context", "400"), "--merge paper classes every tile; leave out --coarse-to"),
    ],
)
def test_what_it_is_not_for(mode, arguments, text, model, scene, tmp_path, run):
    outcome = run(*call(scene, model(0, mode), tmp_path), *arguments)
    refused(outcome, text, tmp_path)


def test_it_is_for_two_classes(model_file, scene, tmp_path, run):
    refused(run(*call(scene, model_file("local"), tmp_path)), "this one has 3 classes: leave it out", tmp_path)


def refused(outcome, text: str, folder: Path) -> None:
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith("glraster: error: ")
    assert text in line
    assert list(folder.iterdir()) == []
