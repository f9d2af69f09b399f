"""A mask says its classes and gives ids, whoever wrote it."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from maps import CLASSES, patches, write_map
from rasters import hole, write_raster

from glraster.errors import SceneError
from glraster.raster.grid import Window
from glraster.raster.mask import Mask


def test_windows_are_the_pixels_of_the_file(tmp_path):
    ids = patches(90, 130)
    with Mask(str(write_map(tmp_path / "map.tif", ids))) as mask:
        assert mask.classes == CLASSES
        assert np.array_equal(mask.read(Window(7, 20, 50, 61)), ids[7:57, 20:81])
        assert np.array_equal(np.vstack([block for _, block in mask.blocks()]), ids)


def test_masked_pixels_and_any_nodata_have_no_class(tmp_path):
    ids = patches(60, 80)
    valid = hole(60, 80)
    file = write_raster(tmp_path / "masked.tif", ids[None], mask=valid)
    with Mask(str(file)) as mask:
        assert np.array_equal(mask.read(mask.extent), np.where(valid, ids, 255))
    with Mask(str(write_raster(tmp_path / "nodata.tif", ids[None], nodata=7))) as mask:
        assert np.array_equal(mask.read(mask.extent), np.where(ids == 7, 255, ids))
        assert [c.id for c in mask.classes] == [1, 3]


def test_overview_takes_the_class_of_most_pixels(tmp_path):
    ids = patches(200, 300, side=20)
    noisy = np.where(np.random.default_rng(1).random(ids.shape) < 0.2, 7, ids).astype(np.uint8)
    with Mask(str(write_map(tmp_path / "map.tif", noisy))) as mask:
        assert np.array_equal(mask.overview(15), ids[10::20, 10::20])
        assert np.array_equal(mask.overview(999), noisy)


def test_overview_keeps_places_without_class(tmp_path):
    ids = patches(100, 100, side=50)
    ids[:50, :50] = 255
    with Mask(str(write_map(tmp_path / "map.tif", ids))) as mask:
        assert mask.overview(10)[:5, :5].tolist() == [[255] * 5] * 5
        assert (mask.overview(10)[5:] != 255).all()


def test_colours_of_a_foreign_mask_are_its_own(tmp_path):
    file = write_raster(tmp_path / "map.tif", patches(40, 40, ids=(2, 5))[None])
    with rasterio.open(file, "r+") as dataset:
        dataset.write_colormap(1, {2: (1, 2, 3, 255), 5: (9, 8, 7, 255), 6: (4, 4, 4, 255)})
    with Mask(str(file)) as mask:
        assert [(c.id, c.color) for c in mask.classes] == [(2, (1, 2, 3)), (5, (9, 8, 7))]


def test_areas_are_those_of_all_pixels(tmp_path):
    ids = patches(600, 500)
    with Mask(str(write_map(tmp_path / "map.tif", ids))) as mask:
        pixels, area = mask.areas()
    assert np.array_equal(pixels, np.bincount(ids.ravel(), minlength=256))
    assert area == pytest.approx(pixels * 0.25, rel=2e-3)


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (np.zeros((3, 9, 9), np.uint8), "3 bands"),
        (np.zeros((1, 9, 9), np.float32), "float32"),
        (np.full((1, 9, 9), 1000, np.int16), "beyond 0 to 255"),
    ],
    ids=["colour", "float", "large"],
)
def test_what_is_no_mask_is_refused(pixels, text, tmp_path):
    with pytest.raises(SceneError, match=text):
        Mask(str(write_raster(tmp_path / "file.tif", pixels)))
