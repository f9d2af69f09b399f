"""Trace the borders between the classes of one band of rows: arcs, the nodes where they meet, the labels beside them.

The terms are those of `glraster.vector.arcs`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glraster.vector.arcs import (
    ARC,
    ARCS,
    ARM,
    COLUMN,
    FREE_ARM,
    FREE_POINT,
    LABEL,
    LABELS,
    NODES,
    NONE,
    PAIRS,
    POINT,
    POINTS,
    PORT,
    VERTEX,
    VERTICES,
    Int32Array,
    Sweep,
    end_arm,
    label_south_east,
    lattice_point,
    new_label,
)
from glraster.vector.compiled import compiled, inlined, int64


class Band(NamedTuple):
    """The borders of one band of rows, all numbers local to it.

    Attributes:
        vx, vy: lattice columns and rows of all vertices, arc after arc, both ends included (a closed arc's first
            vertex is not repeated).
        level: how far corners are rounded, see `simplify.round_levels`.
        start: (arcs + 1,) where every arc's vertices begin.
        left, right: (arcs,) labels beside every arc.
        origin, target: (arcs,) `4 * node + direction` of the ends; NONE if closed, `PORT - column` at the lower
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

    Nearly all pixels have the value of the pixel above them. Something happens only where the rows differ, and at the
    point after that, where the border along the line ends:

        upper  A A A A A A A A | A A A A A A A A | A A A B B B B B
        lower  A A A A A A A A | A A B B B A A A | A A A B B B B B      | words of eight pixels
                    passed over      ^     ^           passed over

    The label of a column changes as the sweep passes it: to its east the labels are still those of the row above.

    Args:
        rows: the row above and the row below, both also as 64-bit words.
        place: lattice column and row of the line's first point.
        first: whether the row above is another band's: then every border that crosses the line gets a node.
    """
    upper, lower, upper_words, lower_words = rows
    per_word = len(upper) // len(upper_words)
    columns = s.columns
    level, was_west, old_label = int64(NONE), False, columns[0].label
    c = int64(1)
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
        west, north = columns[c - 1].label, columns[c].label
        if was_west and nw == ne and se == sw and not first:  # along a border
            old_label, columns[c].label = north, west
            c += 1
            continue
        around = (int64(old_label if was_west else west), int64(north), int64(NONE), int64(west))
        old_label = north
        label = label_south_east(s, (int64(nw), int64(ne), int64(se), int64(sw)), around, diagonal)
        columns[c].label = label
        borders = (nw != ne, ne != se, se != sw, sw != nw)
        at = (place[0] + c, place[1])
        level = lattice_point(s, c, at, borders, (around[0], around[1], label, around[3]), level)
        was_west = borders[1]
        c += 1


@inlined
def _has_room(s: Sweep, columns: int) -> bool:
    used = s.used
    most = 4 * columns
    return bool(
        used[POINTS] + most <= len(s.points)
        and used[LABELS] + columns <= len(s.labels)
        and 4 * (used[NODES] + columns) <= len(s.slots)
        and used[ARCS] + 2 * columns <= len(s.arcs)
        and used[VERTICES] + used[POINTS] + most <= len(s.vertices)
        and 2 * (used[PAIRS] + 2 * columns) <= len(s.pairs)
    )


@compiled
def _begin(s: Sweep, halo: Any) -> None:
    """Label the row above the band, and open a port wherever a border crosses its lower edge."""
    label = new_label(s, int64(halo[0]))
    s.columns[0].label = label
    for c in range(1, len(halo)):
        if halo[c] != halo[c - 1]:
            label = new_label(s, int64(halo[c]))
            s.columns[c].up = PORT
        s.columns[c].label = label


@inlined
def _add_measured(s: Sweep, row: Any) -> None:
    for c in range(len(row)):
        if not math.isnan(row[c]):
            label = s.labels[s.columns[c].label]
            label.total += row[c]
            label.seen += 1


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
    for c in range(1, len(s.columns)):
        up = int64(s.columns[c].up)
        if up >= 0:
            faces = int64(s.columns[c - 1].label), int64(s.columns[c].label)
            end_arm(s, up, PORT - c, (place[0] + c, place[1]), faces)
    count = 0
    for i in range(s.used[LABELS]):
        root = s.parent[i]
        if root == i:
            s.parent[i] = -1 - count
            to, source = s.labels[count], s.labels[i]
            to.value, to.total, to.seen = source.value, source.total, source.seen
            count += 1
        else:
            while s.parent[root] >= 0:
                root = s.parent[root]
            s.parent[i] = s.parent[root]
            to, source = s.labels[-1 - s.parent[root]], s.labels[i]
            to.total += source.total
            to.seen += source.seen
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
        measured: values of the same shape, NaN where there is none, to be summed by label.

    Returns:
        The band's borders. Memory: proportional to their vertices.
    """
    columns = pixels.shape[1]
    grids = (pixels, pixels.view(np.uint64), np.empty((0, 0), np.float32) if measured is None else measured)
    s = _empty(columns, pixels.shape[0])
    _begin(s, pixels[0])
    above = s.columns["label"].copy()
    line, place = 1, (first_column, first_row - 1)
    while (line := _sweep(s, grids, line, place, diagonal)) < len(pixels):
        s = _with_room(s, columns)
    s = _with_room(s, columns)
    _finish(s, (first_column, first_row + len(pixels) - 1))
    return _result(s, above, first_row, len(pixels) - 1)


def _empty(columns: int, rows: int) -> Sweep:
    guess = columns * rows // 32
    used = np.zeros(8, np.int64)
    used[FREE_POINT], used[FREE_ARM] = NONE, 0
    arms, across = np.empty(4 * columns + 16, ARM), np.empty(columns, COLUMN)
    arms["mate"] = np.arange(1, len(arms) + 1)
    for name in COLUMN.names or ():
        across[name] = NONE
    return Sweep(
        points=np.empty(8 * columns, POINT),
        arms=arms,
        columns=across,
        labels=np.empty(3 * columns + guess // 8, LABEL),
        parent=np.empty(3 * columns + guess // 8, np.int32),
        slots=np.empty(8 * columns + guess, np.int32),
        arcs=np.empty(3 * columns + guess // 4, ARC),
        vertices=np.empty(16 * columns + guess, VERTEX),
        pairs=np.empty(8 * columns, np.int32),
        used=used,
    )


def _with_room(s: Sweep, columns: int) -> Sweep:
    """The same sweep, with room for a line in every array."""
    needs = {
        "points": s.used[POINTS] + 4 * columns,
        "labels": s.used[LABELS] + columns,
        "parent": s.used[LABELS] + columns,
        "slots": 4 * (s.used[NODES] + columns),
        "arcs": s.used[ARCS] + 2 * columns,
        "vertices": s.used[VERTICES] + s.used[POINTS] + 4 * columns,
        "pairs": 2 * (s.used[PAIRS] + 2 * columns),
    }
    larger = {}
    for name, need in needs.items():
        array = getattr(s, name)
        if len(array) < need:
            larger[name] = np.empty(need + len(array), array.dtype)
            larger[name][: len(array)] = array
    return s._replace(**larger)


def _result(s: Sweep, above: Int32Array, first_row: int, rows: int) -> Band:
    arcs, nodes = s.arcs[: s.used[ARCS]], s.used[NODES]
    vertices, labels = s.vertices[: s.used[VERTICES]], s.labels[: s.used[LABELS]]
    number = -1 - s.parent
    return Band(
        vx=vertices["x"].copy(),
        vy=vertices["y"].copy(),
        level=np.zeros(len(vertices), np.uint8),
        start=np.append(arcs["start"], np.int32(len(vertices))),
        left=number[arcs["left"]],
        right=number[arcs["right"]],
        origin=arcs["origin"].copy(),
        target=arcs["target"].copy(),
        slots=s.slots[: 4 * nodes].reshape(-1, 4).copy(),
        top=s.columns["top"].copy(),
        value=labels["value"].astype(np.int32),
        above=number[above],
        below=number[s.columns["label"]],
        pairs=number[s.pairs[: 2 * s.used[PAIRS]]].reshape(-1, 2),
        total=labels["total"].copy(),
        seen=labels["seen"].copy(),
        first_row=first_row,
        rows=rows,
    )
