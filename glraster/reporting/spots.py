"""Places for class numbers on a map: the middles of the largest patches of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GRID_PX = 160
"""Side of the coarse map that is searched for places."""

_PER_CLASS = 4
_LEAST_RADIUS = 2
_APART = 0.055


@dataclass(frozen=True)
class Spot:
    """A place for the number of a class: its index, and the place in shares of height and width."""

    index: int
    y: float
    x: float


def spots(indexes: npt.NDArray[np.uint8], classes: int) -> tuple[Spot, ...]:
    """Find places for class numbers, up to four for each class and none near another.

    Args:
        indexes: (H, W) class indexes of a small map, at most about `GRID_PX` a side.
        classes: their count.
    """
    height, width = indexes.shape
    candidates = [middle for index in range(classes) for middle in _middles(indexes == index, index)]
    placed: list[tuple[int, int, int]] = []
    for _, index, row, column in sorted(candidates, reverse=True):
        if all(np.hypot(row - y, column - x) >= _APART * max(height, width) for _, y, x in placed):
            placed.append((index, row, column))
    return tuple(Spot(index, (row + 0.5) / height, (column + 0.5) / width) for index, row, column in placed)


def _middles(mask: npt.NDArray[np.bool_], index: int) -> list[tuple[int, int, int, int]]:
    """(radius, index, row, column) of the middles of a class's largest patches."""
    depth = _depth(mask)
    middles = []
    for _ in range(_PER_CLASS):
        row, column = (int(place) for place in np.unravel_index(int(depth.argmax()), depth.shape))
        radius = int(depth[row, column])
        if radius < _LEAST_RADIUS:
            break
        middles.append((radius, index, row, column))
        clear = max(3 * radius, max(depth.shape) // 5)
        depth[max(0, row - clear) : row + clear + 1, max(0, column - clear) : column + clear + 1] = 0
    return middles


def shrink(indexes: npt.NDArray[np.uint8], side: int = GRID_PX) -> npt.NDArray[np.uint8]:
    """Shrink a map to `side` pixels at most by nearest neighbour."""
    shape: Sequence[int] = indexes.shape
    factor = max(1.0, max(shape) / side)
    rows, columns = (((np.arange(max(1, int(n / factor))) + 0.5) * factor).astype(int) for n in shape)
    return indexes[np.ix_(np.minimum(rows, shape[0] - 1), np.minimum(columns, shape[1] - 1))]


def _depth(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """For each pixel, the number of erosions by one pixel that it survives."""
    depth = np.zeros(mask.shape, np.int32)
    left = mask.copy()
    while left.any():
        depth += left
        inner = np.pad(left, 1)
        left = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return depth
