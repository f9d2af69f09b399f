"""Follow the borders of a raster down its rows: arms that grow, join and end at nodes, arcs that are stored when whole.

A *lattice point* is a corner of pixels. Borders run along the lattice between pixels of different classes. A *node* is
a lattice point where three or four borders meet, or where a border crosses the upper edge of a band (a *seam*). An
*arc* is a border from node to node, or a closed one without node. A *face* is a 4-connected set of pixels of one class;
while a band is traced it may have several *labels*.

    pixels       borders: 6 arcs between 4 nodes        directions
    A A B        +-----o--+                                  0
    A A B        |     |  |      o  node                     |
    C C C        o-----o--o      +  vertex             3 --- + --- 1
    C C C        |        |                                  |
                 +--------+                                  2

The sweep goes line by line from top to bottom, and on every line from west to east. Every border that crosses the
current line is an *arm*: one of the two growing ends of an arc. It knows its last point and its *mate*, the arm at the
arc's other end; the points between them are a linked list.

What the four pixels around a lattice point say of the borders that come from the north and west:

      begin          turn         turn         join         node        go on
    A   A          A | B        A   A        A | B        A | B        A | B
        +---           +---     ---+         ---+         ---o---          |
    A   | B        A   A        B  | A       B   B        C   C        A | B

- begin: two arms, each other's mates, leave to the east and to the south.
- turn: the arm gets a vertex. go on: nothing happens.
- join: the mates of both arms become mates. If both have ended at nodes, the arc is whole and is stored; if the two
  arms are mates themselves, the arc is closed.
- node: the arms from the north and west end, others begin to the east and south.

Directions are numbered clockwise from the north, 0 to 3. Half-edge `2 * arc` runs along the arc, `2 * arc + 1` against
it; each has its face on the left (seen on the image, north up).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glraster.vector.compiled import compiled, inlined, int64

Int32Array = npt.NDArray[np.int32]
Records = npt.NDArray[Any]

NONE, PORT = -1, -2
POINTS, FREE_POINT, FREE_ARM, LABELS, NODES, ARCS, VERTICES, PAIRS = range(8)
"""Places in `Sweep.used`."""


def _record(*names: str) -> np.dtype[Any]:
    return np.dtype([(name, np.int32) for name in names], align=True)


POINT = _record("x", "y", "one", "two")
"""A point of an open arc, with its two neighbours; a free point has the next free one in `one`."""
ARM = _record("end", "mate", "tag")
"""Last point, the arm at the other end of the arc (the next free arm if it is free), and where the arm ended:
`4 * node + direction`, or `PORT - column` on the lower edge of the band; NONE while it grows."""
COLUMN = _record("up", "label", "top")
"""Of a lattice column on the current line: the arm that comes from the north, the label of the pixel to its
south-east, and the node on the upper edge of the band."""
ARC = _record("start", "left", "right", "origin", "target")
"""First vertex, labels on both sides, and the tags of both ends."""
VERTEX = _record("x", "y")
LABEL = np.dtype([("total", np.float64), ("seen", np.int64), ("value", np.int64)], align=True)
"""Sum and number of measured values, and the pixel value."""


class Sweep(NamedTuple):
    """The state of a sweep: arrays that grow between lines, and how much of them is in use.

    `parent` is the tree of labels that turned out to be one, `slots` holds the outgoing half-edge of every node and
    direction, `pairs` labels of one value that touch at a corner, two by two.
    """

    points: Records
    arms: Records
    columns: Records
    labels: Records
    parent: Int32Array
    slots: Int32Array
    arcs: Records
    vertices: Records
    pairs: Int32Array
    used: npt.NDArray[np.int64]


@inlined
def find_root(parent: Int32Array, label: int) -> int:
    """The smallest label of the same face; paths are halved on the way."""
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = int64(parent[label])
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
            unite(parent, int64(one[i]), int64(two[i]))


@inlined
def _new_point(s: Sweep, x: int, y: int) -> int:
    point = s.used[FREE_POINT]
    if point != NONE:
        s.used[FREE_POINT] = s.points[point].one
    else:
        point = s.used[POINTS]
        s.used[POINTS] = point + 1
    p = s.points[point]
    p.x, p.y, p.one, p.two = x, y, NONE, NONE
    return point


@inlined
def _relink(s: Sweep, point: int, new: int) -> None:
    p = s.points[point]
    if p.one == NONE:
        p.one = new
    else:
        p.two = new


@inlined
def _link(s: Sweep, a: int, b: int) -> None:
    _relink(s, a, b)
    _relink(s, b, a)


@inlined
def _new_arms(s: Sweep, point: int, tag: int) -> int:
    """Begin an arc at a point: two mated arms, the first of which has already ended where `tag` says."""
    first = s.used[FREE_ARM]
    a = s.arms[first]
    second = int64(a.mate)
    b = s.arms[second]
    s.used[FREE_ARM] = b.mate
    a.end, a.mate, a.tag = point, second, tag
    b.end, b.mate, b.tag = point, first, NONE
    return second


@inlined
def _free_arms(s: Sweep, first: int, second: int) -> None:
    s.arms[first].mate, s.arms[second].mate = second, s.used[FREE_ARM]
    s.used[FREE_ARM] = first


@inlined
def _grow(s: Sweep, arm: int, x: int, y: int) -> int:
    point = _new_point(s, x, y)
    _link(s, int64(s.arms[arm].end), point)
    s.arms[arm].end = point
    return point


@inlined
def _store(s: Sweep, first: int, second: int, left: int, right: int) -> None:
    """Write out an arc from the end of arm `first` to that of arm `second` and recycle its points and arms."""
    number, n = s.used[ARCS], s.used[VERTICES]
    a, b, arc = s.arms[first], s.arms[second], s.arcs[number]
    arc.start, arc.left, arc.right, arc.origin, arc.target = n, left, right, a.tag, b.tag
    if a.tag >= 0:
        s.slots[a.tag] = 2 * number
    if b.tag >= 0:
        s.slots[b.tag] = 2 * number + 1
    before, point, begin = NONE, a.end, a.end
    while True:
        p = s.points[point]
        s.vertices[n].x, s.vertices[n].y = p.x, p.y
        n += 1
        following = p.one if p.one != before else p.two
        before = point
        p.one, s.used[FREE_POINT] = s.used[FREE_POINT], point
        if following == NONE or following == begin:  # noqa: SIM109 (numba knows no "in" for tuples)
            break
        point = following
    s.used[VERTICES], s.used[ARCS] = n, number + 1
    _free_arms(s, first, second)


@inlined
def end_arm(s: Sweep, arm: int, tag: int, place: tuple[int, int], faces: tuple[int, int]) -> None:
    """End an arm at a node or port; `faces` are left and right of the way back along it."""
    _grow(s, arm, place[0], place[1])
    s.arms[arm].tag = tag
    mate = int64(s.arms[arm].mate)
    if s.arms[mate].tag != NONE:
        _store(s, arm, mate, faces[0], faces[1])


@inlined
def _join(s: Sweep, upper: int, level: int, place: tuple[int, int], faces: tuple[int, int]) -> None:
    """Join two arms at a corner that is open to the north and west; `faces` are those south-east and north-west."""
    point = _grow(s, upper, place[0], place[1])
    _link(s, int64(s.arms[level].end), point)
    one, two = int64(s.arms[upper].mate), int64(s.arms[level].mate)
    if one == level:
        s.arms[level].end = point
        _store(s, upper, level, faces[1], faces[0])
        return
    s.arms[one].mate, s.arms[two].mate = two, one
    _free_arms(s, upper, level)
    if s.arms[one].tag != NONE and s.arms[two].tag != NONE:
        _store(s, one, two, faces[0], faces[1])


@inlined
def _node(
    s: Sweep, column: int, place: tuple[int, int], borders: tuple[bool, ...], faces: tuple[int, ...], level: int
) -> int:
    """End the arms from the north and west and begin those to the east and south.

    Args:
        borders: whether there is one to the north, east, south, west. faces: labels of the pixels around the point,
            clockwise from the north-west. level: the arm from the west.
    """
    node = s.used[NODES]
    s.used[NODES] = node + 1
    for direction in range(4):
        s.slots[4 * node + direction] = NONE
    up = int64(s.columns[column].up)
    if borders[0] and up == PORT:
        s.columns[column].top = node
    elif borders[0]:
        end_arm(s, up, 4 * node, place, (faces[0], faces[1]))
    if borders[3]:
        end_arm(s, level, 4 * node + 3, place, (faces[3], faces[0]))
    s.columns[column].up = NONE
    if borders[2]:
        s.columns[column].up = _new_arms(s, _new_point(s, place[0], place[1]), 4 * node + 2)
    return _new_arms(s, _new_point(s, place[0], place[1]), 4 * node + 1) if borders[1] else NONE


@inlined
def lattice_point(
    s: Sweep, column: int, place: tuple[int, int], borders: tuple[bool, ...], faces: tuple[int, ...], level: int
) -> int:
    """Let the borders at a lattice point go on, turn, begin or end; return the arm that leaves to the east.

    The arguments are those of `_node`.
    """
    north, east, south, west = borders
    degree = north + east + south + west
    up = int64(s.columns[column].up)
    if degree > 2 or (north and up == PORT):
        return _node(s, column, place, borders, faces, level)
    if degree == 0 or north == south:  # straight on: along the column, or along the line
        return level
    if north and west:
        _join(s, up, level, place, (faces[2], faces[0]))
        s.columns[column].up = NONE
        return NONE
    if north:
        _grow(s, up, place[0], place[1])
        s.columns[column].up = NONE
        return up
    if west:
        _grow(s, level, place[0], place[1])
        s.columns[column].up = level
        return NONE
    arm = _new_arms(s, _new_point(s, place[0], place[1]), int64(NONE))
    s.columns[column].up = arm
    return int64(s.arms[arm].mate)


@inlined
def new_label(s: Sweep, value: int) -> int:
    label = s.used[LABELS]
    s.parent[label] = label
    record = s.labels[label]
    record.total, record.seen, record.value = 0.0, 0, value
    s.used[LABELS] = label + 1
    return label


@inlined
def label_south_east(s: Sweep, pixels: tuple[int, ...], labels: tuple[int, ...], diagonal: bool) -> int:
    """The label of the pixel south-east of a lattice point.

    Args:
        pixels: values around the point, clockwise from the north-west. labels: theirs; the third is not read.
        diagonal: note pixels of one value that touch at the point only.
    """
    nw, ne, se, sw = pixels
    if diagonal and nw == se and ne != se and sw != se:
        label = new_label(s, se)
        note_pair(s, labels[0], label)
    elif se == ne:
        label = labels[1]
        if sw == se and nw != se:
            unite(s.parent, label, labels[3])
    elif se == sw:
        label = labels[3]
    else:
        label = new_label(s, se)
    if diagonal and ne == sw and nw != ne and se != ne:
        note_pair(s, labels[1], labels[3])
    return label


@inlined
def note_pair(s: Sweep, one: int, two: int) -> None:
    pair = s.used[PAIRS]
    s.pairs[2 * pair], s.pairs[2 * pair + 1] = one, two
    s.used[PAIRS] = pair + 1
