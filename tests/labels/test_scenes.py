"""Scenes of another ground sample distance are read resampled, image and label alike; few are open at once."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasters import write_raster
from training.scenes import STEP, write_catalog

from glraster.catalog import Catalog, Member, load_catalog, unite
from glraster.errors import CatalogError
from glraster.labels.scenes import OpenScenes, open_member, warnings_once
from glraster.raster.grid import Window


def shrunk(folder: Path, factor: float, **changes: object) -> Catalog:
    """A catalog that wants pixels `factor` times as large as those of its scenes, which have half a metre."""
    return load_catalog(write_catalog(folder, gsd_m=0.5 * factor, **changes))


def patch_classes(label: np.ndarray, side: float) -> np.ndarray:
    """The class in the middle of every patch."""
    middles = ((np.arange(8) + 0.5) * side).astype(int)
    return label[np.ix_(middles, middles)]


@pytest.mark.parametrize(("factor", "side"), [(1.0, 320), (1.05, 320), (2.0, 160), (0.5, 640), (1.25, 256)])
def test_image_and_label_are_resampled_together(tmp_path: Path, factor: float, side: int) -> None:
    catalog = shrunk(tmp_path, factor)
    native = np.random.default_rng(0).integers(0, 3, (8, 8))
    with open_member(unite(catalog).members("train")[0]) as scene:
        assert scene.area == Window(0, 0, side, side)
        image, label = scene.read(scene.area)
    assert image.shape == (3, side, side)
    assert np.array_equal(patch_classes(label, side / 8), native)
    seen = (image.mean(axis=0) / STEP).astype(np.uint8)
    assert (seen == label).mean() > 0.9


def test_a_part_of_a_resampled_scene_is_the_same_as_cut_from_the_whole(tmp_path: Path) -> None:
    catalog = shrunk(tmp_path, 1.6)
    with open_member(unite(catalog).members("train")[0]) as scene:
        whole = scene.read(scene.area)
        part = scene.read(Window(31, 77, 50, 60))
        beyond = scene.read(Window(-8, -8, 40, 40))
    assert np.array_equal(part[1], whole[1][31:81, 77:137])
    assert np.array_equal(beyond[1][8:, 8:], whole[1][:32, :32])
    assert (beyond[1][:8] == 255).all()


def test_a_label_much_finer_than_the_grid_is_read_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = shrunk(tmp_path, 4.0)
    with open_member(unite(catalog).members("train")[0]) as scene:
        whole = scene.read(scene.area)[1]
        monkeypatch.setattr("glraster.labels.scenes._LABEL_PIXELS", 320 * 4 * 7)
        banded = scene.read(scene.area)[1]
    assert np.array_equal(banded, whole)


def test_a_window_of_a_pair_is_meant_in_pixels_of_the_image(tmp_path: Path) -> None:
    (member,) = unite(shrunk(tmp_path, 2.0)).members("train")[:1]
    with open_member(replace(member, pair=replace(member.pair, window=(40, 80, 100, 120)))) as scene:
        assert scene.area == Window(20, 40, 50, 60)
        outside = scene.read(Window(10, 40, 20, 10))[1]
    assert (outside[:10] == 255).all()
    assert (outside[10:] != 255).all()


def test_scenes_without_metres_are_read_as_they_are(tmp_path: Path) -> None:
    catalog = shrunk(tmp_path, 2.0)
    for kind in ("image", "label"):
        write_raster(tmp_path / f"{kind}0.tif", np.zeros((3 if kind == "image" else 1, 64, 64), np.uint8), crs=None)
    with open_member(unite(catalog).members("train")[0]) as scene:
        assert scene.area == Window(0, 0, 64, 64)


def test_a_scene_far_too_coarse_is_refused(tmp_path: Path) -> None:
    catalog = shrunk(tmp_path, 0.005)
    with pytest.raises(
        CatalogError, match=r"image0\.tif: its pixels of 0\.5 m are too coarse to be read at gsd_m 0\.0025"
    ):
        open_member(unite(catalog).members("train")[0])


def test_only_the_last_used_scenes_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = load_catalog(write_catalog(tmp_path, scenes=6, side=80))
    opened: list[str] = []

    def counting(member: Member) -> object:
        opened.append(Path(member.pair.image).stem)
        return open_member(member)

    monkeypatch.setattr("glraster.labels.scenes.open_member", counting)
    scenes = OpenScenes(unite(catalog).members("train"), most=2)
    for number in (0, 1, 0, 2, 0, 1):
        assert scenes[number].area == Window(0, 0, 80, 80)
        assert len(scenes._open) <= 2
    assert opened == ["image0", "image1", "image2", "image1"]
    first = scenes[0]
    scenes.close()
    assert not scenes._open
    assert first._scene.dataset.closed


def test_scenes_warn_once_and_not_of_georeferences(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("glraster.raster.reader")
    for expected in ([], ["x.tif: is slow"], ["x.tif: is slow", "y.tif: is slow"]):
        caplog.clear()
        with warnings_once():
            for _ in range(2):
                logger.warning("%s: has no georeference; its map will have pixel coordinates", "x.tif")
                for text in expected:
                    logger.warning(text)
        assert [record.getMessage() for record in caplog.records] == expected
    logger.warning("%s: has no georeference", "x.tif")
    assert "has no georeference" in caplog.text


def test_the_grid_is_that_of_segment(tmp_path: Path) -> None:
    """Rectangular pixels: each axis is resampled by its own factor."""
    catalog = shrunk(tmp_path, 1.0)
    transform = Affine(0.25, 0, 500_000, 0, -1.0, 5_300_000)
    for kind, bands in (("image", 3), ("label", 1)):
        write_raster(tmp_path / f"{kind}0.tif", np.zeros((bands, 80, 160), np.uint8), transform=transform)
    with open_member(unite(catalog).members("train")[0]) as scene:
        # metres are true ones: UTM's scale makes them four in ten thousand longer or shorter
        assert scene.area == Window(0, 0, 160, 80)
