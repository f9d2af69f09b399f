"""Samples show what their labels say, whatever is done to them, and are the same every time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from training.scenes import NAMES, STEP, write_catalog

from glraster.catalog import Catalog, load_catalog, unite
from glraster.config import Architecture, ModelSpec
from glraster.labels.scenes import OpenScenes
from glraster.training.dataset import Augmentation, Sample, SampleForm, SampleSource, prefetch

FORM = SampleForm(context_px=128, thumbnail_px=64, tile_px=64, tiles=(2, 2))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return load_catalog(write_catalog(tmp_path_factory.mktemp("scenes")))


@pytest.fixture
def samples(catalog: Catalog, request: pytest.FixtureRequest) -> Iterator[list[Sample]]:
    with source(catalog, *request.param) as drawn:
        yield [drawn.sample(number) for number in range(8)]


def source(
    catalog: Catalog, form: SampleForm = FORM, how: Augmentation | None = None, seed: int | tuple[int, int] = 0
) -> SampleSource:
    spec = ModelSpec(Architecture("local", 3, len(NAMES)), catalog.classes)
    scenes = OpenScenes(unite(catalog).members("train"))
    return SampleSource(scenes, [320**2] * 2, spec, form, how or Augmentation(turns=False), seed)


def classes_seen(pixels: Tensor) -> Tensor:
    """The class of every pixel by its brightness, (bands, h, w) to (h, w)."""
    return (pixels.mean(dim=0) * 255 / STEP).floor().to(torch.uint8)


@pytest.mark.parametrize(
    "samples",
    [
        (FORM,),
        (FORM, Augmentation(turns=True)),
        (FORM, Augmentation(zoom=(0.6, 1.7))),
        (FORM, Augmentation(balance=1.0)),
        (SampleForm(128, 64, 64, None),),
        (SampleForm(400, 64, 64, (1, 2)),),  # larger than the scenes
    ],
    indirect=True,
)
def test_every_pixel_lies_on_its_label(samples: list[Sample]) -> None:
    agreements = []
    for sample in samples:
        views = [(sample.thumbnail, sample.thumbnail_label)]
        views += list(zip(sample.tiles, sample.tile_labels, strict=True))
        for pixels, label in views:
            known = label != 255
            if known.any():
                agreements.append(float((classes_seen(pixels) == label)[known].float().mean()))
    assert np.mean(agreements) > 0.9
    assert len({label.numpy().tobytes() for sample in samples for label in sample.tile_labels}) > 4


def test_tiles_are_where_the_tiling_says(catalog: Catalog) -> None:
    with source(catalog, SampleForm(128, 128, 64, (2, 2))) as drawn:
        sample = drawn.sample(3)
    tiling = sample.tiling
    corners = [(top, left) for top in tiling.tops for left in tiling.lefts]
    assert len(corners) == len(sample.tiles)
    for tile, (top, left) in zip(sample.tiles, corners, strict=True):
        assert torch.equal(tile, sample.thumbnail[:, top : top + 64, left : left + 64])


def test_samples_are_a_function_of_seed_and_number(catalog: Catalog) -> None:
    how = Augmentation(turns=True, zoom=(0.7, 1.4), colour=0.2, balance=0.5)
    with source(catalog, how=how) as one, source(catalog, how=how) as two, source(catalog, how=how, seed=1) as other:
        two.sample(0)
        assert torch.equal(one.sample(5).tiles, two.sample(5).tiles)
        assert not torch.equal(one.sample(5).thumbnail, other.sample(5).thumbnail)
        batches = list(prefetch(one, [[0, 1], [5]]))
        assert torch.equal(batches[1][0].tiles, two.sample(5).tiles)


def test_streams_of_one_seed_differ(catalog: Catalog) -> None:
    """Stages draw from streams of their own; the first is that of the seed alone."""
    with source(catalog) as plain, source(catalog, seed=(0, 0)) as first, source(catalog, seed=(0, 1)) as second:
        for number in range(4):
            assert torch.equal(plain.sample(number).thumbnail, first.sample(number).thumbnail)
            assert not torch.equal(plain.sample(number).thumbnail, second.sample(number).thumbnail)


def test_colour_changes_values_and_no_label(catalog: Catalog) -> None:
    with source(catalog) as plain, source(catalog, how=Augmentation(turns=False, colour=0.3)) as coloured:
        assert torch.equal(plain.sample(2).tile_labels, coloured.sample(2).tile_labels)
        assert not torch.allclose(plain.sample(2).tiles, coloured.sample(2).tiles, atol=1e-2)
