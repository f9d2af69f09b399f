"""Coarse to fine: which tiles of a window touch the foreground that a coarse look found.

For classes that cover little of a scene: only these tiles need the local branch. Source: Chen et al.,
Collaborative Global-Local Networks, CVPR 2019, the coarse-to-fine variant for binary masks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from glraster.raster.grid import Axis

FOREGROUND = 1
"""Index of the class that is looked for: the second of two."""

RELAX = 0.25
"""How far a box reaches beyond its foreground, as a share of its side, on each side."""

BoolArray = npt.NDArray[np.bool_]


def foreground_tiles(foreground: BoolArray, rows: Axis, columns: Axis, relax: float = RELAX) -> BoolArray:
    """Which tiles of a window touch a relaxed bounding box of its foreground.

    Args:
        foreground: (h, w), a coarse mask of the whole window at any resolution, as from the guide's logits.
        rows, columns: the tiles of the window: `side` is the window's, `length` the tile's, in pixels.
        relax: how far a box is widened on each side, as a share of its own height and width; by a cell at least.

    Returns:
        (rows of tiles, columns of tiles); all False without foreground.
    """
    keep = np.zeros((len(rows.offsets), len(columns.offsets)), bool)
    scale = np.array([rows.side, columns.side]) / foreground.shape
    tops, lefts = np.array(rows.offsets), np.array(columns.offsets)
    for box in foreground_boxes(foreground):
        margin = np.maximum(relax * (box[2:] - box[:2]), 1)
        (top, left), (bottom, right) = (box[:2] - margin) * scale, (box[2:] + margin) * scale
        down = (tops < bottom) & (tops + rows.length > top)
        across = (lefts < right) & (lefts + columns.length > left)
        keep |= down[:, None] & across
    return keep


def foreground_boxes(mask: BoolArray) -> npt.NDArray[np.int64]:
    """The bounding boxes of the connected parts of a mask; cells that touch at a corner are connected.

    Args:
        mask: (h, w).

    Returns:
        (n, 4): top, left, bottom, right of every part in cells, the last two exclusive.

    Runs of cells are joined row by row, so that time depends on their number.
    """
    boxes: list[list[int]] = []
    parents: list[int] = []

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    above: list[tuple[int, int, int]] = []
    for y, line in enumerate(mask):
        edges = np.flatnonzero(np.diff(line.astype(np.int8), prepend=0, append=0))
        row = []
        for start, stop in edges.reshape(-1, 2).tolist():
            own = len(parents)
            parents.append(own)
            boxes.append([y, start, y + 1, stop])
            for first, last, other in above:
                if first <= stop and start <= last:
                    parents[root(other)] = root(own)
            row.append((start, stop, own))
        above = row
    roots = np.array([root(i) for i in range(len(parents))], np.int64)
    every = np.array(boxes, np.int64).reshape(-1, 4)
    joined = [every[roots == r] for r in np.unique(roots)]
    return np.array([[*part[:, :2].min(0), *part[:, 2:].max(0)] for part in joined], np.int64).reshape(-1, 4)
