"""`glraster evaluate CATALOG`: every scene of a split is mapped and held against its label."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from conftest import CLASSES
from rasters import landscape, write_raster

H, W = 150, 210

IDS = [c[0] for c in CLASSES]


@pytest.fixture
def catalog(tmp_path):
    """Three scenes whose label is the second class where the first band is bright, shuffled in places."""
    rng = np.random.default_rng(3)
    for i in range(3):
        pixels = landscape(H, W, seed=i)
        write_raster(tmp_path / f"town{i}.tif", pixels)
        label = np.where(pixels[0] / 255 > 0.4, IDS[1], IDS[0]).astype(np.uint8)
        label = np.where(rng.random(label.shape) < 0.1 * (i + 1), IDS[2], label).astype(np.uint8)
        label[:20] = 255
        write_raster(tmp_path / f"town{i}_label.tif", label[None])
    classes = "\n".join(f"  - {{id: {i}, name: '{name}', color: {list(color)}}}" for i, name, color in CLASSES)
    file = tmp_path / "catalog.yaml"
    file.write_text(
        f"name: towns\nclasses:\n{classes}\nbands: 3\ngsd_m: null\ncontext_px: 128\nlabels: {{encoding: index}}\n"
        "ignore: [255]\nsplits:\n  train:\n    - {image: town0.tif, label: town0_label.tif}\n  val:\n"
        "    - {image: town1.tif, label: town1_label.tif}\n"
        "    - {image: town2.tif, label: town2_label.tif, window: [30, 40, 100, 120]}\n"
    )
    return file


def test_counts_are_those_of_maps_made_one_by_one(catalog, tmp_path, pointwise_model, run):
    outcome = run("evaluate", catalog, "--model", pointwise_model, "--masks", tmp_path / "maps", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    counts = np.zeros((3, 3), np.int64)
    for name, window in (("town1", None), ("town2", rasterio.windows.Window(40, 30, 120, 100))):
        mask = tmp_path / f"{name}_map.tif"
        assert run("segment", tmp_path / f"{name}.tif", "-o", mask, "-m", pointwise_model, "-q").code == 0
        with rasterio.open(mask) as mapped, rasterio.open(tmp_path / f"{name}_label.tif") as label:
            pairs = label.read(1, window=window).ravel(), mapped.read(1, window=window).ravel()
        for t, true in enumerate(IDS):
            for m, predicted in enumerate(IDS):
                counts[t, m] += ((pairs[0] == true) & (pairs[1] == predicted)).sum()
    assert found["confusion"] == counts.tolist()
    assert [s["name"] for s in found["scenes"]] == ["town1", "town2"]
    interval = found["miou_interval"]
    assert interval["low"] <= found["miou"] <= interval["high"]
    assert interval["low"] < interval["high"]


def test_kept_maps_are_used_again_and_those_of_another_model_refused(catalog, tmp_path, model_file, run, monkeypatch):
    arguments = ("evaluate", catalog, "--masks", tmp_path / "maps", "--json", "--model")
    first = run(*arguments, model_file())
    assert first.code == 0, first.err

    def refuse(*_args, **_kwargs):
        raise AssertionError("segmented again")

    monkeypatch.setattr("glraster.segmentation.segment.segment", refuse)
    assert json.loads(run(*arguments, model_file()).out) == json.loads(first.out)
    other = run(*arguments, model_file(seed=5))
    assert other.code == 1
    assert "choose another folder for --masks" in other.err


def test_a_catalog_has_its_own_labels(catalog, model_file, run):
    outcome = run("evaluate", catalog, catalog.parent / "town1_label.tif", "--model", model_file())
    assert outcome.code == 2
    assert "leave TRUTH out" in outcome.err


def test_an_empty_split_is_named(catalog, model_file, run):
    outcome = run("evaluate", catalog, "--split", "test", "--model", model_file())
    assert outcome.code == 1
    assert "split test has no scene" in outcome.err
