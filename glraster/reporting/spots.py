"""Where on a map the number of a class can be read: in the middle of its largest patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GRID_PX = 160
"""Side of the coarse map in which places are sought."""

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
    """Find places for the classes' numbers, up to four for each class and none near another.

    Args:
        indexes: (H, W) class indexes of a small map, at most about `GRID_PX` a side.
        classes: how many there are.
    """
    height, width = indexes.shape
    candidates = [found for index in range(classes) for found in _middles(indexes == index, index)]
    kept: list[tuple[int, int, int]] = []
    for _, index, row, column in sorted(candidates, reverse=True):
        if all(np.hypot(row - y, column - x) >= _APART * max(height, width) for _, y, x in kept):
            kept.append((index, row, column))
    return tuple(Spot(index, (row + 0.5) / height, (column + 0.5) / width) for index, row, column in kept)


def _middles(mask: npt.NDArray[np.bool_], index: int) -> list[tuple[int, int, int, int]]:
    """(radius, index, row, column) of the middles of a class's largest patches."""
    depth = _depth(mask)
    found = []
    for _ in range(_PER_CLASS):
        row, column = (int(place) for place in np.unravel_index(int(depth.argmax()), depth.shape))
        radius = int(depth[row, column])
        if radius < _LEAST_RADIUS:
            break
        found.append((radius, index, row, column))
        clear = max(3 * radius, max(depth.shape) // 5)
        depth[max(0, row - clear) : row + clear + 1, max(0, column - clear) : column + clear + 1] = 0
    return found


def shrink(indexes: npt.NDArray[np.uint8], side: int = GRID_PX) -> npt.NDArray[np.uint8]:
    """The same map by its nearest pixels, `side` at most."""
    shape: Sequence[int] = indexes.shape
    factor = max(1.0, max(shape) / side)
    rows, columns = (((np.arange(max(1, int(n / factor))) + 0.5) * factor).astype(int) for n in shape)
    return indexes[np.ix_(np.minimum(rows, shape[0] - 1), np.minimum(columns, shape[1] - 1))]


def _depth(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """How many times a patch can be eroded by one pixel before each of its pixels is gone."""
    depth = np.zeros(mask.shape, np.int32)
    left = mask.copy()
    while left.any():
        depth += left
        inner = np.pad(left, 1)
        left = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return depth
