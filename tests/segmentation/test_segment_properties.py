"""What holds for every map: crops agree with the whole, nothing betrays a window or a tile, sums are right."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import CLASSES
from rasters import hole, landscape, read, write_raster

H, W = 330, 290
IDS = np.array([c[0] for c in CLASSES])
CROPS = [
    (500_000.0, 5_299_900.0, 500_050.0, 5_300_000.0),
    (500_031.3, 5_299_871.7, 500_099.9, 5_299_960.2),
    (500_100.7, 5_299_835.0, 500_145.0, 5_299_836.1),
    (499_000.0, 5_299_000.0, 500_005.0, 5_299_840.0),
]


@pytest.fixture(scope="module", params=[None, 0.9, 0.3], ids=["own pixels", "coarser", "finer"])
def whole(request, tmp_path_factory, model_file):
    """A scene, a model, and the map of all of it with confidence and probabilities."""
    from glraster.segmentation.segment import SegmentOptions, segment

    folder = tmp_path_factory.mktemp("whole")
    scene = write_raster(folder / "scene.tif", landscape(H, W), mask=hole(H, W))
    model = model_file("local", gsd_m=request.param)
    outputs = {name: folder / f"{name}.tif" for name in ("confidence", "probabilities")}
    segment(scene, folder / "mask.tif", model, SegmentOptions(**outputs))
    return scene, model, {"mask": folder / "mask.tif", **outputs}


@pytest.mark.parametrize("bounds", CROPS, ids=["corner", "inside", "a sliver", "beyond the rim"])
def test_crop_equals_the_whole_map_there(bounds, whole, tmp_path, run):
    scene, model, whole_outputs = whole
    outputs = {name: tmp_path / path.name for name, path in whole_outputs.items()}
    extra = ("--confidence", outputs["confidence"], "--probabilities", outputs["probabilities"])
    outcome = run("segment", scene, "-o", outputs["mask"], "-m", model, "--bounds", *bounds, *extra)
    assert outcome.code == 0, outcome.err
    with rasterio.open(outputs["mask"]) as crop, rasterio.open(scene) as source:
        column, row = ~source.transform @ (crop.transform.c, crop.transform.f)
    for name, path in outputs.items():
        found = read(path)
        top, left = round(row), round(column)
        expected = read(whole_outputs[name])[:, top : top + found.shape[1], left : left + found.shape[2]]
        assert np.array_equal(found, expected), name


def test_confidence_is_the_highest_of_probabilities_that_sum_to_one(whole):
    _, _, outputs = whole
    mask, confidence, probabilities = (read(outputs[n]) for n in ("mask", "confidence", "probabilities"))
    valid = hole(H, W)
    assert np.array_equal(mask[0] != 255, valid)
    assert np.array_equal(confidence[0] != 255, valid)
    assert (probabilities == 255).all(axis=0)[~valid].all()
    shares = probabilities[:, valid].astype(int)
    assert (shares.min() >= 0, shares.max() <= 100) == (True, True)
    assert np.abs(shares.sum(axis=0) - 100).max() <= 1.5
    assert np.array_equal(confidence[0, valid], shares.max(axis=0))
    chosen = np.argmax(IDS[:, None] == mask[0, valid], axis=0)
    assert np.array_equal(shares[chosen, np.arange(shares.shape[1])], shares.max(axis=0))


def test_bands_of_the_probabilities_are_named(whole):
    with rasterio.open(whole[2]["probabilities"]) as probabilities:
        assert probabilities.descriptions == tuple(f"{name} in per cent" for _, name, _ in CLASSES)


@pytest.mark.parametrize(
    "arguments", [(), ("--gsd", "0.8"), ("--tta",), ("--branch", "global"), ("--precision", "bfloat16")]
)
def test_uniform_scene_gives_a_map_without_seams(arguments, tmp_path, pointwise_model, run):
    scene = write_raster(tmp_path / "scene.tif", np.full((3, H, W), 120, "uint8"))
    probabilities = tmp_path / "probabilities.tif"
    outputs = ("-o", tmp_path / "mask.tif", "--probabilities", probabilities)
    outcome = run("segment", scene, "-m", pointwise_model, *outputs, *arguments)
    assert outcome.code == 0, outcome.err
    assert np.unique(read(tmp_path / "mask.tif")).tolist() == [CLASSES[1][0]]
    assert all(len(np.unique(band)) == 1 for band in read(probabilities))


@pytest.mark.parametrize("tta", [(), ("--tta",)], ids=["one view", "eight views"])
def test_steps_stay_where_they_are_in_every_window(tta, tmp_path, pointwise_model, run):
    rows, columns = np.mgrid[:H, :W]
    bright = (rows // 40 % 2 == 1) ^ (columns // 60 % 2 == 1)
    scene = write_raster(tmp_path / "scene.tif", np.stack([bright * np.uint8(255)] * 3))
    run("segment", scene, "-o", tmp_path / "mask.tif", "-m", pointwise_model, *tta)
    found = read(tmp_path / "mask.tif")[0] == CLASSES[1][0]
    near_a_step = (np.minimum(rows % 40, 39 - rows % 40) < 2) | (np.minimum(columns % 60, 59 - columns % 60) < 2)
    assert np.array_equal(found[~near_a_step], bright[~near_a_step])


@pytest.mark.parametrize("flip", [(0, 1), (1, 0)], ids=["columns", "rows"])
def test_test_time_augmentation_commutes_with_mirrors(flip, tmp_path, model_file, run):
    side = 128
    pixels = landscape(side, side)
    mirrored = np.flip(pixels, axis=1 + int(flip[0] == 0))
    maps = []
    for name, image in (("plain", pixels), ("mirrored", mirrored)):
        scene = write_raster(tmp_path / f"{name}.tif", np.ascontiguousarray(image))
        run("segment", scene, "-o", tmp_path / f"{name}-mask.tif", "-m", model_file("full"), "--tta")
        maps.append(read(tmp_path / f"{name}-mask.tif")[0])
    assert np.mean(maps[0] == np.flip(maps[1], axis=int(flip[0] == 0))) > 0.995


def test_every_branch_of_a_full_model_gives_its_own_map(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", landscape(150, 140))
    maps = {}
    for branch in ("global", "local", "full", None):
        chosen = ("--branch", branch) if branch else ()
        outcome = run("segment", scene, "-o", tmp_path / f"{branch}.tif", "-m", model_file("full"), *chosen)
        assert outcome.code == 0, outcome.err
        maps[branch] = read(tmp_path / f"{branch}.tif").tobytes()
    assert maps[None] == maps["full"]
    assert len(set(maps.values())) == 3


def test_paper_merge_maps_a_scene_of_one_context(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", landscape(150, 141), mask=hole(150, 141))
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file("full"), "--merge", "paper")
    assert outcome.code == 0, outcome.err
    assert np.array_equal(read(tmp_path / "mask.tif")[0] != 255, hole(150, 141))


def areas(scene, tmp_path, model, run) -> dict:
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_pixels_of_classes_and_nodata_sum_to_the_scene(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W), mask=hole(H, W))
    result = areas(scene, tmp_path, model_file("global"), run)
    mask = read(tmp_path / "mask.tif")
    assert {c["id"]: c["pixels"] for c in result["classes"]} == {int(i): int((mask == i).sum()) for i in IDS}
    assert result["nodata_pixels"] == int((~hole(H, W)).sum())
    # UTM metres are true ones but for the scale on the central meridian, 0.9996
    expected = hole(H, W).sum() * 0.25 / 0.9996**2
    assert sum(c["area_m2"] for c in result["classes"]) == pytest.approx(expected, rel=1e-5)


def test_areas_of_a_geographic_scene_are_geodesic(tmp_path, model_file, run):
    north, west, step = 61.0, 14.0, 1e-3
    transform = Affine(step, 0, west, 0, -step, north)
    scene = write_raster(tmp_path / "scene.tif", landscape(700, 300), crs="EPSG:4326", transform=transform)
    result = areas(scene, tmp_path, model_file("global"), run)
    assert sum(c["area_m2"] for c in result["classes"]) == pytest.approx(zone_m2(north - 0.7, north, 0.3), rel=2e-5)


def zone_m2(south: float, north: float, width: float) -> float:
    """Area between two parallels and two meridians of the WGS 84 ellipsoid, all in degrees (Snyder 1987, eq. 3-12)."""
    a, e = 6_378_137.0, math.sqrt(1 / 298.257223563 * (2 - 1 / 298.257223563))

    def up_to(latitude: float) -> float:
        s = math.sin(math.radians(latitude))
        return (1 - e * e) * (s / (1 - (e * s) ** 2) - math.log((1 - e * s) / (1 + e * s)) / (2 * e))

    return a * a * math.radians(width) * (up_to(north) - up_to(south)) / 2


def test_areas_are_unknown_without_a_crs(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", landscape(60, 60), crs=None, transform=None)
    result = areas(scene, tmp_path, model_file("global"), run)
    assert {c["area_m2"] for c in result["classes"]} == {None}
    assert sum(c["pixels"] for c in result["classes"]) == 3600
