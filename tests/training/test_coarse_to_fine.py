"""With coarse-to-fine the local branch sees the tiles that touch foreground, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from training.test_stages import gradients, small_model, small_sample

from glraster.config import Architecture
from glraster.errors import UsageError
from glraster.model.glnet import GLNet
from glraster.training.dataset import Sample
from glraster.training.losses import make_loss
from glraster.training.recipes import choose_recipe
from glraster.training.stages import STAGES, set_training
from glraster.training.steps import StepForm, tiles_with_foreground, train_step

COARSE = StepForm(windows=1, coarse_to_fine=True)


def corner_sample(seed: int = 1) -> Sample:
    """Four tiles of 64 px, the only foreground in the first."""
    sample = small_sample(seed, (0, 64))
    label = torch.zeros(128, 128, dtype=torch.uint8)
    label[10:30, 10:30] = 1
    tiles = torch.stack([label[y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64)])
    return replace(sample, thumbnail_label=label, tile_labels=tiles)


def logits(cells: list[tuple[int, int]]) -> torch.Tensor:
    found = torch.zeros(1, 2, 16, 16)
    found[:, 0] = 1
    for y, x in cells:
        found[0, 1, y, x] = 2
    return found


def test_tiles_are_chosen_by_the_guide_and_by_the_label() -> None:
    sample = corner_sample()
    assert tiles_with_foreground(sample, logits([])) == [0]
    assert tiles_with_foreground(sample, logits([(13, 13)])) == [0, 3]
    empty = replace(sample, thumbnail_label=torch.full_like(sample.thumbnail_label, 255))
    assert tiles_with_foreground(empty, logits([])) == []
    assert tiles_with_foreground(empty, logits([(2, 13)])) == [1]


def two_class_model() -> GLNet:
    torch.manual_seed(3)
    model = GLNet(Architecture("local", 3, 2, "resnet18", 16))
    with torch.no_grad():  # a guide that finds nothing
        model.guide.fpn.classify.weight.zero_()
        model.guide.fpn.classify.bias.copy_(torch.tensor([1.0, 0.0]))
    return model


@pytest.mark.parametrize("name", ["local", "joint"])
def test_other_tiles_have_no_part_in_a_step(name: str) -> None:
    stage, found = STAGES[name], []
    for replaced in (False, True):
        model, sample = two_class_model(), corner_sample()
        if replaced:
            others = sample.tiles.clone()
            others[1:] = torch.randn_like(others[1:])
            sample = replace(sample, tiles=others, tile_labels=sample.tile_labels.roll(1, 0).roll(-1, 0))
        set_training(model, stage)
        losses = train_step(model, stage, [sample, sample], make_loss("ce"), 4, COARSE)
        assert len(losses.terms["local"]) == 2  # one sub-batch of one tile per window
        found.append((losses, gradients(model)))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(x, found[1][1][k]) for k, x in found[0][1].items())


def test_a_batch_without_foreground_trains_the_guide_alone() -> None:
    model, stage = two_class_model(), STAGES["joint"]
    sample = corner_sample()
    empty = replace(sample, thumbnail_label=torch.zeros_like(sample.thumbnail_label))
    set_training(model, stage)
    losses = train_step(model, stage, [empty], make_loss("ce"), 4, COARSE)
    assert set(losses.terms) == {"guide"}
    assert {name.partition(".")[0] for name in gradients(model)} == {"guide"}


def test_all_tiles_kept_is_the_plain_step() -> None:
    stage, steps = STAGES["local"], []
    for form in (StepForm(windows=1), COARSE):
        model = small_model("local")
        sample = small_sample(1)
        sample = replace(sample, thumbnail_label=torch.ones_like(sample.thumbnail_label))
        set_training(model, stage)
        steps.append(train_step(model, stage, [sample], make_loss("focal"), 4, form))
    assert steps[0] == steps[1]


def test_it_is_for_a_local_model() -> None:
    with pytest.raises(UsageError, match=r"coarse_to_fine with mode full .add --arch mode=local"):
        choose_recipe("paper", ["coarse_to_fine=true"])
    assert choose_recipe("paper", ["coarse_to_fine=true", "mode=local", "stages=[global,local]"]).coarse_to_fine
