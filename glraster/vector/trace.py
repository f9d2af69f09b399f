"""Trace the borders between the classes of one band of rows: arcs, the nodes where they meet, the labels beside them.

A *lattice point* is a corner of pixels. Borders run along the lattice between pixels of different classes. A *node* is
a lattice point where three or four borders meet, or where a border crosses the upper edge of a band (a *seam*). An
*arc* is a border from node to node, or a closed one without node. A *face* is a 4-connected set of pixels of one class;
while a band is traced it may have several *labels*.

The sweep goes line by line from top to bottom. Every border that crosses the current line is an *arm*: one of the two
growing ends of an arc. Directions are numbered clockwise from the north, 0 to 3. Half-edge `2 * arc` runs along the
arc, `2 * arc + 1` against it; each has its face on the left (seen on the image, north up).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glraster.vector.compiled import compiled, inlined

Int32Array = npt.NDArray[np.int32]

NONE, PORT = -1, -2
_POINTS, _SPARE_POINT, _SPARE_ARMS, _LABELS, _NODES, _ARCS, _VERTICES, _PAIRS = range(8)


class Sweep(NamedTuple):
    """The state of a sweep: arrays that grow between lines, and how much of them is in use.

    Points of open arcs are a linked list (`x`, `y`, two neighbours). `end`, `mate`, `tag` say for every arm its last
    point, the arm at the arc's other end, and where it ended (`4 * node + direction`, or `PORT - column` at the lower
    edge of the band; NONE while it grows). `up` is the arm and `label` the face of every column on the current line.
    """

    x: Int32Array
    y: Int32Array
    one: Int32Array
    two: Int32Array
    end: Int32Array
    mate: Int32Array
    tag: Int32Array
    spare: Int32Array
    up: Int32Array
    label: Int32Array
    top: Int32Array
    parent: Int32Array
    value: Int32Array
    slots: Int32Array
    start: Int32Array
    left: Int32Array
    right: Int32Array
    origin: Int32Array
    target: Int32Array
    vx: Int32Array
    vy: Int32Array
    pairs: Int32Array
    total: npt.NDArray[np.float64]
    seen: npt.NDArray[np.int64]
    used: npt.NDArray[np.int64]


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
def find_root(parent: Int32Array, label: int) -> int:
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label


@inlined
def unite(parent: Int32Array, one: int, two: int) -> None:
    one, two = find_root(parent, one), find_root(parent, two)
    if one < two:
        parent[two] = one
    elif two < one:
        parent[one] = two


@compiled
def join_labels(parent: Int32Array, one: Int32Array, two: Int32Array) -> None:
    """Note that labels stand for the same face, pair by pair. Parents always have the smaller number."""
    for i in range(len(one)):
        if i == 0 or one[i] != one[i - 1] or two[i] != two[i - 1]:
            unite(parent, one[i], two[i])


@inlined
def _new_label(s: Sweep, value: int) -> int:
    label = s.used[_LABELS]
    s.parent[label] = label
    s.value[label] = value
    s.total[label], s.seen[label] = 0.0, 0
    s.used[_LABELS] = label + 1
    return int(label)


@inlined
def _new_point(s: Sweep, x: int, y: int) -> int:
    point = s.used[_SPARE_POINT]
    if point != NONE:
        s.used[_SPARE_POINT] = s.one[point]
    else:
        point = s.used[_POINTS]
        s.used[_POINTS] = point + 1
    s.x[point], s.y[point], s.one[point], s.two[point] = x, y, NONE, NONE
    return int(point)


@inlined
def _link(s: Sweep, one: int, two: int) -> None:
    if s.one[one] == NONE:
        s.one[one] = two
    else:
        s.two[one] = two
    if s.one[two] == NONE:
        s.one[two] = one
    else:
        s.two[two] = one


@inlined
def _new_arms(s: Sweep, point: int, tag: int) -> int:
    """Begin an arc at a point: two mated arms, the first of which has already ended where `tag` says."""
    spare = s.used[_SPARE_ARMS]
    first, second = s.spare[spare - 1], s.spare[spare - 2]
    s.used[_SPARE_ARMS] = spare - 2
    s.end[first], s.mate[first], s.tag[first] = point, second, tag
    s.end[second], s.mate[second], s.tag[second] = point, first, NONE
    return int(second)


@inlined
def _grow(s: Sweep, arm: int, x: int, y: int) -> int:
    point = _new_point(s, x, y)
    _link(s, s.end[arm], point)
    s.end[arm] = point
    return point


@inlined
def _store(s: Sweep, first: int, second: int, faces: tuple[int, int]) -> None:
    """Write out an arc from the end of arm `first` to that of arm `second` and recycle its points and arms."""
    arc, n = s.used[_ARCS], s.used[_VERTICES]
    s.start[arc], s.left[arc], s.right[arc] = n, faces[0], faces[1]
    s.origin[arc], s.target[arc] = s.tag[first], s.tag[second]
    if s.tag[first] >= 0:
        s.slots[s.tag[first]] = 2 * arc
    if s.tag[second] >= 0:
        s.slots[s.tag[second]] = 2 * arc + 1
    before, point, begin = NONE, s.end[first], s.end[first]
    while True:
        s.vx[n], s.vy[n] = s.x[point], s.y[point]
        n += 1
        following = s.one[point] if s.one[point] != before else s.two[point]
        before = point
        s.one[point], s.used[_SPARE_POINT] = s.used[_SPARE_POINT], point
        if following == NONE or following == begin:  # noqa: SIM109 (numba knows no "in" for tuples)
            break
        point = following
    s.used[_VERTICES], s.used[_ARCS] = n, arc + 1
    spare = s.used[_SPARE_ARMS]
    s.spare[spare], s.spare[spare + 1] = first, second
    s.used[_SPARE_ARMS] = spare + 2


@inlined
def _end_arm(s: Sweep, arm: int, tag: int, place: tuple[int, int], faces: tuple[int, int]) -> None:
    """End an arm at a node or port; `faces` are left and right of the way back along it."""
    _grow(s, arm, place[0], place[1])
    s.tag[arm] = tag
    if s.tag[s.mate[arm]] != NONE:
        _store(s, arm, s.mate[arm], faces)


@inlined
def _join(s: Sweep, upper: int, level: int, place: tuple[int, int], faces: tuple[int, int]) -> None:
    """Join two arms at a corner that is open to the north and west; `faces` are those south-east and north-west."""
    point = _grow(s, upper, place[0], place[1])
    if s.mate[upper] == level:
        _link(s, s.end[level], point)
        s.end[level] = point
        _store(s, upper, level, (faces[1], faces[0]))
        return
    _link(s, s.end[level], point)
    one, two = s.mate[upper], s.mate[level]
    s.mate[one], s.mate[two] = two, one
    spare = s.used[_SPARE_ARMS]
    s.spare[spare], s.spare[spare + 1] = upper, level
    s.used[_SPARE_ARMS] = spare + 2
    if s.tag[one] != NONE and s.tag[two] != NONE:
        _store(s, one, two, faces)


@inlined
def _node(
    s: Sweep, column: int, place: tuple[int, int], borders: tuple[bool, ...], faces: tuple[int, ...], level: int
) -> int:
    """End the arms from the north and west and begin those to the east and south."""
    node = s.used[_NODES]
    s.used[_NODES] = node + 1
    s.slots[4 * node : 4 * node + 4] = NONE
    if borders[0] and s.up[column] == PORT:
        s.top[column] = node
    elif borders[0]:
        _end_arm(s, s.up[column], 4 * node, place, (faces[0], faces[1]))
    if borders[3]:
        _end_arm(s, level, 4 * node + 3, place, (faces[3], faces[0]))
    s.up[column] = NONE
    if borders[2]:
        s.up[column] = _new_arms(s, _new_point(s, place[0], place[1]), 4 * node + 2)
    return _new_arms(s, _new_point(s, place[0], place[1]), 4 * node + 1) if borders[1] else NONE


@inlined
def _lattice_point(
    s: Sweep, column: int, place: tuple[int, int], borders: tuple[bool, ...], faces: tuple[int, ...], level: int
) -> int:
    """Let the borders at a lattice point go on, turn, begin or end; return the arm that leaves to the east."""
    north, east, south, west = borders
    degree = int(north) + int(east) + int(south) + int(west)
    if degree > 2 or (north and s.up[column] == PORT):
        return _node(s, column, place, borders, faces, level)
    if degree == 0 or north == south:
        return level
    if north and west:
        _join(s, s.up[column], level, place, (faces[2], faces[0]))
        s.up[column] = NONE
        return NONE
    if north:
        arm = s.up[column]
        _grow(s, arm, place[0], place[1])
        s.up[column] = NONE
        return int(arm)
    if west:
        _grow(s, level, place[0], place[1])
        s.up[column] = level
        return NONE
    point = _new_point(s, place[0], place[1])
    arm = _new_arms(s, point, NONE)
    s.up[column] = arm
    return int(s.mate[arm])


@inlined
def _label_south_east(s: Sweep, pixels: tuple[int, ...], known: tuple[int, ...], diagonal: bool) -> int:
    """The label of the pixel south-east of a lattice point, whose three neighbours are known."""
    nw, ne, se, sw = pixels
    if diagonal and nw == se and ne != se and sw != se:
        label = _new_label(s, se)
        _note_pair(s, known[0], label)
    elif se == ne:
        label = known[1]
        if sw == se and nw != se:
            unite(s.parent, label, known[3])
    elif se == sw:
        label = known[3]
    else:
        label = _new_label(s, se)
    if diagonal and ne == sw and nw != ne and se != ne:
        _note_pair(s, known[1], known[3])
    return label


@inlined
def _note_pair(s: Sweep, one: int, two: int) -> None:
    pair = s.used[_PAIRS]
    s.pairs[2 * pair], s.pairs[2 * pair + 1] = one, two
    s.used[_PAIRS] = pair + 1


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
        label = _label_south_east(s, (int(nw), int(ne), int(se), int(sw)), known, diagonal)
        s.label[c] = label
        borders = (nw != ne, ne != se, se != sw, sw != nw)
        at = (place[0] + c, place[1])
        level = _lattice_point(s, c, at, borders, (known[0], known[1], int(label), known[3]), level)
        was_west = borders[1]
        c += 1


@inlined
def _has_room(s: Sweep, columns: int) -> bool:
    used = s.used
    most = 4 * columns
    return bool(
        used[_POINTS] + most <= len(s.x)
        and used[_LABELS] + columns <= len(s.parent)
        and 4 * (used[_NODES] + columns) <= len(s.slots)
        and used[_ARCS] + 2 * columns <= len(s.start)
        and used[_VERTICES] + used[_POINTS] + most <= len(s.vx)
        and 2 * (used[_PAIRS] + 2 * columns) <= len(s.pairs)
    )


@compiled
def _begin(s: Sweep, halo: Any) -> None:
    """Label the row above the band, and open a port wherever a border crosses its lower edge."""
    label = _new_label(s, halo[0])
    s.label[0] = label
    for c in range(1, len(halo)):
        if halo[c] != halo[c - 1]:
            label = _new_label(s, halo[c])
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
            _end_arm(s, s.up[c], PORT - c, (place[0] + c, place[1]), (int(s.label[c - 1]), int(s.label[c])))
    count = 0
    for i in range(s.used[_LABELS]):
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
    s.used[_LABELS] = count


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
    used[_SPARE_POINT], used[_SPARE_ARMS] = NONE, arms
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
        ("x", "y", "one", "two"): s.used[_POINTS] + 4 * columns,
        ("parent", "value", "total", "seen"): s.used[_LABELS] + columns,
        ("slots",): 4 * (s.used[_NODES] + columns),
        ("start", "left", "right", "origin", "target"): s.used[_ARCS] + 2 * columns,
        ("vx", "vy"): s.used[_VERTICES] + s.used[_POINTS] + 4 * columns,
        ("pairs",): 2 * (s.used[_PAIRS] + 2 * columns),
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
    arcs, vertices, nodes = s.used[_ARCS], s.used[_VERTICES], s.used[_NODES]
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
        value=s.value[: s.used[_LABELS]].copy(),
        above=labels(above),
        below=labels(s.label),
        pairs=labels(s.pairs[: 2 * s.used[_PAIRS]]).reshape(-1, 2),
        total=s.total[: s.used[_LABELS]].copy(),
        seen=s.seen[: s.used[_LABELS]].copy(),
        first_row=first_row,
        rows=rows,
    )
