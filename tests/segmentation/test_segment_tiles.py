"""`segment` with a model of mode tiles: every tile is mapped for itself, without any context."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import torch
from rasters import landscape, write_raster

from glraster.model.checkpoint import load
from glraster.model.glnet import GLNet


def labels(network: GLNet, image: np.ndarray) -> np.ndarray:
    """Class indexes of an image (bands, h, w) that is one tile."""
    pixels = (torch.from_numpy(image).float() / 255 - 0.35) / 0.2
    with torch.inference_mode():
        logits = network.local(pixels[None]).logits
    return torch.nn.functional.interpolate(logits, image.shape[1:], mode="bilinear")[0].argmax(0).numpy()


def test_a_tile_is_mapped_as_the_network_sees_it(tmp_path, model_file, run):
    image, model = landscape(96, 96), model_file("tiles")
    scene = write_raster(tmp_path / "scene.tif", image)
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model, "--precision", "float32", "--json")
    assert outcome.code == 0
    network, spec = load(model)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        actual = mask.read(1)
    expected = np.array([c.id for c in spec.classes])[labels(network, image)]
    assert len(np.unique(expected)) > 1
    assert (actual == expected).mean() > 0.999


def test_windows_overlap_as_tiles_do_and_leave_no_trace(tmp_path, model_file, run):
    """Windows are only what is read at a time: where tiles lie alike, another size of them changes nothing."""
    scene, model = write_raster(tmp_path / "scene.tif", landscape(336, 496)), model_file("tiles")
    masks = []
    for context in (176, 1000):
        mask = tmp_path / f"{context}.tif"
        arguments = ("--tile", 96, "--overlap", 16, "--context", context, "--precision", "float32", "--json")
        outcome = run("segment", scene, "-o", mask, "-m", model, *arguments)
        assert outcome.code == 0
        result = json.loads(outcome.out)
        assert result["tiles"] == 4 * 6
        assert result["windows_done"] == (1 if context == 1000 else 2 * 3)
        with rasterio.open(mask) as file:
            masks.append(file.read(1))
    assert (masks[0] == masks[1]).mean() > 0.99


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--branch", "full"], "the model has a local branch only; leave out --branch full"),
        (["--coarse-to-fine"], "--coarse-to-fine is for models of two classes and mode local"),
    ],
)
def test_a_branch_that_is_not_there_is_refused(tmp_path, model_file, run, arguments, message):
    scene = write_raster(tmp_path / "scene.tif", landscape(96, 96))
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file("tiles"), *arguments)
    assert outcome.code == 2
    assert message in outcome.err
