"""Scenes of every container, dtype and kind of mask become maps on their own grid."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from conftest import CLASSES
from rasters import assert_is_map, hole, landscape, read, write_raster, write_vrt

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # they would reach the user's terminal

H, W = 90, 150
IDS = [c[0] for c in CLASSES]


@dataclass(frozen=True)
class Case:
    """A scene, which of its pixels are valid (None: all), and how the command line must be called for it."""

    scene: Path
    valid: npt.NDArray[np.bool_] | None = None
    arguments: tuple[str, ...] = ()
    bands: int = 3


CASES: dict[str, Callable[[Path], Case]] = {}


def case(make: Callable[[Path], Case]) -> Callable[[Path], Case]:
    CASES[make.__name__] = make
    return make


def with_zeros() -> npt.NDArray[np.generic]:
    pixels = landscape(H, W) + np.uint8(1)
    pixels[:, ~hole(H, W)] = 0
    return pixels


@case
def nodata_tag(folder: Path) -> Case:
    return Case(write_raster(folder / "scene.tif", with_zeros(), nodata=0), hole(H, W))


@case
def nodata_option(folder: Path) -> Case:
    return Case(write_raster(folder / "scene.tif", with_zeros()), hole(H, W), ("--nodata", "0"))


@case
def nodata_option_over_tag(folder: Path) -> Case:
    pixels = with_zeros()
    pixels[:, 0, 0] = 77
    scene = write_raster(folder / "scene.tif", pixels, nodata=77)
    valid = hole(H, W)
    valid[0, 0] = True
    return Case(scene, valid, ("--nodata", "0"))


@case
def nodata_in_one_band_only_is_valid(folder: Path) -> Case:
    pixels = landscape(H, W) + np.uint8(1)
    pixels[1, :40] = 0
    return Case(write_raster(folder / "scene.tif", pixels, nodata=0))


@case
def alpha_band(folder: Path) -> Case:
    pixels = np.concatenate([landscape(H, W), hole(H, W)[None] * np.uint8(255)])
    return Case(write_raster(folder / "scene.tif", pixels, photometric="RGB", alpha="YES"), hole(H, W))


@case
def internal_mask(folder: Path) -> Case:
    return Case(write_raster(folder / "scene.tif", landscape(H, W), mask=hole(H, W)), hole(H, W))


@case
def mask_sidecar(folder: Path) -> Case:
    scene = write_raster(folder / "scene.tif", landscape(H, W), mask=hole(H, W), sidecar=True)
    assert (folder / "scene.tif.msk").exists()
    return Case(scene, hole(H, W))


@case
def not_a_number(folder: Path) -> Case:
    pixels, valid = landscape(H, W, 3, "float32"), hole(H, W)
    pixels[1, ~valid] = np.nan
    pixels[0, 5, 140] = np.inf
    valid[5, 140] = False
    return Case(write_raster(folder / "scene.tif", pixels), valid)


@case
def not_a_number_as_nodata(folder: Path) -> Case:
    pixels = landscape(H, W, 3, "float32")
    pixels[:, ~hole(H, W)] = np.nan
    return Case(write_raster(folder / "scene.tif", pixels, nodata=np.nan), hole(H, W))


@case
def huge_float_as_nodata(folder: Path) -> Case:
    pixels = landscape(H, W, 3, "float32")
    pixels[:, ~hole(H, W)] = -3.4028235e38
    return Case(write_raster(folder / "scene.tif", pixels, nodata=-3.4028235e38), hole(H, W))


@case
def all_nodata(folder: Path) -> Case:
    return Case(write_raster(folder / "scene.tif", np.full((3, H, W), 9, "uint8"), nodata=9), np.zeros((H, W), bool))


@case
def all_not_a_number(folder: Path) -> Case:
    return Case(write_raster(folder / "scene.tif", np.full((3, H, W), np.nan, "float32")), np.zeros((H, W), bool))


@case
def sixteen_bits(folder: Path) -> Case:
    return Case(write_raster(folder / "scene.tif", landscape(H, W, 3, "uint16")))


@case
def sixteen_bits_with_scale(folder: Path) -> Case:
    return Case(write_raster(folder / "scene.tif", landscape(H, W, 3, "uint16")), None, ("--scale", "0", "4095"))


@case
def negative_values_and_nodata(folder: Path) -> Case:
    pixels = landscape(H, W, 3, "int16")
    pixels[:, ~hole(H, W)] = -32768
    return Case(write_raster(folder / "scene.tif", pixels, nodata=-32768), hole(H, W))


@case
def one_band(folder: Path) -> Case:
    return Case(write_raster(folder / "scene.tif", landscape(H, W, 1)), bands=1)


@case
def near_infrared_without_alpha(folder: Path) -> Case:
    pixels = landscape(H, W, 4)
    return Case(write_raster(folder / "scene.tif", pixels, photometric="RGB", alpha="UNSPECIFIED"), bands=4)


@case
def twelve_bands(folder: Path) -> Case:
    return Case(write_raster(folder / "scene.tif", landscape(H, W, 12)), None, ("--bidx", "12,3,7"))


@case
def strips_of_one_row(folder: Path) -> Case:
    return Case(write_raster(folder / "scene.tif", landscape(H, W), tiled=False, blockysize=1))


@case
def one_strip(folder: Path) -> Case:
    return Case(write_raster(folder / "scene.tif", landscape(H, W), tiled=False, blockysize=H))


@case
def tiles_and_overviews(folder: Path) -> Case:
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 32, "interleave": "band"}
    return Case(write_raster(folder / "scene.tif", landscape(H, W), overviews=[2, 4], **layout))


@case
def jpeg_in_tiff(folder: Path) -> Case:
    return Case(write_raster(folder / "scene.tif", landscape(H, W), compress="JPEG", photometric="YCBCR"))


@case
def big_tiff(folder: Path) -> Case:
    return Case(write_raster(folder / "scene.tif", landscape(H, W), bigtiff="YES", compress="DEFLATE", predictor=2))


@case
def spaces_and_letters_in_names(folder: Path) -> Case:
    (folder / "Übersicht 2024 (neu)").mkdir()
    return Case(write_raster(folder / "Übersicht 2024 (neu)" / "сцена №1 & 東京.tif", landscape(H, W)))


@case
def vrt_with_relative_sources(folder: Path) -> Case:
    (folder / "bands").mkdir()
    write_raster(folder / "bands" / "all.tif", landscape(H, W))
    sources = [("bands/all.tif", band, "Byte") for band in (3, 1, 2)]
    return Case(write_vrt(folder / "scene.vrt", sources, H, W, relative=True))


@case
def vrt_with_absolute_sources(folder: Path) -> Case:
    source = write_raster(folder / "all.tif", landscape(H, W))
    return Case(write_vrt(folder / "scene.vrt", [(str(source), b, "Byte") for b in (1, 2, 3)], H, W, relative=False))


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_scene_becomes_a_map_on_its_own_grid(make, tmp_path, model_file, run):
    found = make(tmp_path)
    mask = found.scene.with_name("mask.tif")
    outcome = run("segment", found.scene, "-o", mask, "-m", model_file(bands=found.bands), *found.arguments)
    assert outcome.code == 0, outcome.err
    valid = np.ones((H, W), bool) if found.valid is None else found.valid
    assert_is_map(mask, found.scene, valid, IDS)
    assert not found.scene.with_name("mask.tif.parts").exists()
    if valid.any():
        assert len(np.unique(read(mask)[0][valid])) > 1, "the map of a varied scene has one class only"


def test_scene_may_have_a_relative_path(tmp_path, monkeypatch, model_file, run):
    write_raster(tmp_path / "scene.tif", landscape(H, W))
    monkeypatch.chdir(tmp_path)
    outcome = run("segment", "scene.tif", "-o", "mask.tif", "-m", os.path.relpath(model_file()))
    assert outcome.code == 0, outcome.err
    assert_is_map(tmp_path / "mask.tif", tmp_path / "scene.tif", np.ones((H, W), bool), IDS)


def test_vrt_with_relative_sources_works_from_another_folder(tmp_path, monkeypatch, model_file, run):
    vrt = vrt_with_relative_sources(tmp_path).scene
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    outcome = run("segment", "../scene.vrt", "-o", "mask.tif", "-m", model_file(), "--nodata", "255")
    assert outcome.code == 0, outcome.err
    assert_is_map(tmp_path / "elsewhere" / "mask.tif", vrt, np.ones((H, W), bool), IDS)


def test_chosen_bands_are_read_in_the_order_given(tmp_path, model_file, run):
    pixels = landscape(H, W, 12)
    twelve = write_raster(tmp_path / "twelve.tif", pixels)
    three = write_raster(tmp_path / "three.tif", pixels[[11, 2, 6]])
    masks = [tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "c.tif"]
    run("segment", twelve, "-o", masks[0], "-m", model_file(), "-b", "12", "-b", "3", "-b", "7")
    run("segment", three, "-o", masks[1], "-m", model_file())
    run("segment", twelve, "-o", masks[2], "-m", model_file(), "-b", "3,12,7")
    assert np.array_equal(read(masks[0]), read(masks[1]))
    assert not np.array_equal(read(masks[0]), read(masks[2]))


def test_scale_brings_sixteen_bits_to_what_eight_bits_give(tmp_path, model_file, run):
    eight = landscape(H, W)
    plain = write_raster(tmp_path / "eight.tif", eight)
    deep = write_raster(tmp_path / "sixteen.tif", eight.astype("uint16") * 10 + 300)
    run("segment", plain, "-o", tmp_path / "a.tif", "-m", model_file(), "--scale", "0", "255")
    run("segment", deep, "-o", tmp_path / "b.tif", "-m", model_file(), "--scale", "300", "2850")
    assert np.mean(read(tmp_path / "a.tif") == read(tmp_path / "b.tif")) > 0.999


def test_dtype_other_than_the_models_is_stretched_with_a_warning(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W, 3, "uint16"))
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert [line for line in outcome.err.splitlines() if "is uint16, the model was trained on uint8" in line]
    quiet = run("segment", scene, "-o", tmp_path / "other.tif", "-m", model_file(dtype="uint16"))
    assert (quiet.code, quiet.err) == (0, "")


def test_class_names_and_provenance_travel_with_the_map(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W))
    run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    sidecar = (tmp_path / "mask.tif.aux.xml").read_text(encoding="utf-8")
    assert "<Category>building &amp; roof</Category>" in sidecar
    with rasterio.open(tmp_path / "mask.tif") as mask:
        tags = mask.tags()
        assert {i: mask.colormap(1)[i][:3] for i in IDS} == {c[0]: c[2] for c in CLASSES}
    assert '"building & roof"' in tags["GLRASTER_CLASSES"]
    assert {"GLRASTER_MODEL", "GLRASTER_VERSION"} <= set(tags)


def test_small_part_of_a_sparse_scene_of_ten_gigapixels(tmp_path, model_file, run):
    scene, side = tmp_path / "scene.tif", 100_000
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "bigtiff": "YES", "sparse_ok": True, "nodata": 0}
    with rasterio.open(scene, "w", transform=rasterio.Affine(1, 0, 0, 0, -1, side), **profile, **layout) as dataset:
        dataset.write(landscape(64, 64) + np.uint8(1), window=rasterio.windows.Window(70_000, 30_000, 64, 64))
    bounds = ("--bounds", "69990", "69930", "70090", "70010")
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(), *bounds)
    assert outcome.code == 0, outcome.err
    valid = np.zeros((80, 100), bool)
    valid[10:74, 10:74] = True
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert mask.transform == rasterio.Affine(1, 0, 69_990, 0, -1, 70_010)
        assert np.array_equal(mask.read(1) != 255, valid)
