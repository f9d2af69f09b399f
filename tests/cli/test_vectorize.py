"""What `glraster vectorize` prints, and where."""

from __future__ import annotations

import json

import pytest
from rasters import landscape, write_raster
from vector.masks import blobs, gdal_polygons


@pytest.fixture
def mask(tmp_path):
    return write_raster(tmp_path / "mask.tif", blobs(60, 80, seed=1)[None], nodata=0)


def test_text_tells_polygons_and_areas_by_class(mask, tmp_path, run):
    outcome = run("vectorize", mask, "-o", tmp_path / "out.gpkg")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"{len(gdal_polygons(blobs(60, 80, seed=1)))} polygons of a mask of 80 x 60 px" in outcome.out
    assert " ha" in outcome.out


def test_json_is_all_that_stands_on_stdout(mask, tmp_path, run):
    outcome = run("vectorize", mask, "-o", tmp_path / "out.gpkg", "--json")
    result = json.loads(outcome.out)
    assert (outcome.err, result["layer"], result["height"], result["width"]) == ("", "out", 60, 80)
    assert result["polygons"] == sum(c["polygons"] for c in result["classes"])


def test_lines_of_geojson_go_to_stdout_and_the_report_to_stderr(mask, run):
    outcome = run("vectorize", mask, "-o", "-", "--classes", "1,2")
    features = [json.loads(line) for line in outcome.out.splitlines()]
    assert {f["properties"]["class_id"] for f in features} == {1, 2}
    assert f"{len(features)} polygons" in outcome.err


def test_help_names_the_options_of_the_manual(run):
    text = run("vectorize", "--help").out
    names = "simplify min-area connectivity classes smooth dissolve dst-crs layer confidence bounds overwrite resume"
    assert [name for name in (names + " workers json catalog output").split() if f"--{name}" not in text] == []


def test_segment_writes_polygons_of_its_mask_too(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", landscape(150, 200))
    call = ["segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(), "--vectorize", tmp_path / "out.gpkg"]
    outcome = run(*call, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    result = json.loads(outcome.out)
    areas = {c["name"]: c["area_m2"] for c in result["classes"] if c["pixels"]}
    assert {c["name"]: c["area_m2"] for c in result["vectorized"]["classes"]} == pytest.approx(areas, rel=2e-3)
    assert (tmp_path / "out.gpkg").exists()


def test_segment_refuses_an_output_of_polygons_before_it_computes(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", landscape(150, 200))
    (tmp_path / "out.gpkg").write_text("mine")
    call = ["segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(), "--vectorize", tmp_path / "out.gpkg"]
    outcome = run(*call)
    assert outcome.code == 1
    assert "exists; use --overwrite" in outcome.err
    assert not (tmp_path / "mask.tif").exists()
