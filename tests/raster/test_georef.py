"""Pixel sizes are true metres, whatever the CRS."""

import math

import pytest
from affine import Affine
from rasterio.crs import CRS

from glraster.errors import SceneError
from glraster.raster.georef import bounds_window, gsd_m, pixel_area_m2, raster_bounds
from glraster.raster.grid import Window

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_500_000)


def test_utm_pixels_have_the_scale_of_the_projection() -> None:
    # on the central meridian a UTM metre is 1 / 0.9996 true metres
    assert gsd_m(UTM, NORTH_UP, 10, 10) == pytest.approx((0.5 / 0.9996, 0.5 / 0.9996), rel=1e-5)


def test_web_mercator_metres_shrink_with_latitude() -> None:
    x, y = 0.0, 8_399_737.89  # 60 degrees north
    down, right = gsd_m(CRS.from_epsg(3857), Affine(1, 0, x, 0, -1, y), 2, 2)  # type: ignore[misc]
    assert right == pytest.approx(math.cos(math.radians(60)), rel=5e-3)
    assert down == pytest.approx(0.5, rel=5e-3)


def test_degrees_become_metres_per_axis() -> None:
    down, right = gsd_m(CRS.from_epsg(4326), Affine(1e-5, 0, 10, 0, -1e-5, 45), 2, 2)  # type: ignore[misc]
    # a degree at 45 degrees north on WGS 84: 111 131.8 m along the meridian, 78 846.8 m along the parallel
    assert down == pytest.approx(1.111318, rel=1e-4)
    assert right == pytest.approx(0.788468, rel=1e-4)


def test_rotation_does_not_change_the_pixel_size() -> None:
    turned = NORTH_UP @ Affine.rotation(30)
    assert gsd_m(UTM, turned, 10, 10) == pytest.approx((0.5, 0.5), rel=1e-3)
    assert pixel_area_m2(UTM, turned, 5, 5) == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("crs", [None, CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')])
def test_without_a_place_on_earth_there_are_no_metres(crs: CRS | None) -> None:
    assert gsd_m(crs, NORTH_UP, 10, 10) is None
    assert pixel_area_m2(crs, NORTH_UP, 5, 5) is None


@pytest.mark.parametrize(
    "transform", [NORTH_UP, Affine(0.5, 0, 500_000, 0, 0.5, 5_500_000), NORTH_UP @ Affine.rotation(90)]
)
def test_the_bounds_of_a_raster_are_the_whole_raster(transform: Affine) -> None:
    assert bounds_window(raster_bounds(transform, 40, 70), transform, 40, 70) == Window(0, 0, 40, 70)


def test_bounds_take_every_pixel_they_touch() -> None:
    bounds = (500_001.2, 5_499_990.1, 500_002.6, 5_499_998.9)
    assert bounds_window(bounds, NORTH_UP, 100, 100) == Window(2, 2, 18, 4)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((0, 0, 1, 1), "outside the scene, which covers"),
        ((500_001, 5_499_999, 500_001, 5_500_000), "are empty"),
        ((500_002, 5_499_990, 500_001, 5_499_995), "are empty"),
        ((math.nan, 5_499_990, 500_001, 5_499_995), "are empty"),
    ],
)
def test_useless_bounds_are_refused(bounds: tuple[float, float, float, float], text: str) -> None:
    with pytest.raises(SceneError, match=text):
        bounds_window(bounds, NORTH_UP, 100, 100)
