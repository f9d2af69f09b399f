"""Split the autograd graph of a network so that it is back-propagated piece by piece.

A map that goes from one piece to another is a leaf in the second: there it collects its gradient, from which the first
is back-propagated at the end.

    thumbnails -> guide -> maps | leaf -> local branch, sub-batch 1 -> loss
                                | leaf -> local branch, sub-batch 2 -> loss
    <- at the end, with the sum of the leaves' gradients
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from glraster.model.fpn import Maps, Shared

Root = tuple[Tensor, Tensor | None]
"""A tensor to start back-propagation from, and its gradient; None for a loss."""


def leaf(x: Tensor) -> Tensor:
    """The same values as a leaf, which collects a gradient if the original needs one."""
    return x.detach().requires_grad_(x.requires_grad)


def window_leaves(whole: Maps, i: int, blind: bool) -> Maps:
    """The maps of window i of a batch as leaves, or zeros for a blind sample."""
    maps = (x[i : i + 1] for x in flat(whole.shared, whole.ps3))
    own = [torch.zeros_like(x, requires_grad=False) if blind else leaf(x) for x in maps]
    return Maps(nested(own[:-1]), own[-1], whole.logits[i : i + 1].detach())


def flat(shared: Shared, *more: Tensor) -> list[Tensor]:
    """All maps of a branch in one list."""
    return [*chain.from_iterable(shared), *more]


def nested(maps: Sequence[Tensor]) -> Shared:
    """The maps of `flat` by depth and level."""
    return tuple(tuple(maps[i : i + 4]) for i in range(0, len(maps), 4))


def leaf_gradients(windows: Sequence[Sequence[Tensor]]) -> list[Tensor | None]:
    """The gradients of every map's leaves, concatenated over all windows; None if no leaf has one."""
    gradients: list[Tensor | None] = []
    for ends in zip(*windows, strict=True):
        parts = [end.grad for end in ends]
        zeros = (torch.zeros_like(end) if part is None else part for end, part in zip(ends, parts, strict=True))
        gradients.append(None if all(part is None for part in parts) else torch.cat([*zeros]))
    return gradients


def backward(roots: Sequence[Root]) -> None:
    """Back-propagate from losses and from maps with a gradient, in one pass; skip all others."""
    used = [(x, grad) for x, grad in roots if x.requires_grad and (grad is not None or x.dim() == 0)]
    if used:
        tensors, gradients = zip(*used, strict=True)
        torch.autograd.backward(tensors, gradients)


@contextmanager
def frozen_statistics(branch: nn.Module | None) -> Iterator[None]:
    """Keep BatchNorm's running statistics as they are in training mode, for tiles that will pass once more."""
    norms = [module for module in (branch.modules() if branch else ()) if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
