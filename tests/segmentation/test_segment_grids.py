"""Scenes of every size, orientation, CRS and ground sample distance become maps on their own grid."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import CLASSES
from rasterio.warp import transform as transform_points
from rasters import HALF_METRE, assert_is_map, hole, landscape, read, write_raster

from glraster.raster.grid import Window
from glraster.raster.reader import Scene

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

H, W = 90, 150
IDS = [c[0] for c in CLASSES]
ALL = np.ones((H, W), bool)
MERCATOR_60 = 8_399_737.9  # northing of latitude 60 in EPSG:3857, where a map metre is half a true one

GRIDS = {
    "geographic": {"crs": "EPSG:4326", "transform": Affine(1e-5, 0, 14.2, 0, -7e-6, 48.5)},
    "web mercator": {"crs": "EPSG:3857", "transform": Affine(0.6, 0, 1_600_000, 0, -0.6, MERCATOR_60)},
    "rotated": {"transform": Affine.translation(500_000, 5_300_000) @ Affine.rotation(33) @ Affine.scale(0.5, -0.4)},
    "south-up": {"transform": Affine(0.5, 0, 500_000, 0, 0.5, 5_300_000)},
    "mirrored": {"transform": Affine(-0.5, 0, 500_000, 0, -0.5, 5_300_000)},
    "oblong pixels": {"transform": Affine(0.5, 0, 500_000, 0, -0.31, 5_300_000)},
    "feet": {"crs": "EPSG:2229", "transform": Affine(1.5, 0, 6_480_000, 0, -1.5, 1_840_000)},
    "no transform": {"crs": None, "transform": Affine.identity()},
}


@pytest.mark.parametrize("gsd_m", [None, 0.5, 1.3], ids=lambda g: f"model {g} m")
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_map_lies_on_the_scenes_own_grid(grid, gsd_m, tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W), mask=hole(H, W), **grid)
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(gsd_m=gsd_m))
    assert outcome.code == 0, outcome.err
    assert_is_map(tmp_path / "mask.tif", scene, hole(H, W), IDS)


SIZES = [(1, 1), (5, 37), (37, 5), (1, 300), (301, 2), (4, 4), (96, 96), (128, 128), (192, 192), (193, 191), (255, 131)]


@pytest.mark.parametrize("gsd_m", [None, 0.2, 1.7], ids=lambda g: f"model {g} m")
@pytest.mark.parametrize(("height", "width"), SIZES, ids=lambda side: str(side))
def test_scene_of_any_size_is_mapped_whole(height, width, gsd_m, tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", landscape(height, width))
    model = model_file("global" if gsd_m else "local", gsd_m=gsd_m)
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model)
    assert outcome.code == 0, outcome.err
    assert_is_map(tmp_path / "mask.tif", scene, np.ones((height, width), bool), IDS)


def test_png_without_georeference_is_mapped_in_pixels_with_one_warning(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.png", landscape(H, W), driver="PNG", crs=None, transform=None)
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(gsd_m=0.5))
    assert outcome.code == 0, outcome.err
    assert_is_map(tmp_path / "mask.tif", scene, ALL, IDS)
    lines = outcome.err.splitlines()
    assert sum("has no georeference; its map will have pixel coordinates" in line for line in lines) == 1
    assert sum("the model wants 0.5 m" in line for line in lines) == 1
    assert all(line.startswith("glraster: warning: ") for line in lines)


def test_jpeg_with_a_world_file_keeps_its_place(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.jpg", landscape(H, W), driver="JPEG", crs=None, transform=None)
    (tmp_path / "scene.jpg.aux.xml").unlink(missing_ok=True)
    (tmp_path / "scene.jgw").write_text("0.5\n0\n0\n-0.5\n500000.25\n5299999.75\n")
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert (outcome.code, outcome.err) == (0, "")
    assert_is_map(tmp_path / "mask.tif", scene, ALL, IDS)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert mask.transform == HALF_METRE


def working_size(scene: Path, gsd_m: float) -> tuple[int, int]:
    with Scene(str(scene), None, 3) as opened:
        opened.resample_to(gsd_m)
        return opened.grid.rows.working, opened.grid.columns.working


def test_ground_sample_distance_is_in_true_metres_in_web_mercator(tmp_path):
    transform = Affine(2, 0, 1_600_000, 0, -2, MERCATOR_60 + H)
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W), crs="EPSG:3857", transform=transform)
    with Scene(str(scene), None, 3) as opened:
        assert opened.gsd_m == pytest.approx((1.0, 1.0), rel=0.01)
    assert working_size(scene, 1.0) == (H, W)
    assert working_size(scene, 2.0) == (pytest.approx(H / 2, rel=0.02), pytest.approx(W / 2, rel=0.02))


def test_ground_sample_distance_of_degrees_shrinks_with_latitude(tmp_path):
    transform = Affine(1e-5, 0, 14, 0, -1e-5, 60 + H * 5e-6)
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W), crs="EPSG:4326", transform=transform)
    with Scene(str(scene), None, 3) as opened:
        # one degree at latitude 60: 111.41 km along the meridian, 55.80 km along the parallel
        assert opened.gsd_m == pytest.approx((1.1141, 0.5580), rel=1e-3)
    assert working_size(scene, 0.5580) == (pytest.approx(2 * H, rel=0.01), W)


def test_ground_sample_distance_of_feet_is_in_metres(tmp_path):
    with Scene(str(write_raster(tmp_path / "s.tif", landscape(H, W), **GRIDS["feet"])), None, 3) as opened:
        assert opened.gsd_m == pytest.approx((0.4572, 0.4572), rel=1e-3)


def test_ground_sample_distance_is_finite_at_the_antimeridian(tmp_path):
    # longitude 180 lies inside the centre pixel of a scene of UTM zone 60
    (easting,), _ = transform_points("EPSG:4326", "EPSG:32660", [180.0], [0.0])
    transform = Affine(0.5, 0, easting - 0.25 - W / 4, 0, -0.5, 20.0)
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W), crs="EPSG:32660", transform=transform)
    with Scene(str(scene), None, 3) as opened:
        assert opened.gsd_m == pytest.approx((0.5, 0.5), rel=0.01)


@pytest.mark.parametrize(("gsd", "native"), [(0.5, True), (0.46, True), (0.54, True), (0.44, False), (0.56, False)])
def test_gsd_within_a_tenth_is_read_in_own_pixels(gsd, native, tmp_path):
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W))
    assert (working_size(scene, gsd) == (H, W)) == native


def test_gsd_native_reads_own_pixels_whatever_the_model_wants(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W))
    masks = {name: tmp_path / f"{name}.tif" for name in ("resampled", "native", "any")}
    run("segment", scene, "-o", masks["resampled"], "-m", model_file(gsd_m=1.3))
    run("segment", scene, "-o", masks["native"], "-m", model_file(gsd_m=1.3), "--gsd", "native")
    run("segment", scene, "-o", masks["any"], "-m", model_file())
    assert np.array_equal(read(masks["native"]), read(masks["any"]))
    assert not np.array_equal(read(masks["native"]), read(masks["resampled"]))


@pytest.mark.parametrize("gsd", ["0.25", "1", "2.3"])
def test_map_of_a_resampled_scene_is_not_shifted(gsd, tmp_path, pointwise_model, run):
    pixels = np.zeros((3, 240, 200), "uint8")
    pixels[:, 61:143, 37:] = 200
    scene = write_raster(tmp_path / "scene.tif", pixels)
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", pointwise_model, "--gsd", gsd)
    assert outcome.code == 0, outcome.err
    found = read(tmp_path / "mask.tif")[0] == CLASSES[1][0]
    cell_px = math.ceil(4 * float(gsd) / 0.5)
    wrong = np.argwhere(found != (pixels[0] > 0))
    edges = np.abs(wrong[:, :1] - [61, 143]).min(axis=1), np.abs(wrong[:, 1] - 37)
    assert np.minimum(*edges).max(initial=0) <= cell_px / 2 + 1
    assert abs(int(found.sum()) - 82 * 163) < 0.02 * 82 * 163 * cell_px / 4


def test_bounds_take_every_pixel_they_touch(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W))
    left, bottom, right, top = 500_010.2, 5_299_970.3, 500_040.1, 5_299_989.9
    run("segment", scene, "-o", tmp_path / "m.tif", "-m", model_file(), "--bounds", left, bottom, right, top)
    with rasterio.open(tmp_path / "m.tif") as mask, rasterio.open(scene) as source:
        window = Window(20, 20, 40, 61)
        assert mask.transform == source.transform @ Affine.translation(window.left, window.top)
        assert (mask.height, mask.width) == (window.height, window.width)
