"""How far the tiles of a network believe its guide."""

from __future__ import annotations

import copy

import torch

from glraster.model.glnet import GLNet


@torch.no_grad()
def trusting(model: GLNet, share: float) -> GLNet:
    """A copy of a network of mode local whose tiles take a share of what the guide tells them.

    Behind the backbones nothing is non-linear, so the logits are an affine function of the guide's maps: scaling all
    weights that read them by `share` gives `share` times the logits with the guide's maps and `1 - share` times those
    with zeros in their place.

    Args:
        model: of mode local; it is not changed.
        share: 0 for tiles alone, 1 for the network as it is.

    Raises:
        ValueError: where the network is of another mode.
    """
    if model.arch.mode != "local" or model.local is None or model.aggregate is None:
        raise ValueError(f"a network of mode {model.arch.mode} cannot trust its guide by a share")
    scaled = copy.deepcopy(model)
    assert scaled.local is not None
    assert scaled.aggregate is not None
    fpn = scaled.local.fpn
    assert fpn.fuse is not None
    for conv in (*fpn.lateral, *fpn.smooth1, *fpn.smooth2, scaled.aggregate):
        conv.weight.chunk(2, dim=1)[1].mul_(share)
    for level in fpn.fuse.weight.chunk(4, dim=1):
        level.chunk(2, dim=1)[1].mul_(share)
    return scaled
