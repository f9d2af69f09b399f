"""Follow the borders of a raster down its rows: arms that grow, join and end at nodes, arcs that are stored when whole.

A *lattice point* is a corner of pixels. Borders run along the lattice between pixels of different classes. A *node* is
a lattice point where three or four borders meet, or where a border crosses the upper edge of a band (a *seam*). An
*arc* is a border from node to node, or a closed one without node. A *face* is a 4-connected set of pixels of one class;
while a band is traced it may have several *labels*.

The sweep goes line by line from top to bottom. Every border that crosses the current line is an *arm*: one of the two
growing ends of an arc. Directions are numbered clockwise from the north, 0 to 3. Half-edge `2 * arc` runs along the
arc, `2 * arc + 1` against it; each has its face on the left (seen on the image, north up).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glraster.vector.compiled import compiled, inlined

Int32Array = npt.NDArray[np.int32]

NONE, PORT = -1, -2
POINTS, SPARE_POINT, SPARE_ARMS, LABELS, NODES, ARCS, VERTICES, PAIRS = range(8)
"""Places in `Sweep.used`."""


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


@inlined
def _new_point(s: Sweep, x: int, y: int) -> int:
    point = s.used[SPARE_POINT]
    if point != NONE:
        s.used[SPARE_POINT] = s.one[point]
    else:
        point = s.used[POINTS]
        s.used[POINTS] = point + 1
    s.x[point], s.y[point], s.one[point], s.two[point] = x, y, NONE, NONE
    return int(point)


@inlined
def relink(one: Int32Array, two: Int32Array, point: int, old: int, new: int) -> None:
    """Let `new` take the place of `old` as one of the two neighbours of a point."""
    if one[point] == old:
        one[point] = new
    else:
        two[point] = new


@inlined
def _link(s: Sweep, a: int, b: int) -> None:
    relink(s.one, s.two, a, NONE, b)
    relink(s.one, s.two, b, NONE, a)


@inlined
def _new_arms(s: Sweep, point: int, tag: int) -> int:
    """Begin an arc at a point: two mated arms, the first of which has already ended where `tag` says."""
    spare = s.used[SPARE_ARMS]
    first, second = s.spare[spare - 1], s.spare[spare - 2]
    s.used[SPARE_ARMS] = spare - 2
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
    arc, n = s.used[ARCS], s.used[VERTICES]
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
        s.one[point], s.used[SPARE_POINT] = s.used[SPARE_POINT], point
        if following == NONE or following == begin:  # noqa: SIM109 (numba knows no "in" for tuples)
            break
        point = following
    s.used[VERTICES], s.used[ARCS] = n, arc + 1
    spare = s.used[SPARE_ARMS]
    s.spare[spare], s.spare[spare + 1] = first, second
    s.used[SPARE_ARMS] = spare + 2


@inlined
def end_arm(s: Sweep, arm: int, tag: int, place: tuple[int, int], faces: tuple[int, int]) -> None:
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
    spare = s.used[SPARE_ARMS]
    s.spare[spare], s.spare[spare + 1] = upper, level
    s.used[SPARE_ARMS] = spare + 2
    if s.tag[one] != NONE and s.tag[two] != NONE:
        _store(s, one, two, faces)


@inlined
def _node(
    s: Sweep, column: int, place: tuple[int, int], borders: tuple[bool, ...], faces: tuple[int, ...], level: int
) -> int:
    """End the arms from the north and west and begin those to the east and south."""
    node = s.used[NODES]
    s.used[NODES] = node + 1
    s.slots[4 * node : 4 * node + 4] = NONE
    if borders[0] and s.up[column] == PORT:
        s.top[column] = node
    elif borders[0]:
        end_arm(s, s.up[column], 4 * node, place, (faces[0], faces[1]))
    if borders[3]:
        end_arm(s, level, 4 * node + 3, place, (faces[3], faces[0]))
    s.up[column] = NONE
    if borders[2]:
        s.up[column] = _new_arms(s, _new_point(s, place[0], place[1]), 4 * node + 2)
    return _new_arms(s, _new_point(s, place[0], place[1]), 4 * node + 1) if borders[1] else NONE


@inlined
def lattice_point(
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
def new_label(s: Sweep, value: int) -> int:
    label = s.used[LABELS]
    s.parent[label] = label
    s.value[label] = value
    s.total[label], s.seen[label] = 0.0, 0
    s.used[LABELS] = label + 1
    return int(label)


@inlined
def label_south_east(s: Sweep, pixels: tuple[int, ...], known: tuple[int, ...], diagonal: bool) -> int:
    """The label of the pixel south-east of a lattice point, whose three neighbours are known."""
    nw, ne, se, sw = pixels
    if diagonal and nw == se and ne != se and sw != se:
        label = new_label(s, se)
        note_pair(s, known[0], label)
    elif se == ne:
        label = known[1]
        if sw == se and nw != se:
            unite(s.parent, label, known[3])
    elif se == sw:
        label = known[3]
    else:
        label = new_label(s, se)
    if diagonal and ne == sw and nw != ne and se != ne:
        note_pair(s, known[1], known[3])
    return label


@inlined
def note_pair(s: Sweep, one: int, two: int) -> None:
    pair = s.used[PAIRS]
    s.pairs[2 * pair], s.pairs[2 * pair + 1] = one, two
    s.used[PAIRS] = pair + 1
