"""Blind samples: their tiles learn without the guide, and the guide learns without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from training.scenes import NAMES, write_catalog
from training.test_stages import gradients, small_model, small_sample

from glraster.catalog import load_catalog, unite
from glraster.config import Architecture, ModelSpec
from glraster.labels.scenes import OpenScenes
from glraster.training.dataset import Augmentation, Sample, SampleForm, SampleSource
from glraster.training.losses import make_loss
from glraster.training.stages import STAGES, Weights, set_training
from glraster.training.steps import train_step

TILES_ONLY = replace(STAGES["joint"], weights=Weights(local=1, refined=0.0, aggregated=1), average=True)


def guide_learns(samples: list[Sample], mode: str) -> bool:
    model = small_model(mode)
    set_training(model, TILES_ONLY)
    train_step(model, TILES_ONLY, samples, make_loss("ce"), sub_batch=32)
    moved = gradients(model)
    assert moved["local.fpn.classify.weight"].abs().sum() > 0
    return any(bool(x.abs().sum()) for name, x in moved.items() if name.startswith("guide."))


def blind(sample: Sample) -> Sample:
    return replace(sample, blind=True)


@pytest.mark.parametrize("mode", ["local", "full"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda both: both, True),
        (lambda both: [*map(blind, both)], False),
        (lambda both: [both[0], blind(both[1])], True),
    ],
)
def test_the_losses_of_blind_tiles_do_not_reach_the_guide(
    mode: str, change: Callable[[list[Sample]], list[Sample]], expected: bool
) -> None:
    assert guide_learns(change([small_sample(1), small_sample(2)]), mode) is expected


def test_blind_tiles_do_not_depend_on_the_thumbnail() -> None:
    model = small_model("local")
    set_training(model, TILES_ONLY)
    sample = small_sample(1)
    other = replace(sample, thumbnail=torch.flip(sample.thumbnail, (1, 2)))
    losses = [
        train_step(model, TILES_ONLY, [s], make_loss("ce"), sub_batch=32).total
        for s in (sample, other, blind(sample), blind(other))
    ]
    assert losses[0] != pytest.approx(losses[1])
    assert losses[2] == pytest.approx(losses[3])


def test_the_share_of_blind_samples_is_as_asked(tmp_path_factory: pytest.TempPathFactory) -> None:
    catalog = load_catalog(write_catalog(tmp_path_factory.mktemp("scenes")))
    spec = ModelSpec(Architecture("local", 3, len(NAMES)), catalog.classes)
    form = SampleForm(context_px=128, thumbnail_px=64, tile_px=64, tiles=(1, 1))
    seen = {}
    for share in (0.0, 0.3):
        scenes = OpenScenes(unite(catalog).members("train"))
        with SampleSource(scenes, [1, 1], spec, form, Augmentation(blind=share), 0) as source:
            seen[share] = sum(source.sample(number).blind for number in range(100))
    assert seen[0.0] == 0
    assert 15 < seen[0.3] < 45
