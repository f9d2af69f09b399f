"""A map of classes has the same valid pixels, ids and colours for every command, whoever wrote it."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from maps import CLASSES, patches, write_map
from rasterio.enums import ColorInterp, Resampling
from rasters import hole, write_raster

from glraster.errors import SceneError
from glraster.raster.class_raster import ClassRaster, ValueRaster
from glraster.raster.grid import Window


def test_windows_are_the_pixels_of_the_file(tmp_path):
    ids = patches(90, 130)
    with ClassRaster(str(write_map(tmp_path / "map.tif", ids))) as mask:
        assert mask.classes == CLASSES
        assert np.array_equal(mask.read(Window(7, 20, 50, 61)), ids[7:57, 20:81])
        assert np.array_equal(np.vstack([block for _, block in mask.blocks()]), ids)


def test_masked_pixels_and_any_nodata_have_no_class(tmp_path):
    ids = patches(60, 80)
    valid = hole(60, 80)
    file = write_raster(tmp_path / "masked.tif", ids[None], mask=valid)
    with ClassRaster(str(file)) as mask:
        assert np.array_equal(mask.read(mask.extent), np.where(valid, ids, 255))
    with ClassRaster(str(write_raster(tmp_path / "nodata.tif", ids[None], nodata=7))) as mask:
        assert np.array_equal(mask.read(mask.extent), np.where(ids == 7, 255, ids))
        assert [c.id for c in mask.classes] == [1, 3]


def test_overview_takes_the_class_of_most_pixels(tmp_path):
    ids = patches(200, 300, side=20)
    noisy = np.where(np.random.default_rng(1).random(ids.shape) < 0.2, 7, ids).astype(np.uint8)
    with ClassRaster(str(write_map(tmp_path / "map.tif", noisy))) as mask:
        assert np.array_equal(mask.overview(15), ids[10::20, 10::20])
        assert np.array_equal(mask.overview(999), noisy)


def test_overview_keeps_places_without_class(tmp_path):
    ids = patches(100, 100, side=50)
    ids[:50, :50] = 255
    with ClassRaster(str(write_map(tmp_path / "map.tif", ids))) as mask:
        assert mask.overview(10)[:5, :5].tolist() == [[255] * 5] * 5
        assert (mask.overview(10)[5:] != 255).all()


def test_colours_of_a_foreign_mask_are_its_own(tmp_path):
    file = write_raster(tmp_path / "map.tif", patches(40, 40, ids=(2, 5))[None])
    with rasterio.open(file, "r+") as dataset:
        dataset.write_colormap(1, {2: (1, 2, 3, 255), 5: (9, 8, 7, 255), 6: (4, 4, 4, 255)})
    with ClassRaster(str(file)) as mask:
        assert [(c.id, c.color) for c in mask.classes] == [(2, (1, 2, 3)), (5, (9, 8, 7))]


def test_areas_are_those_of_all_pixels(tmp_path):
    ids = patches(600, 500)
    with ClassRaster(str(write_map(tmp_path / "map.tif", ids))) as mask:
        pixels, area = mask.areas()
    assert np.array_equal(pixels, np.bincount(ids.ravel(), minlength=256))
    assert area == pytest.approx(pixels * 0.25, rel=2e-3)


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (np.zeros((3, 9, 9), np.uint8), "3 bands"),
        (np.full((1, 9, 9), 0.5, np.float32), "has the value 0.5"),
        (np.full((1, 9, 9), 1 + 1j, np.complex64), "complex64"),
        (np.full((1, 9, 9), 1000, np.int16), "beyond 0 to 255"),
        (np.full((1, 9, 9), 1e12, np.float64), "beyond -2147483647"),
    ],
    ids=["colour", "fraction", "complex", "large", "huge"],
)
def test_what_is_no_map_of_classes_is_refused(pixels, text, tmp_path):
    with pytest.raises(SceneError, match=text), ClassRaster(str(write_raster(tmp_path / "file.tif", pixels))) as raster:
        assert raster.classes


IDS = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) % 5 + 1


def both_views(path) -> tuple[np.ndarray, np.ndarray]:
    """Ids as evaluation and reports see them, and as they are traced, both with 255 for no class."""
    with ClassRaster(str(path)) as raster:
        ids = raster.read(raster.extent)
        pixels = raster.band(raster.region.top, raster.region.height)
        traced = pixels[1:-1, 1 : 1 + ids.shape[1]].astype(np.int64)
        return ids, np.where(traced == raster.blank, 255, traced)


def damage_nodata(path, text):
    """Give a file another nodata value than its own, which GDAL takes from the side-car."""
    path.with_name(path.name + ".aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><NoDataValue>{text}</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    return path


@pytest.mark.parametrize(
    ("dtype", "profile"),
    [
        ("uint8", {}),
        ("uint8", {"nodata": 2}),
        ("int8", {"nodata": 2}),
        ("int16", {"nodata": 2}),
        ("int32", {"nodata": 2}),
        ("uint32", {"nodata": 2}),
        ("uint64", {"nodata": 2}),
        ("float32", {"nodata": 2}),
        ("float64", {"nodata": 2}),
    ],
    ids=str,
)
def test_every_view_leaves_out_what_gdal_says_is_invalid(dtype, profile, tmp_path):
    path = write_raster(tmp_path / "map.tif", IDS[None].astype(dtype), **profile)
    ids, traced = both_views(path)
    assert np.array_equal(ids, np.where(profile.get("nodata", 99) == IDS, 255, IDS))
    assert np.array_equal(ids, traced)


def test_the_greatest_number_of_64_bits_can_be_nodata(tmp_path):
    pixels = IDS[None].astype(np.uint64)
    pixels[0, 2:4, 3:6] = 2**64 - 1
    ids, traced = both_views(damage_nodata(write_raster(tmp_path / "map.tif", pixels), 2**64 - 1))
    assert np.array_equal(ids, np.where(pixels[0] > 9, 255, IDS))
    assert np.array_equal(ids, traced)


def test_a_nodata_value_between_whole_numbers_means_what_it_means_to_gdal(tmp_path):
    pixels = (IDS - 1)[None]
    path = damage_nodata(write_raster(tmp_path / "map.tif", pixels), 0.5)
    with rasterio.open(path) as dataset:
        valid = dataset.read_masks(1) > 0
    ids, traced = both_views(path)
    assert np.array_equal(ids, np.where(valid, pixels[0], 255))
    assert np.array_equal(ids, traced)


def test_the_least_number_of_32_bits_does_not_vanish(tmp_path):
    pixels = IDS[None].astype(np.int32)
    pixels[0, 1, 1] = -(2**31)
    with ClassRaster(str(write_raster(tmp_path / "map.tif", pixels))) as raster:
        with pytest.raises(SceneError, match="beyond -2147483647"):
            raster.band(0, 6)
        with pytest.raises(SceneError, match="beyond"):
            raster.read(raster.extent)


@pytest.mark.parametrize("nodata", [None, 2])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_an_alpha_band_beside_the_classes_hides_pixels(dtype, nodata, tmp_path):
    valid = hole(60, 80)
    ids = patches(60, 80, ids=(1, 2, 3))
    pixels = np.stack([ids, np.where(valid, 255, 0)]).astype(dtype)
    path = write_raster(tmp_path / "map.tif", pixels, nodata=nodata)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
    seen, traced = both_views(path)
    assert np.array_equal(seen, np.where(valid & (ids != nodata), ids, 255))
    assert np.array_equal(seen, traced)


def test_pixels_that_are_no_number_have_no_class(tmp_path):
    pixels = IDS[None].astype(np.float32)
    pixels[0, 1, 1:4] = np.nan, np.inf, -np.inf
    ids, traced = both_views(write_raster(tmp_path / "map.tif", pixels))
    assert np.array_equal(ids, np.where(np.isfinite(pixels[0]), IDS, 255))
    assert np.array_equal(ids, traced)


@pytest.mark.parametrize("form", ["GTiff", "COG"])
def test_overviews_that_were_averaged_are_no_votes(form, tmp_path):
    ids = np.roll(patches(512, 512, side=8, ids=(10, 90)), (3, 3), axis=(0, 1))
    most = np.where((ids == 90).reshape(64, 8, 64, 8).sum(axis=(1, 3)) > 32, 90, 10)  # of 8 x 8 pixels, never a tie
    path = write_raster(tmp_path / "map.tif", ids[None], nodata=255, tiled=True, blockxsize=128, blockysize=128)
    if form == "GTiff":
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4, 8, 16], Resampling.average)
    else:
        cog = tmp_path / "cog.tif"
        rasterio.shutil.copy(path, cog, driver="COG", OVERVIEW_RESAMPLING="AVERAGE", BLOCKSIZE=128)
        path = cog
    with rasterio.open(path) as dataset:
        assert set(np.unique(dataset.read(1, out_shape=(128, 128)))) - {10, 90}, "the overviews show no average"
    with ClassRaster(str(path)) as raster:
        assert np.array_equal(raster.overview(64), most)
        assert set(np.unique(raster.overview(32))) <= {10, 90}


def test_measured_values_are_nan_if_invalid(tmp_path):
    valid = hole(60, 80)
    path = write_raster(tmp_path / "values.tif", patches(60, 80)[None], mask=valid)
    with ValueRaster(str(path)) as raster:
        measured = raster.read_measured(Window(10, 20, 30, 40))
    assert np.array_equal(np.isnan(measured), ~valid[10:40, 20:60])
    assert np.nanmax(measured) == 7
