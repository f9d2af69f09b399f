"""What of a scene is valid, and which files it is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasters import landscape, write_raster, write_vrt

from glraster.raster.grid import Window, working_grid
from glraster.raster.reader import Scene
from glraster.raster.source import gdal_session


def test_a_coarser_pixel_is_valid_where_any_of_its_pixels_is(tmp_path: Path) -> None:
    pixels = landscape(200, 240, 1)
    pixels[:, :, np.arange(240) % 4 != 3] = 255
    pixels[:, 100:, :] = 255
    scene_file = write_raster(tmp_path / "stripes.tif", pixels, nodata=255)
    with gdal_session(), Scene(str(scene_file), None, 1) as scene:
        scene.grid = working_grid(200, 240, (4.0, 4.0))
        image, valid = scene.read(Window(0, 0, 52, 60))
    assert valid[:25].all()
    assert not valid[25:].any()
    shown = pixels[0, :100, 3::4].reshape(25, 4, 60).mean(axis=1)
    np.testing.assert_allclose(image[0, :25], shown, atol=1)


@pytest.mark.parametrize("sidecar", [False, True])
def test_a_given_nodata_replaces_a_mask(tmp_path: Path, sidecar: bool) -> None:
    pixels = landscape(64, 80)
    pixels[:, 10:20, 30:50] = 7
    masked = np.ones((64, 80), bool)
    masked[40:, :] = False
    scene_file = write_raster(tmp_path / "scene.tif", pixels, mask=masked, sidecar=sidecar)
    with gdal_session(), Scene(str(scene_file), None, 3, nodata=7) as scene:
        np.testing.assert_array_equal(scene.read_valid(scene.extent), (pixels != 7).any(axis=0))
        image, _ = scene.read(Window(0, 0, 8, 8))
    np.testing.assert_array_equal(image, pixels[:, :8, :8])


@pytest.mark.parametrize("nodata", [None, 3.0])
def test_the_files_of_a_mosaic_of_mosaics_are_all_known(tmp_path: Path, nodata: float | None) -> None:
    write_raster(tmp_path / "tile.tif", landscape(60, 60, 1))
    inner = write_vrt(tmp_path / "inner.vrt", [("tile.tif", 1, "Byte")], 60, 60, relative=True)
    outer = write_vrt(tmp_path / "outer.vrt", [(inner.name, 1, "Byte")], 60, 60, relative=True)
    with gdal_session(), Scene(str(outer), None, 1, nodata) as scene:
        names = {file.name for file in scene.files}
    assert {"outer.vrt", "inner.vrt", "tile.tif"} <= names
