"""What is measured of the training data before the first step: values, sizes, shares of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rasters import write_raster
from training.scenes import write_catalog

from glraster.catalog import Catalog, Pair, load_catalog
from glraster.errors import CatalogError, UsageError
from glraster.labels.check import ClassPixels
from glraster.labels.scenes import open_image
from glraster.metrics import class_iou, confusion, mean_iou
from glraster.training import survey as module
from glraster.training.losses import make_loss
from glraster.training.survey import ImageStatistics, ImageSurvey, class_weights, steps_to_see_all


def survey(catalog: Catalog, pairs: Sequence[Pair]) -> ImageStatistics:
    images = ImageSurvey(catalog.bands, len(pairs))
    for number, pair in enumerate(pairs):
        scene, area = open_image(catalog, pair)
        with scene:
            images.add(number, scene, area)
    return images.statistics(catalog.source)


def classes(*pixels: int) -> Sequence[ClassPixels]:
    whole = sum(pixels)
    return [ClassPixels(i, f"c{i}", count, count / whole) for i, count in enumerate(pixels)]


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_mean_and_spread_are_those_of_the_values(tmp_path: Path, offset: float) -> None:
    catalog = load_catalog(write_catalog(tmp_path, scenes=4, side=240))
    every = []
    for number in range(3):
        noise = np.random.default_rng(number).normal(number, [[[3]], [[5]], [[7]]], (3, 240, 240))
        write_raster(tmp_path / f"image{number}.tif", (noise + offset).astype(np.float32))
        every.append((noise + offset).astype(np.float32).astype(np.float64).reshape(3, -1))
    seen = survey(catalog, catalog.train)
    whole = np.concatenate(every, axis=1)
    # its windows cover the scene, some pixels twice
    assert seen.mean == pytest.approx(whole.mean(axis=1).tolist(), abs=0.02)
    assert seen.std == pytest.approx(whole.std(axis=1).tolist(), rel=0.01)
    assert (seen.dtype, seen.pixels) == ("float32", 3 * 240 * 240)
    assert ImageStatistics.from_json(asdict(seen)) == seen


def test_only_some_of_many_scenes_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = load_catalog(write_catalog(tmp_path, scenes=6, side=80))
    monkeypatch.setattr(module, "MOST_SAMPLED", 3)
    looked: list[str] = []
    add = module._add_values
    monkeypatch.setattr(
        module, "_add_values", lambda sums, scene, area: (looked.append(scene.path), add(sums, scene, area))
    )
    first, second = survey(catalog, catalog.train), survey(catalog, catalog.train)
    assert first == second
    assert first.pixels == 5 * 80 * 80
    assert len(looked) == 6
    assert looked[:3] == looked[3:]


def test_values_outside_a_window_are_not_looked_at(tmp_path: Path) -> None:
    catalog = load_catalog(write_catalog(tmp_path, side=160))
    pixels = np.full((3, 160, 160), 200, np.uint8)
    pixels[:, 40:120, 40:120] = 10
    write_raster(tmp_path / "image0.tif", pixels)
    seen = survey(catalog, [replace(catalog.train[0], window=(40, 40, 80, 80))])
    assert seen.mean == (10.0, 10.0, 10.0)
    assert seen.pixels == 80 * 80


def test_images_of_two_kinds_or_without_pixels_are_refused(tmp_path: Path) -> None:
    catalog = load_catalog(write_catalog(tmp_path, side=80))
    write_raster(tmp_path / "image0.tif", np.zeros((3, 80, 80), np.uint16))
    with pytest.raises(CatalogError, match="images differ in dtype: uint16, uint8"):
        survey(catalog, catalog.train)
    for number in range(2):
        write_raster(tmp_path / f"image{number}.tif", np.zeros((3, 80, 80), np.uint8), nodata=0)
    with pytest.raises(CatalogError, match="no valid pixel; check their nodata"):
        survey(catalog, catalog.train)


def test_class_weights_are_inverse_to_shares() -> None:
    assert class_weights("none", classes(10, 30)) is None
    assert class_weights("inverse", classes(10, 30)) == pytest.approx((1.5, 0.5))
    assert class_weights("sqrt", classes(16, 64)) == pytest.approx((4 / 3, 2 / 3))
    assert class_weights((1.0, 3.0), classes(10, 30)) == (1.0, 3.0)
    assert class_weights("inverse", classes(10, 0, 30)) == pytest.approx((1.5, 0, 0.5))
    with pytest.raises(UsageError, match="class_weights has 2 numbers for 3 classes: c0, c1, c2"):
        class_weights((1.0, 3.0), classes(1, 1, 1))


def test_inverse_weights_make_classes_count_alike() -> None:
    """Of a map that errs everywhere alike, each class has the same part of the loss."""
    labels = torch.tensor([[[0] * 6 + [1] * 2 + [255] * 4]], dtype=torch.uint8)
    logits = torch.zeros(1, 2, 1, 12, requires_grad=True)
    make_loss("ce", class_weights("inverse", classes(6, 2)))(logits, labels).backward()
    assert logits.grad is not None
    pulls = logits.grad[0, :, 0]
    assert pulls[0, :6].sum().item() == pytest.approx(pulls[1, 6:8].sum().item())
    assert not pulls[:, 8:].any()


def test_ignored_pixels_are_in_no_score() -> None:
    truth = np.array([[0, 1, 255, 255]], np.uint8)
    counts = confusion(truth, np.array([[0, 0, 0, 1]], np.uint8), 2)
    assert counts.tolist() == [[1, 0], [1, 0]]
    assert class_iou(counts).tolist() == [0.5, 0.0]
    assert mean_iou(counts) == 0.25
    assert np.array_equal(counts, confusion(truth, np.array([[0, 0, 1, 0]], np.uint8), 2))


def test_steps_to_see_all() -> None:
    assert steps_to_see_all(100 * 64**2, 64, 6) == 17
    assert steps_to_see_all(1, 64, 6) == 1
