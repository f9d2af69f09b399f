"""Trace the borders between the classes of one band of rows: arcs, the nodes where they meet, the labels beside them.

The terms are those of `glraster.vector.arcs`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glraster.vector.arcs import (
    ARCS,
    LABELS,
    NODES,
    NONE,
    PAIRS,
    POINTS,
    PORT,
    SPARE_ARMS,
    SPARE_POINT,
    VERTICES,
    Int32Array,
    Sweep,
    end_arm,
    label_south_east,
    lattice_point,
    new_label,
)
from glraster.vector.compiled import compiled, inlined


class Band(NamedTuple):
    """The borders of one band of rows, all numbers local to it.

    Attributes:
        vx, vy: lattice columns and rows of all vertices, arc after arc, both ends included (a closed arc's first
            vertex is not repeated).
        level: how far corners are rounded, see `simplify.round_levels`.
        start: (arcs + 1,) where every arc's vertices begin.
        left, right: (arcs,) labels beside every arc.
        origin, target: (arcs,) `4 * node + direction` of the ends; NONE where closed, `PORT - column` at the lower
            edge.
        slots: (nodes, 4) outgoing half-edge in every direction, NONE where there is no border or it is another
            band's.
        top: (columns,) node on the band's upper edge where a border crosses it, NONE elsewhere.
        value: (labels,) pixel value of every label.
        above, below: (columns,) labels of the row above the band and of its last row.
        pairs: (n, 2) labels of one value that touch at a corner.
        total, seen: (labels,) sum and number of the measured values on the label's pixels in this band.
        first_row: the band's first row in the raster. rows: how many it has.
    """

    vx: Int32Array
    vy: Int32Array
    level: npt.NDArray[np.uint8]
    start: Int32Array
    left: Int32Array
    right: Int32Array
    origin: Int32Array
    target: Int32Array
    slots: Int32Array
    top: Int32Array
    value: Int32Array
    above: Int32Array
    below: Int32Array
    pairs: Int32Array
    total: npt.NDArray[np.float64]
    seen: npt.NDArray[np.int64]
    first_row: int
    rows: int


@inlined
def _line(s: Sweep, rows: tuple[Any, Any, Any, Any], place: tuple[int, int], first: bool, diagonal: bool) -> None:
    """Sweep along the lattice line between two rows of pixels.

    Args:
        rows: the row above and the row below, both also as 64-bit words: words that agree are passed over.
        place: lattice column and row of the line's first point.
    """
    upper, lower, upper_words, lower_words = rows
    per_word = len(upper) // len(upper_words)
    level, was_west, old_label = NONE, False, s.label[0]
    c = 1
    while c < len(lower):
        if not (was_west or first) and upper[c] == lower[c]:
            if c % per_word == 0:
                word = c // per_word
                while word < len(upper_words) and upper_words[word] == lower_words[word]:
                    word += 1
                c = max(c + 1, word * per_word)
            else:
                c += 1
            continue
        nw, ne, se, sw = upper[c - 1], upper[c], lower[c], lower[c - 1]
        if was_west and nw == ne and se == sw and not first:
            old_label, s.label[c] = s.label[c], s.label[c - 1]
            c += 1
            continue
        north_west = old_label if was_west else s.label[c - 1]
        known = (int(north_west), int(s.label[c]), NONE, int(s.label[c - 1]))
        old_label = s.label[c]
        label = label_south_east(s, (int(nw), int(ne), int(se), int(sw)), known, diagonal)
        s.label[c] = label
        borders = (nw != ne, ne != se, se != sw, sw != nw)
        at = (place[0] + c, place[1])
        level = lattice_point(s, c, at, borders, (known[0], known[1], int(label), known[3]), level)
        was_west = borders[1]
        c += 1


@inlined
def _has_room(s: Sweep, columns: int) -> bool:
    used = s.used
    most = 4 * columns
    return bool(
        used[POINTS] + most <= len(s.x)
        and used[LABELS] + columns <= len(s.parent)
        and 4 * (used[NODES] + columns) <= len(s.slots)
        and used[ARCS] + 2 * columns <= len(s.start)
        and used[VERTICES] + used[POINTS] + most <= len(s.vx)
        and 2 * (used[PAIRS] + 2 * columns) <= len(s.pairs)
    )


@compiled
def _begin(s: Sweep, halo: Any) -> None:
    """Label the row above the band, and open a port wherever a border crosses its lower edge."""
    label = new_label(s, halo[0])
    s.label[0] = label
    for c in range(1, len(halo)):
        if halo[c] != halo[c - 1]:
            label = new_label(s, halo[c])
            s.up[c] = PORT
        s.label[c] = label


@inlined
def _add_measured(s: Sweep, row: Any) -> None:
    for c in range(len(row)):
        if not math.isnan(row[c]):
            s.total[s.label[c]] += row[c]
            s.seen[s.label[c]] += 1


@compiled
def _sweep(s: Sweep, grids: tuple[Any, Any, Any], line: int, place: tuple[int, int], diagonal: bool) -> int:
    """Sweep from a line on until the last one or until an array could run out of room; return the next line."""
    pixels, words, measured = grids
    while line < len(pixels) and _has_room(s, pixels.shape[1]):
        rows = (pixels[line - 1], pixels[line], words[line - 1], words[line])
        _line(s, rows, (place[0], place[1] + line), line == 1, diagonal)
        if len(measured):
            _add_measured(s, measured[line])
        line += 1
    return line


@compiled
def _finish(s: Sweep, place: tuple[int, int]) -> None:
    """End the borders that cross the band's lower edge, and number the labels anew without gaps."""
    for c in range(1, len(s.up)):
        if s.up[c] >= 0:
            end_arm(s, s.up[c], PORT - c, (place[0] + c, place[1]), (int(s.label[c - 1]), int(s.label[c])))
    count = 0
    for i in range(s.used[LABELS]):
        root = s.parent[i]
        if root == i:
            s.parent[i] = -1 - count
            s.value[count], s.total[count], s.seen[count] = s.value[i], s.total[i], s.seen[i]
            count += 1
        else:
            while s.parent[root] >= 0:
                root = s.parent[root]
            s.parent[i] = s.parent[root]
            s.total[-1 - s.parent[root]] += s.total[i]
            s.seen[-1 - s.parent[root]] += s.seen[i]
    s.used[LABELS] = count


def trace(
    pixels: npt.NDArray[Any],
    first_row: int,
    first_column: int,
    diagonal: bool = False,
    measured: npt.NDArray[np.float32] | None = None,
) -> Band:
    """Trace the borders of a band of rows.

    Args:
        pixels: (1 + rows, columns) class values: the row above the band, then the band; its first and last column lie
            outside the raster and hold one value that stands for "no class". C-contiguous uint8 or int32, with rows
            of whole 64-bit words.
        first_row: where the band begins in the raster.
        first_column: lattice column of the pixels' left edge.
        diagonal: also list labels of one value that touch at a corner.
        measured: values of the same shape, NaN where there is none, to be summed up by label.

    Returns:
        The band's borders. Memory: proportional to their vertices.
    """
    columns = pixels.shape[1]
    grids = (pixels, pixels.view(np.uint64), np.empty((0, 0), np.float32) if measured is None else measured)
    s = _empty(columns, pixels.shape[0])
    _begin(s, pixels[0])
    above = s.label.copy()
    line, place = 1, (first_column, first_row - 1)
    while (line := _sweep(s, grids, line, place, diagonal)) < len(pixels):
        s = _with_room(s, columns)
    s = _with_room(s, columns)
    _finish(s, (first_column, first_row + len(pixels) - 1))
    return _result(s, above, first_row, len(pixels) - 1)


def _empty(columns: int, rows: int) -> Sweep:
    def full(size: int, value: int = NONE) -> Int32Array:
        return np.full(size, value, np.int32)

    guess = columns * rows // 32
    arms = 4 * columns + 16
    used = np.zeros(8, np.int64)
    used[SPARE_POINT], used[SPARE_ARMS] = NONE, arms
    empty = np.empty
    arrays: tuple[Any, ...] = (
        *(empty(8 * columns, np.int32) for _ in range(4)),
        *(empty(arms, np.int32) for _ in range(3)),
        np.arange(arms, dtype=np.int32),
        *(full(columns) for _ in range(3)),
        *(empty(3 * columns + guess // 8, np.int32) for _ in range(2)),
        empty(8 * columns + guess, np.int32),
        *(empty(3 * columns + guess // 4, np.int32) for _ in range(5)),
        *(empty(16 * columns + guess, np.int32) for _ in range(2)),
        empty(8 * columns, np.int32),
        np.empty(3 * columns + guess // 8),
        np.empty(3 * columns + guess // 8, np.int64),
        used,
    )
    return Sweep(*arrays)


def _with_room(s: Sweep, columns: int) -> Sweep:
    """The same sweep, with room for a line in every array."""
    needs = {
        ("x", "y", "one", "two"): s.used[POINTS] + 4 * columns,
        ("parent", "value", "total", "seen"): s.used[LABELS] + columns,
        ("slots",): 4 * (s.used[NODES] + columns),
        ("start", "left", "right", "origin", "target"): s.used[ARCS] + 2 * columns,
        ("vx", "vy"): s.used[VERTICES] + s.used[POINTS] + 4 * columns,
        ("pairs",): 2 * (s.used[PAIRS] + 2 * columns),
    }
    larger = {}
    for names, need in needs.items():
        for name in names:
            array = getattr(s, name)
            if len(array) < need:
                larger[name] = np.empty(need + len(array), array.dtype)
                larger[name][: len(array)] = array
    return s._replace(**larger)


def _result(s: Sweep, above: Int32Array, first_row: int, rows: int) -> Band:
    arcs, vertices, nodes = s.used[ARCS], s.used[VERTICES], s.used[NODES]
    number = -1 - s.parent

    def labels(array: Int32Array) -> Int32Array:
        return number[array]

    return Band(
        vx=s.vx[:vertices].copy(),
        vy=s.vy[:vertices].copy(),
        level=np.zeros(vertices, np.uint8),
        start=np.append(s.start[:arcs], np.int32(vertices)),
        left=labels(s.left[:arcs]),
        right=labels(s.right[:arcs]),
        origin=s.origin[:arcs].copy(),
        target=s.target[:arcs].copy(),
        slots=s.slots[: 4 * nodes].reshape(-1, 4).copy(),
        top=s.top,
        value=s.value[: s.used[LABELS]].copy(),
        above=labels(above),
        below=labels(s.label),
        pairs=labels(s.pairs[: 2 * s.used[PAIRS]]).reshape(-1, 2),
        total=s.total[: s.used[LABELS]].copy(),
        seen=s.seen[: s.used[LABELS]].copy(),
        first_row=first_row,
        rows=rows,
    )
