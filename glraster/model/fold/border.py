r"""A chain of zero-padded 3x3 convolutions as one 9x9 convolution, exact up to the border of the map.

The chain `E ∘ F ∘ S2 ∘ S1` pads with zeros before every step. One 9x9 convolution pads only once: near the border it
counts paths of taps that leave the map and come back, where the chain has zeros. A path of three taps can leave only
from rows 0 to 2, and the fourth can bring it back only to rows 0 to 2:

    row -1    .   2   .    the path 1, 2, 3 leaves the map: the chain has a zero at 2, the 9x9 convolution has none
    ---- end of the map ----
    row  0    1   .   3

So the correction is, per side, a convolution of a strip three cells wide into a strip three cells wide. Rows and
columns are independent: (S - Zy)(S - Zx) = S S - Zy S - S Zx + Zy Zx. The last term, which both sides subtract in a
corner, maps a 3x3 block to a 3x3 block.

The kernels come from running the chain backwards from one output cell, at every distance from the border.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RING = 3
"""Width in cells of the border along which the chain of four differs from one 9x9 convolution."""

LEAST = 3 * RING
"""Least side of a map in cells: below it opposite borders would meet."""

_FAR = 99
_SIDES = ((_FAR, _FAR), *((i, _FAR) for i in range(RING)), *((_FAR, i) for i in reversed(range(RING))))
"""Distances to the border before and behind: far from both, then the first three cells, then the last three."""

Backwards = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]
"""From a cell's outputs (N, n, 1, 1) to the inputs' weights (N, C, 9, 9); the function zeroes what is outside."""


@dataclass(frozen=True)
class Chain:
    """Kernels of a chain: `inner` (n, C, 9, 9), and what corrects the border.

    `edges` are weights (3 n, C, 3, 9) of convolutions along the strips at the top, bottom, left and right;
    `corners` (9 n, C, 3, 3) of the blocks at top left, top right, bottom left, bottom right.
    """

    inner: Tensor
    edges: tuple[Tensor, Tensor, Tensor, Tensor]
    corners: tuple[Tensor, Tensor, Tensor, Tensor]

    def to(self, dtype: torch.dtype) -> Chain:
        """The same kernels in another number format and the memory layout that `add` needs."""
        top, bottom, left, right = (x.to(dtype, memory_format=torch.channels_last) for x in self.edges)
        one, two, three, four = (x.to(dtype) for x in self.corners)
        return Chain(self.inner.to(dtype), (top, bottom, left, right), (one, two, three, four))

    def add(self, strips: Strips, result: Tensor) -> None:
        """Correct a result (B, n, h, w) of the 9x9 convolution along its border, given the strips of its input."""
        b, n, h, w = result.shape
        # strips at the sides are transposed: convolutions along rows are faster
        lying = [strip.mT if i > 1 else strip for i, strip in enumerate(strips.edges)]
        top, bottom, left, right = (
            F.conv2d(strip.contiguous(memory_format=torch.channels_last), edge, padding=(0, 4))
            for strip, edge in zip(lying, self.edges, strict=True)
        )
        result[:, :, _HEAD] += top.reshape(b, RING, n, w).transpose(1, 2)
        result[:, :, _TAIL] += bottom.reshape(b, RING, n, w).transpose(1, 2)
        result[..., _HEAD] += left.reshape(b, RING, n, h).permute(0, 2, 3, 1)
        result[..., _TAIL] += right.reshape(b, RING, n, h).permute(0, 2, 3, 1)
        for block, kernel, (y, x) in zip(strips.corners, self.corners, _CORNERS, strict=True):
            correction = block.flatten(1) @ kernel.flatten(1).T
            result[:, :, y, x] += correction.view(b, RING, RING, n).permute(0, 3, 1, 2)


_HEAD, _TAIL = slice(None, RING), slice(-RING, None)
_CORNERS = ((_HEAD, _HEAD), (_HEAD, _TAIL), (_TAIL, _HEAD), (_TAIL, _TAIL))


@dataclass(frozen=True)
class Strips:
    """The border of a map (B, C, h, w): `edges` top, bottom (B, C, 3, w), left, right (B, C, h, 3)."""

    edges: tuple[Tensor, Tensor, Tensor, Tensor]

    @staticmethod
    def of(maps: Tensor) -> Strips:
        return Strips((maps[:, :, _HEAD], maps[:, :, _TAIL], maps[..., _HEAD], maps[..., _TAIL]))

    @staticmethod
    def joined(*parts: Strips) -> Strips:
        """The strips of several maps, concatenated along channels."""
        top, bottom, left, right = (torch.cat(edges, dim=1) for edges in zip(*(p.edges for p in parts), strict=True))
        return Strips((top, bottom, left, right))

    @property
    def corners(self) -> tuple[Tensor, ...]:
        top, bottom, _, _ = self.edges
        return top[..., _HEAD], top[..., _TAIL], bottom[..., _HEAD], bottom[..., _TAIL]


def chain(backwards: Backwards, classes: int, like: Tensor) -> Chain:
    """Compute the kernels of a chain of up to four zero-padded 3x3 convolutions.

    Args:
        backwards: the chain's transpose.
        classes: outputs n of the chain.
        like: one of its weights, for number format and device.
    """
    device = like.device
    first, *_ = near_columns = _kernels(backwards, classes, _SIDES[0], device)
    from_columns = [kernel - first for kernel in near_columns[1:]]
    from_rows, blocks = [], []
    for y, rows in enumerate(_SIDES[1:]):
        near_row, *near_both = _kernels(backwards, classes, rows, device)
        from_rows.append(near_row - first)
        for x, both in enumerate(near_both):
            twice = both - near_row - from_columns[x]
            blocks.append(_windows(_windows(twice, 2, y % RING), 3, x % RING).clone())
    edges = [
        torch.cat([_windows(kernel, 2, cell) for cell, kernel in enumerate(side)])
        for kernels in (from_rows, [kernel.mT for kernel in from_columns])
        for side in (kernels[:RING], kernels[RING:])
    ]
    corners = [
        torch.cat([blocks[2 * RING * y + x] for y in rows for x in columns])
        for rows in (range(RING), range(RING, 2 * RING))
        for columns in (range(RING), range(RING, 2 * RING))
    ]
    return Chain(first, (edges[0], edges[1], edges[2], edges[3]), (corners[0], corners[1], corners[2], corners[3]))


def _windows(kernel: Tensor, axis: int, cell: int) -> Tensor:
    """The taps by which cell `cell` of a strip sees the strip's three cells."""
    return kernel.narrow(axis, 4 - cell, RING)


def _kernels(backwards: Backwards, classes: int, rows: tuple[int, int], device: torch.device) -> Tensor:
    """Kernels (column distance, n, C, 9, 9) of an output cell at a distance of rows from the border."""
    cells = torch.eye(classes, device=device).repeat(len(_SIDES), 1)[:, :, None, None]

    def cut(maps: Tensor) -> Tensor:
        reach = maps.shape[-1] // 2
        offsets = torch.arange(-reach, reach + 1, device=device)
        down = (offsets >= -rows[0]) & (offsets <= rows[1])
        across = torch.stack([(offsets >= -before) & (offsets <= behind) for before, behind in _SIDES])
        mask = (down[None, :, None] & across[:, None, :]).to(maps.dtype)
        return maps * mask.repeat_interleave(classes, dim=0)[:, None]

    kernels = backwards(cells, cut)
    return kernels.view(len(_SIDES), classes, *kernels.shape[1:])
