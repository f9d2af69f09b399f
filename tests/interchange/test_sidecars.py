"""`glraster segment --stac --qml`: what lies beside the mask afterwards."""

from __future__ import annotations

import json

import pytest
import rasterio
from interchange.test_stac_item import check
from interchange.test_style import entries
from rasters import landscape, write_raster

from glraster.model.checkpoint import model_id


@pytest.fixture
def scene(tmp_path):
    path = write_raster(tmp_path / "scene.tif", landscape(60, 80))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(TIFFTAG_DATETIME="2021:02:03 04:05:06")
    return path


def test_item_and_style_describe_the_mask_that_was_written(scene, tmp_path, model_file, run):
    mask, confidence = tmp_path / "mask.tif", tmp_path / "confidence.tif"
    outcome = run("segment", scene, "-o", mask, "-m", model_file(), "--stac", "--qml", "--confidence", confidence)
    assert (outcome.code, outcome.err) == (0, "")
    item = json.loads((tmp_path / "mask.stac.json").read_text(encoding="utf-8"))
    check(item)
    assert {asset["href"] for asset in item["assets"].values()} == {"./mask.tif", "./confidence.tif", "./mask.qml"}
    assert item["properties"]["datetime"] == "2021-02-03T04:05:06Z"
    assert item["properties"]["proj:shape"] == [60, 80]
    assert model_id(model_file()) in item["properties"]["processing:lineage"]
    assert item["links"][0]["href"] == "./scene.tif"
    assert [e[:2] for e in entries((tmp_path / "mask.qml").read_text(encoding="utf-8"))] == [
        ("3", "building & roof"),
        ("7", "bare land"),
        ("1", "water"),
    ]


@pytest.mark.parametrize("name", ["mask.qml", "mask.stac.json"])
def test_a_side_car_that_exists_is_kept_and_nothing_computed(name, scene, tmp_path, model_file, run):
    (tmp_path / name).write_text("precious")
    arguments = ["segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(), "--stac", "--qml"]
    outcome = run(*arguments)
    assert outcome.code == 1
    assert f"{name}: exists; use --overwrite to replace it" in outcome.err
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["scene.tif", name])
    assert run(*arguments, "--overwrite").code == 0
    assert (tmp_path / name).read_text() != "precious"


def test_without_the_options_nothing_more_is_written(scene, tmp_path, model_file, run):
    assert run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file()).code == 0
    assert not list(tmp_path.glob("*.qml"))
    assert not list(tmp_path.glob("*.json"))
