"""Cut and round the corners of chains of vertices if no other vertex is in the way.

A corner `v` with the neighbours `a` and `b` is cut to the segment a-b if the triangle is empty:

    a                   a                     x, a vertex of another border or of the same, inside the triangle
    |`.                 |  `.                 or on its edge: its own border leads through a-b, and the cut
    |  `.               |  x  `.              would let the two cross. So v stays.
    v----b   may go     v--------b   stays

If the triangle is empty, no border passes through it: a border without vertex inside would have to cross a-v or v-b,
which borders do not do before the cut either. So crossings cannot arise, whatever the order of cuts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glraster.vector.arcs import NONE, Int32Array
from glraster.vector.compiled import compiled, inlined, int64

BoolArray = npt.NDArray[np.bool_]

CELL_PX = 8
_LEVELS = 3


class Chains(NamedTuple):
    """Vertices `x`, `y` with two neighbours each (NONE at the end of a chain), in cells of `CELL_PX` pixels.

    `free` ones may be cut, `alive` ones still exist. The vertices of cell i are `items[cells[i] : cells[i + 1]]`; cells
    go row by row inside `frame`: top, bottom, left, right, cells in a row. `heap_area` and `heap_vertex` are room to
    sort corners by area.
    """

    x: Int32Array
    y: Int32Array
    one: Int32Array
    two: Int32Array
    free: BoolArray
    alive: BoolArray
    cells: Int32Array
    items: Int32Array
    frame: Int32Array
    heap_area: npt.NDArray[np.int64]
    heap_vertex: Int32Array


def chains(x: Int32Array, y: Int32Array, links: tuple[Int32Array, Int32Array], free: BoolArray, frame: Any) -> Chains:
    """Sort vertices into cells; `frame` is (top, bottom, left, right) of what they lie in."""
    top, bottom, left, right = frame
    wide, high = (right - left) // CELL_PX + 1, (bottom - top) // CELL_PX + 1
    inside = (y >= top) & (y <= bottom)
    cells, items = np.zeros(wide * high + 1, np.int32), np.empty(int(inside.sum()), np.int32)
    shape = np.array([top, bottom, left, right, wide], np.int32)
    _sort_into_cells(x, y, shape, cells, items)
    room = 3 * int(free.sum()) + 8
    heap = np.empty(room, np.int64), np.empty(room, np.int32)
    return Chains(x, y, *links, free, np.ones(len(x), bool), cells, items, shape, *heap)


@compiled
def _sort_into_cells(x: Any, y: Any, frame: Any, cells: Any, items: Any) -> None:
    top, bottom, left, wide = frame[0], frame[1], frame[2], frame[4]
    for i in range(len(x)):
        if top <= y[i] <= bottom:
            cells[(y[i] - top) // CELL_PX * wide + (x[i] - left) // CELL_PX + 1] += 1
    for k in range(1, len(cells)):
        cells[k] += cells[k - 1]
    for i in range(len(x) - 1, -1, -1):
        if top <= y[i] <= bottom:
            cell = (y[i] - top) // CELL_PX * wide + (x[i] - left) // CELL_PX
            cells[cell + 1] -= 1
            items[cells[cell + 1]] = i
    # every cell's own begin now stands one place behind it
    for k in range(len(cells) - 1):
        cells[k] = cells[k + 1]
    cells[len(cells) - 1] = len(items)


@inlined
def _same(c: Chains, one: int, two: int) -> bool:
    return c.x[one] == c.x[two] and c.y[one] == c.y[two]


@inlined
def _area2(c: Chains, vertex: int) -> int:
    a, b = c.one[vertex], c.two[vertex]
    ux, uy = np.int64(c.x[a]) - c.x[vertex], np.int64(c.y[a]) - c.y[vertex]
    vx, vy = np.int64(c.x[b]) - c.x[vertex], np.int64(c.y[b]) - c.y[vertex]
    return abs(ux * vy - uy * vx)


@inlined
def _side(ax: float, ay: float, bx: float, by: float, x: float, y: float) -> float:
    return (bx - ax) * (y - ay) - (by - ay) * (x - ax)


@inlined
def _row_span(corners: tuple[float, ...], low: float, high: float) -> tuple[float, float]:
    r"""The least and greatest x of a triangle between two heights, so that long triangles search few cells.

          a
    ------/\------ low
         /  `.                  corners: x and y of a, v, b
    ----/-----`.--- high
       v--------b
    """
    least, most = np.inf, -np.inf
    for i in range(3):
        ax, ay = corners[2 * i], corners[2 * i + 1]
        bx, by = corners[(2 * i + 2) % 6], corners[(2 * i + 3) % 6]
        if max(ay, by) < low or min(ay, by) > high:
            continue
        for end in range(2):
            y = min(max(ay if end == 0 else by, low), high)
            x = ax if ay == by else ax + (bx - ax) * (y - ay) / (by - ay)
            if ay == by and end == 1:
                x = bx
            least, most = min(least, x), max(most, x)
    return least, most


@compiled
def _is_empty(c: Chains, corners: tuple[float, ...], vertex: int, a: int, b: int) -> bool:
    """Whether no vertex but those at the places of `vertex`, `a` and `b` lies in a triangle or on its edge."""
    ax, ay, px, py, bx, by = corners
    top, left, wide = c.frame[0], c.frame[2], c.frame[4]
    first, last = int(min(ay, py, by) - top) // CELL_PX, int(max(ay, py, by) - top) // CELL_PX
    west, east = int(min(ax, px, bx) - left) // CELL_PX, int(max(ax, px, bx) - left) // CELL_PX
    large = (last - first) * (east - west) > 4
    for row in range(first, last + 1):
        begin, end = west, east
        if large:
            low = top + row * CELL_PX
            least, most = _row_span(corners, low, low + CELL_PX)
            begin, end = max(west, int(least - left) // CELL_PX), min(east, int(most - left) // CELL_PX)
        for k in range(c.cells[row * wide + begin], c.cells[row * wide + end + 1]):
            i = int64(c.items[k])
            if not c.alive[i] or _same(c, i, a) or _same(c, i, b) or _same(c, i, vertex):
                continue
            x, y = c.x[i], c.y[i]
            one = _side(ax, ay, px, py, x, y)
            two = _side(px, py, bx, by, x, y)
            three = _side(bx, by, ax, ay, x, y)
            if (one >= 0 and two >= 0 and three >= 0) or (one <= 0 and two <= 0 and three <= 0):
                return False
    return True


@inlined
def _other(c: Chains, vertex: int, neighbour: int) -> int:
    return int64(c.two[vertex] if c.one[vertex] == neighbour else c.one[vertex])


@inlined
def _meets(c: Chains, a: int, b: int) -> bool:
    """Whether another border leads straight from the node at `a` to the node at `b`.

    Cutting the last corner of this one would put both in the same place, and the face between them would vanish.
    """
    cell = (c.y[a] - c.frame[0]) // CELL_PX * c.frame[4] + (c.x[a] - c.frame[2]) // CELL_PX
    meets = False
    for k in range(c.cells[cell], c.cells[cell + 1]):
        i = int64(c.items[k])
        if i != a and c.alive[i] and _same(c, i, a):
            for neighbour in (c.one[i], c.two[i]):
                if neighbour != NONE and _same(c, int64(neighbour), b):
                    meets = True
    return meets


@compiled
def _may_go(c: Chains, vertex: int, edges: tuple[int, int]) -> bool:
    """Whether a corner can be cut without a crossing, and without a face or a border that vanishes.

    A ring keeps three corners: neither may `a` and `b` be one place, nor the next vertex beyond one of them the other.
    """
    a, b = int64(c.one[vertex]), int64(c.two[vertex])
    beyond_a, beyond_b = _other(c, a, vertex), _other(c, b, vertex)
    if _same(c, a, b) or (beyond_a != NONE and _same(c, beyond_a, b)) or (beyond_b != NONE and _same(c, beyond_b, a)):
        return False
    if beyond_a == NONE and beyond_b == NONE:
        on_edge = c.y[a] == c.y[b] and (c.y[a] == edges[0] or c.y[a] == edges[1])
        if on_edge or _meets(c, a, b):
            return False
    corners = (
        float(c.x[a]), float(c.y[a]), float(c.x[vertex]), float(c.y[vertex]), float(c.x[b]), float(c.y[b])
    )  # fmt: skip
    return _is_empty(c, corners, vertex, a, b)


@inlined
def _before(c: Chains, i: int, j: int) -> bool:
    if c.heap_area[i] != c.heap_area[j]:
        return c.heap_area[i] < c.heap_area[j]
    return c.heap_vertex[i] < c.heap_vertex[j]


@inlined
def _swap(c: Chains, i: int, j: int) -> None:
    c.heap_area[i], c.heap_area[j] = c.heap_area[j], c.heap_area[i]
    c.heap_vertex[i], c.heap_vertex[j] = c.heap_vertex[j], c.heap_vertex[i]


@inlined
def _sink(c: Chains, size: int, at: int) -> None:
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _before(c, child + 1, child):
            child += 1
        if not _before(c, child, at):
            break
        _swap(c, child, at)
        at = child


@inlined
def _push(c: Chains, size: int, area2: int, vertex: int) -> int:
    c.heap_area[size], c.heap_vertex[size] = area2, vertex
    at = size
    while at > 0 and _before(c, at, (at - 1) // 2):
        _swap(c, at, (at - 1) // 2)
        at = (at - 1) // 2
    return size + 1


@inlined
def relink(one: Int32Array, two: Int32Array, point: int, old: int, new: int) -> None:
    """Let `new` take the place of `old` as one of the two neighbours of a point."""
    if one[point] == old:
        one[point] = new
    else:
        two[point] = new


@inlined
def _cut(c: Chains, vertex: int) -> None:
    a, b = int64(c.one[vertex]), int64(c.two[vertex])
    c.alive[vertex] = False
    relink(c.one, c.two, a, vertex, b)
    relink(c.one, c.two, b, vertex, a)


@compiled
def cut_corners(c: Chains, most_area2: float, edges: tuple[int, int]) -> None:
    """Cut free corners, smallest first, until every one left has more area or cannot be cut.

    Args:
        most_area2: twice the area of the largest triangle that is cut, in pixels.
        edges: rows on which borders end that go on elsewhere.
    """
    size, root = int64(0), int64(0)
    for vertex in range(len(c.x)):
        if c.free[vertex]:
            area2 = _area2(c, vertex)
            if area2 <= most_area2:
                c.heap_area[size], c.heap_vertex[size] = area2, vertex
                size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sink(c, size, at)
    while size > 0:
        area2, vertex = c.heap_area[root], int64(c.heap_vertex[root])
        size -= 1
        _swap(c, root, size)
        _sink(c, size, root)
        # an entry is out of date if a neighbour went after it was made; a newer one is in the heap
        if not c.alive[vertex] or area2 != _area2(c, vertex) or not _may_go(c, vertex, edges):
            continue
        a, b = int64(c.one[vertex]), int64(c.two[vertex])
        _cut(c, vertex)
        for k in range(2):
            neighbour = a if k == 0 else b
            if c.free[neighbour]:
                changed = _area2(c, neighbour)
                if changed <= most_area2:
                    size = _push(c, size, changed, neighbour)


@compiled
def round_levels(c: Chains, reach_px: float, level: Any) -> None:
    """How far every free corner can be rounded: 0 not at all, 1 from the middle of its edges, 2 half of that, 3 less.

    No other vertex lies in the triangle between corner and curve, so rounded borders cannot touch. `rings.round_rings`
    draws the curve.
    """
    for vertex in range(len(c.x)):
        level[vertex] = 0
        if not (c.free[vertex] and c.alive[vertex]):
            continue
        a, b = c.one[vertex], c.two[vertex]
        x, y = float(c.x[vertex]), float(c.y[vertex])
        ux, uy, vx, vy = c.x[a] - x, c.y[a] - y, c.x[b] - x, c.y[b] - y
        one = min(0.5, reach_px / np.hypot(ux, uy))
        two = min(0.5, reach_px / np.hypot(vx, vy))
        for step in range(_LEVELS):
            corners = (x + one * ux, y + one * uy, x, y, x + two * vx, y + two * vy)
            if _is_empty(c, corners, vertex, vertex, vertex):
                level[vertex] = step + 1
                break
            one, two = one / 2, two / 2
