"""`segment` writes polygons, a report and side-cars beside the mask, and refuses what exists before it begins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from glraster_cli.main import main
from rasters import write_raster


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (3, 192, 256), dtype=np.uint8)
    return write_raster(tmp_path / "scene.tif", noise, crs="EPSG:32640")


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_all_outputs_of_one_command(scene: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mask, page, polygons = tmp_path / "mask.tif", tmp_path / "page.html", tmp_path / "cover.gpkg"
    further = ("--report", page, "--vectorize", polygons, "--qml", "--stac", "--json", "-q")
    assert run("segment", scene, "-o", mask, *further) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["report"] == str(page)
    assert result["vectorized"]["polygons"] > 0
    html = page.read_text()
    assert "mask.tif" in html
    assert "Pixels by confidence" in html
    left = {path.name for path in tmp_path.iterdir()}
    expected = {"scene.tif", "mask.tif", "mask.tif.aux.xml", "page.html", "cover.gpkg", "mask.qml", "mask.stac.json"}
    assert left == expected


@pytest.mark.parametrize("option", ["--report", "--vectorize"])
def test_an_output_that_exists_is_refused_before_the_work(
    scene: Path, tmp_path: Path, option: str, capfd: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / ("page.html" if option == "--report" else "cover.gpkg")
    there.write_text("mine")
    assert run("segment", scene, "-o", tmp_path / "mask.tif", option, there, "-q") == 1
    assert "exists" in capfd.readouterr().err
    assert there.read_text() == "mine"
    assert not (tmp_path / "mask.tif").exists()
