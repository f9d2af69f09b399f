"""A network that trusts its guide by a share stands between the network as it is and its tiles alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from glraster.config import Architecture
from glraster.model.fpn import Maps
from glraster.model.glnet import GLNet
from glraster.model.sharing import Tiling
from glraster.training.stages import scale_guide

TILING = Tiling(128, 128, 64, 64, (0, 64), (0, 64))


def small(mode: str = "local") -> GLNet:
    torch.manual_seed(0)
    model = GLNet(Architecture(mode, 3, 3, "resnet18", width=8, stem=8))  # type: ignore[arg-type]
    for name, weight in model.named_parameters():
        if ".backbone." not in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model.eval()


class Silent(torch.nn.Module):
    """A guide that tells tiles nothing."""

    def __init__(self, guide: torch.nn.Module) -> None:
        super().__init__()
        self.guide = guide

    def forward(self, image: Tensor) -> Maps:
        maps = self.guide(image)
        shared = tuple(tuple(torch.zeros_like(x) for x in levels) for levels in maps.shared)
        return Maps(shared, torch.zeros_like(maps.ps3), maps.logits)


def logits(model: GLNet, branch: str) -> Tensor:
    torch.manual_seed(1)
    thumbnail, tiles = torch.randn(1, 3, 64, 64), torch.randn(4, 3, 64, 64)
    return torch.cat(list(model.tile_logits(thumbnail, [tiles], TILING, branch)))  # type: ignore[arg-type]


@pytest.mark.parametrize("branch", ["full", "local"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_logits_are_a_mean_of_both(share: float, branch: str) -> None:
    model, alone = small(), small()
    alone.guide = Silent(alone.guide)  # type: ignore[assignment]
    whole, blind = logits(model, branch), logits(alone, branch)
    assert (whole - blind).abs().max() > 0.1 * blind.abs().max()
    found = logits(scale_guide(model, share), branch)
    assert torch.allclose(found, share * whole + (1 - share) * blind, atol=1e-5 * float(whole.abs().max()))
    assert torch.equal(logits(model, branch), whole)


@pytest.mark.parametrize("mode", ["global", "full"])
def test_other_modes_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=f"mode {mode} has no guide to scale"):
        scale_guide(small(mode), 0.5)
