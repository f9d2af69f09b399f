"""Cut a network's graph into parts that are gone back through one by one.

A map that goes from one part to another is a leaf in the other: it collects its gradient there, and hands it on at
the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from glraster.model.fpn import Maps, Shared

Root = tuple[Tensor, Tensor | None]
"""A tensor to go back from, and the gradient that arrived there; None for a loss."""


def leaf(x: Tensor) -> Tensor:
    """The same values as a leaf, which collects a gradient where the original wants one."""
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


def arrived(windows: Sequence[Sequence[Tensor]]) -> list[Tensor | None]:
    """Per map, the gradients that arrived at its leaves in all windows, side by side; None where none did."""
    gradients: list[Tensor | None] = []
    for ends in zip(*windows, strict=True):
        parts = [end.grad for end in ends]
        zeros = (torch.zeros_like(end) if part is None else part for end, part in zip(ends, parts, strict=True))
        gradients.append(None if all(part is None for part in parts) else torch.cat([*zeros]))
    return gradients


def go_back(roots: Sequence[Root]) -> None:
    """Go back from losses, and from maps that a gradient arrived at; from nothing else."""
    used = [(x, grad) for x, grad in roots if x.requires_grad and (grad is not None or x.dim() == 0)]
    if used:
        tensors, gradients = zip(*used, strict=True)
        torch.autograd.backward(tensors, gradients)


@contextmanager
def statistics_kept(branch: nn.Module | None) -> Iterator[None]:
    """BatchNorm behaves as ever, but does not move its running statistics: the same tiles will pass once more."""
    norms = [module for module in (branch.modules() if branch else ()) if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
