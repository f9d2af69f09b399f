"""A real orthophoto with white holes and no nodata tag; needs the imagery beside the checkout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

import glraster

SCENE = Path(__file__).parents[3] / "shared" / "data" / "banepa" / "banepa_full_rgb.tif"
CORNER = Window(10_000, 900, 1264, 1000)
"""Columns and rows with a part of the hole at the scene's right edge."""

pytestmark = pytest.mark.skipif(not SCENE.exists(), reason="needs ../shared")


def test_a_corner_with_a_hole_is_mapped_on_the_scenes_grid(model_file: Callable[..., Path], tmp_path: Path) -> None:
    with rasterio.open(SCENE) as scene:
        bounds, transform = scene.window_bounds(CORNER), scene.window_transform(CORNER)
        white = (scene.read(window=CORNER) == 255).all(axis=0)
    model = model_file("full", context_px=512, tile_px=256, thumbnail_px=128, gsd_m=0.5)
    result = glraster.segment(SCENE, tmp_path / "mask.tif", model=model, nodata=255, bounds=bounds)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert (mask.crs.to_epsg(), mask.shape) == (3857, (1000, 1264))
        assert mask.transform.almost_equals(transform)
        np.testing.assert_array_equal(mask.read(1) == 255, white)
    assert white.mean() > 0.1
    assert cog_validate(tmp_path / "mask.tif")[0]
    known_m2 = sum(c.area_m2 or 0 for c in result.classes)
    # a pixel of 0.1493 map metres at 27.63 degrees north is 0.1323 m wide
    assert known_m2 == pytest.approx((~white).sum() * 0.1323**2, rel=0.01)
