"""The network's pieces, composed into the three training stages, give the authors' losses and gradients.

One step of batch one per stage; a reduced copy of the training loop stands here so that the network is tested
without the trainer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model.official_inputs import make_label, official_state
from model.test_parity import SHARED, SMALL, needs_shared, view
from PIL import Image
from torch import Tensor

from glraster.model.glnet import GLNet
from glraster.model.official import import_official

SIDE = 128
ROUNDING = 5e-3
"""Of gradient norms. The reference, in float32 on two threads, is 4e-4 from the value in float64, and another
number of threads or another processor moves it by up to 1e-3; on the reference's own two threads it is met to 2e-7.
"""
Modules = dict[str, Iterable[torch.nn.Parameter]]


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss with gamma 3."""
    chosen = F.softmax(logits, dim=1).gather(1, labels[:, None]).clamp(1e-7, 1 - 1e-7)
    return (-((1 - chosen) ** 3) * chosen.log()).mean()


def quarter(labels: np.ndarray[Any, Any]) -> Tensor:
    """Labels at the resolution of the logits, nearest pixel."""
    small = Image.fromarray(labels).resize((SIDE // 4, SIDE // 4), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(small)).long()[None]


SEEN = view(SMALL["sq"], SIDE)
LABELS = make_label(1, 300, 300, 3)
TILE_LABELS = torch.cat(
    [quarter(LABELS[y : y + SIDE, x : x + SIDE]) for y in SEEN.tiling.tops for x in SEEN.tiling.lefts]
)


def stage_1(model: GLNet) -> tuple[list[Tensor], list[Tensor]]:
    model.guide.train()
    loss = focal(model.guide(SEEN.thumbnail).logits, quarter(LABELS))
    loss.backward()
    return [loss], []


def stage_2(model: GLNet) -> tuple[list[Tensor], list[Tensor]]:
    assert model.local is not None
    model.local.train()
    with torch.no_grad():
        guide = model.guide(SEEN.thumbnail)
    losses, regularisers = [], []
    for first, maps in model.local_maps(SEEN.tiles.split(6), guide, SEEN.tiling):
        labels = TILE_LABELS[first : first + 6]
        votes = model.tile_votes(maps.ps3)
        votes = votes + model.window_votes(guide.ps3, SEEN.tiling, first, votes.shape)
        context = model.window_context(guide.ps3, SEEN.tiling, first, maps.ps3.shape)
        losses += [focal(maps.logits, labels), focal(votes, labels)]
        regularisers.append(F.mse_loss(maps.ps3, context))
        (losses[-2] + losses[-1] + 0.15 * regularisers[-1]).backward()
    return losses, regularisers


def stage_3(model: GLNet) -> tuple[list[Tensor], list[Tensor]]:
    assert model.refined is not None
    with torch.no_grad():
        guide = model.guide(SEEN.thumbnail)
        ps3 = torch.cat([maps.ps3 for _, maps in model.local_maps(SEEN.tiles.split(6), guide, SEEN.tiling)])
        merged = model.gather(SEEN.tiles.split(6), guide, SEEN.tiling).merged
    model.refined.train()
    context = model.refined(SEEN.thumbnail, merged)
    losses = [focal(context.logits, quarter(LABELS))]
    for first in range(0, len(ps3), 6):
        votes = model.tile_votes(ps3[first : first + 6])
        votes = votes + model.window_votes(context.ps3, SEEN.tiling, first, votes.shape)
        losses.append(focal(votes, TILE_LABELS[first : first + 6]))
    sum(losses, torch.zeros(())).backward()
    return losses, []


@pytest.fixture
def start(official_files: Callable[[int], dict[str, Path]], tmp_path: Path) -> Callable[[int], GLNet]:
    """The network as the authors' code starts a stage: everything else from the stage before."""

    def build(stage: int) -> GLNet:
        files = official_files(3)
        if stage == 1:
            return import_official(files["g"])[0]
        if stage == 3:
            last = tmp_path / "renamed.pth"
            last.symlink_to(files["g2l"])
            return import_official(files["g"], None, last)[0]
        model, other = import_official(None, files["g2l"])[0], import_official(files["g"])[0]
        model.guide.load_state_dict(other.guide.state_dict())
        assert model.aggregate is not None
        state = official_state(1, 3, "g")
        model.aggregate.load_state_dict({k: state[f"module.ensemble_conv.{k}"] for k in ("weight", "bias")})
        return model

    return build


def gradient_norm(module: torch.nn.Module) -> float:
    return float(sum(p.grad.double().square().sum() for p in module.parameters() if p.grad is not None)) ** 0.5


@needs_shared
@pytest.mark.parametrize(
    ("stage", "run", "trained"),
    [
        (1, stage_1, {"resnet_global": "guide.backbone", "fpn_global": "guide.fpn"}),
        (2, stage_2, {"resnet_local": "local.backbone", "fpn_local": "local.fpn", "ensemble_conv": "aggregate"}),
        (3, stage_3, {"resnet_global": "refined.backbone", "fpn_global": "refined.fpn", "ensemble_conv": "aggregate"}),
    ],
)
def test_a_first_step(start: Callable[[int], GLNet], stage: int, run: Any, trained: dict[str, str]) -> None:
    reference = json.loads((SHARED / "training_ref.json").read_text())["runs"][f"mode{stage}_batch1"]
    model = start(stage)
    losses, regularisers = run(model)
    assert [float(x.detach()) for x in losses] == pytest.approx(reference["losses_in_call_order"], rel=1e-4)
    assert [float(x.detach()) for x in regularisers] == pytest.approx(reference["fmreg_mse_in_call_order"], rel=1e-4)
    for theirs, ours in trained.items():
        norm = gradient_norm(model.get_submodule(ours))
        assert norm == pytest.approx(reference["by_module"][theirs]["grad_norm"], rel=ROUNDING)
    assert gradient_norm(model) == pytest.approx(reference["total_grad_norm"], rel=ROUNDING)
