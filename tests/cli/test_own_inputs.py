"""No command replaces what it reads, whatever name it is given, and --overwrite does not change that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from maps import patches, write_map, write_shapes, write_truth
from rasters import landscape, write_raster, write_vrt
from training.scenes import write_catalog

Call = Callable[..., None]


def digests(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def refused(tmp_path: Path, run: Callable[..., Any]) -> Call:
    """A call with --overwrite that must end with status 2 and one line, and leave every file as it was."""

    def call(*arguments: object, text: str = "is an input; choose another output") -> None:
        before = digests(tmp_path)
        outcome = run(*arguments, "--overwrite")
        assert (outcome.code, outcome.out) == (2, ""), outcome.err
        line = outcome.err.splitlines()[-1]
        assert line.startswith("glraster: error: ")
        assert text in line
        assert digests(tmp_path) == before

    return call


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", landscape(60, 60))


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return write_map(tmp_path / "map.tif", patches(90, 120))


def test_preview(tmp_path: Path, refused: Call, run: Callable[..., Any]) -> None:
    write_raster(tmp_path / "m.png", patches(50, 60)[None], driver="PNG", crs=None, transform=None)
    (tmp_path / "linked").symlink_to(tmp_path)
    (tmp_path / "hard.png").hardlink_to(tmp_path / "m.png")
    write_vrt(tmp_path / "m.vrt", [("m.png", 1, "Byte")], 50, 60, relative=True)
    for output in ("m.png", "linked/m.png", "hard.png"):
        refused("preview", tmp_path / "m.png", "-o", tmp_path / output)
    refused("preview", tmp_path / "m.vrt", "-o", tmp_path / "m.png")
    assert run("preview", tmp_path / "m.png", "-o", tmp_path / "new.png").code == 0


def test_model_describe_and_export(tmp_path: Path, model_file: Callable[..., Path], refused: Call) -> None:
    (tmp_path / "model.safetensors").write_bytes(model_file().read_bytes())
    (tmp_path / "link").symlink_to("model.safetensors")
    for verb in ("describe", "export"):
        for output in ("model.safetensors", "link"):
            refused("model", verb, tmp_path / "model.safetensors", "-o", tmp_path / output)


@pytest.mark.parametrize("slot", ["--global", "--global-to-local", "--local-to-global"])
def test_model_import(slot: str, tmp_path: Path, refused: Call) -> None:
    (tmp_path / "branch.pth").write_text("checkpoint")
    refused("model", "import", slot, tmp_path / "branch.pth", "-o", tmp_path / "branch.pth")


def test_evaluate(tmp_path: Path, mask: Path, refused: Call) -> None:
    truth = write_truth(tmp_path / "truth.tif", patches(90, 120))
    polygons = write_shapes(tmp_path / "truth.gpkg", [shapely.box(500_000, 5_299_960, 500_060, 5_300_000)], ["water"])
    shapes = write_shapes(tmp_path / "truth.shp", [shapely.box(500_000, 5_299_960, 500_060, 5_300_000)], ["water"])
    for output in (truth, mask):
        refused("evaluate", mask, truth, "--json", output)
    refused("evaluate", mask, polygons, "--json", polygons)
    refused("evaluate", mask, shapes, "--json", shapes.with_suffix(".dbf"))


def test_evaluate_of_a_catalog(tmp_path: Path, model_file: Callable[..., Path], refused: Call) -> None:
    catalog = write_catalog(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(model_file().read_bytes())
    for name in ("catalog.yaml", "image0.tif", "label2.tif", "model.safetensors"):
        refused("evaluate", catalog, "-m", tmp_path / "model.safetensors", "--json", tmp_path / name)


def test_report(tmp_path: Path, mask: Path, scene: Path, refused: Call) -> None:
    truth = write_truth(tmp_path / "truth.tif", patches(90, 120))
    write_vrt(tmp_path / "scene.vrt", [("scene.tif", b, "Byte") for b in (1, 2, 3)], 60, 60, relative=True)
    for output in (mask, truth, scene):
        refused("report", mask, "--scene", tmp_path / "scene.vrt", "--truth", truth, "-o", output)


def test_report_of_a_training(tmp_path: Path, refused: Call) -> None:
    for name in ("settings.json", "metrics.jsonl", "model.safetensors", "last.pt"):
        (tmp_path / name).write_text("{}")
        refused("report", tmp_path, "-o", tmp_path / name)


def test_vectorize(tmp_path: Path, mask: Path, refused: Call) -> None:
    confidence = write_raster(tmp_path / "confidence.gpkg", np.full((1, 90, 120), 70, np.uint8), driver="GPKG")
    catalog = tmp_path / "catalog.geojson"
    catalog.write_text("{}")
    refused("vectorize", mask, "-o", confidence, "--confidence", confidence)
    refused("vectorize", mask, "-o", catalog, "--catalog", catalog)


def test_segment(tmp_path: Path, scene: Path, model_file: Callable[..., Path], refused: Call) -> None:
    package = write_raster(tmp_path / "scene.gpkg", landscape(60, 60), driver="GPKG")
    write_vrt(tmp_path / "scene.vrt", [("scene.gpkg", b, "Byte") for b in (1, 2, 3)], 60, 60, relative=True)
    model, mask = tmp_path / "model.safetensors", tmp_path / "mask.tif"
    model.write_bytes(model_file().read_bytes())
    for source in (package, tmp_path / "scene.vrt"):
        refused("segment", source, "-m", model, "-o", mask, "--vectorize", package)
        refused("segment", source, "-m", model, "-o", package)
    for option in ("--report", "--confidence", "--probabilities"):
        refused("segment", scene, "-m", model, "-o", mask, option, scene)
        refused("segment", scene, "-m", model, "-o", mask, option, model)


@pytest.mark.parametrize(
    "outputs",
    [
        ("--confidence", "x.tif", "--probabilities", "x.tif"),
        ("--confidence", "mask.tif.aux.xml"),
        ("--confidence", "mask.qml", "--qml"),
        ("--report", "mask.stac.json", "--stac"),
        ("--vectorize", "x.gpkg", "--report", "x.gpkg"),
        ("--report", "mask.tif"),
    ],
    ids=" ".join,
)
def test_outputs_of_one_segmentation(
    outputs: tuple[str, ...], tmp_path: Path, scene: Path, model_file: Callable[..., Path], refused: Call
) -> None:
    arguments = [tmp_path / part if "." in part else part for part in outputs]
    text = "two outputs have the same name; give each its own"
    refused("segment", scene, "-m", model_file(), "-o", tmp_path / "mask.tif", *arguments, text=text)


def test_a_mask_of_one_scene_is_not_the_source_of_another(
    tmp_path: Path, scene: Path, model_file: Callable[..., Path], run: Callable[..., Any]
) -> None:
    (tmp_path / "other").mkdir()
    write_raster(tmp_path / "other" / "scene.tif", landscape(60, 60, seed=3))
    write_vrt(tmp_path / "mosaic.vrt", [("scene.tif", b, "Byte") for b in (1, 2, 3)], 60, 60, relative=True)
    before = scene.read_bytes()
    scenes = [tmp_path / "other" / "scene.tif", tmp_path / "mosaic.vrt"]
    outcome = run("segment", *scenes, "-m", model_file(), "-o", tmp_path, "--overwrite")
    assert outcome.code == 1
    assert "scene.tif: is an input; choose another output" in outcome.err
    assert scene.read_bytes() == before
    assert (tmp_path / "mosaic.tif").exists()


def test_catalog(tmp_path: Path, refused: Call) -> None:
    for number in range(3):
        write_raster(tmp_path / f"image{number}.tif", landscape(40, 40, seed=number))
        write_map(tmp_path / f"label{number}.tif", patches(40, 40))
    globs = ("--images", "image*.tif", "--labels", "label*.tif")
    refused("catalog", "folder", tmp_path, *globs, "-o", tmp_path / "label1.tif")


def test_a_training_does_not_replace_the_files_it_starts_from(
    tmp_path: Path, model_file: Callable[..., Path], run: Callable[..., Any]
) -> None:
    catalog, folder = write_catalog(tmp_path), tmp_path / "run"
    folder.mkdir()
    for name in ("model_joint.safetensors", "best.pt", "report.html"):
        (folder / name).write_bytes(model_file().read_bytes())
        before = digests(tmp_path)
        outcome = run("train", catalog, "-o", folder, "--set", "tile_px=64", "-q")
        assert outcome.code == 1
        assert f"holds {name}, but no training; choose another folder" in outcome.err
        assert digests(tmp_path) == before
        (folder / name).unlink()


def test_remote_inputs_are_in_nobodys_way(
    tmp_path: Path, mask: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not asked for, and fail as they did."""
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    (tmp_path / "out.json").write_text("{}")
    for remote in ("/vsicurl/http://127.0.0.1:9/truth.tif", "http://127.0.0.1:9/truth.gpkg"):
        outcome = run("evaluate", mask, remote, "--json", tmp_path / "out.json", "--overwrite")
        assert outcome.code == 1
        assert "127.0.0.1:9" in outcome.err
    assert json.loads((tmp_path / "out.json").read_text()) == {}
