"""Follow borders around faces: the rings of polygons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glraster.vector.arcs import NONE, Int32Array
from glraster.vector.compiled import compiled, inlined, int64

Int64Array = npt.NDArray[np.int64]


class Borders(NamedTuple):
    """Arcs and nodes as in `trace.Band`, with labels and half-edges numbered through all bands.

    `dropped` nodes are no corner: a border crosses a seam straight there, between two faces. `root` is the first
    label of the face of every label.
    """

    vx: Int32Array
    vy: Int32Array
    level: npt.NDArray[np.uint8]
    start: Int64Array
    length: Int32Array
    left: Int32Array
    right: Int32Array
    origin: Int32Array
    target: Int32Array
    slots: Int32Array
    dropped: npt.NDArray[np.bool_]
    root: Int32Array


@dataclass(frozen=True)
class Rings:
    """Rings as sequences of half-edges, with the face on the left.

    Attributes:
        halves: half-edges of all rings. begin, end: (rings,) where each ring's are among them.
        face: (rings,) root label. area2: (rings,) twice the area in pixels, negative for outer rings. size: (rings,)
            vertices, the first one counted once, corners not rounded.
    """

    halves: Int32Array
    begin: Int64Array
    end: Int64Array
    face: Int32Array
    area2: Int64Array
    size: Int64Array

    def take(self, order: npt.NDArray[Any]) -> Rings:
        """The same rings in another order, or some of them."""
        return Rings(
            self.halves, self.begin[order], self.end[order], self.face[order], self.area2[order], self.size[order]
        )

    def __len__(self) -> int:
        return len(self.begin)


def follow_rings(borders: Borders, is_listed: npt.NDArray[np.bool_]) -> Rings:
    """The rings of the faces whose root label `is_listed` (labels,).

    Where two parts of one face touch at a corner, rings turn so that none of them touches itself: what the face
    encloses there is a hole of its own. So polygons are valid. Memory: 21 bytes per half-edge.
    """
    arcs = len(borders.start)
    halves = np.empty(2 * arcs, np.int32)
    table = np.empty((5, 2 * arcs), np.int64)
    count = _follow(borders, is_listed, np.zeros(2 * arcs, np.bool_), halves, table)
    begin, end, face, area2, size = table[:, :count].copy()
    return Rings(halves[: end[-1] if count else 0].copy(), begin, end, face.astype(np.int32), area2, size)


@inlined
def _left_face(b: Borders, half: int) -> int:
    return b.root[b.right[half // 2]] if half % 2 else b.root[b.left[half // 2]]


@inlined
def _next_half(b: Borders, half: int) -> int:
    """The half-edge after this one around its face.

    The face lies on the left, so the first border to the left is its own:

                second                       A | B      If all four borders meet here and A is one face with
                  ^                          --o--      what lies left of `third`, its ring turns right instead,
        first <-- o --> third                C | A      so that it does not touch itself: the other side of the
                  ^                                     corner belongs to another ring.
                 half
    """
    code = b.origin[half // 2] if half % 2 else b.target[half // 2]
    if code < 0:
        return half
    node, direction = code // 4 * 4, code % 4
    first = b.slots[node + (direction + 1) % 4]
    second = b.slots[node + (direction + 2) % 4]
    third = b.slots[node + (direction + 3) % 4]
    if first != NONE and second != NONE and third != NONE and _left_face(b, int64(third)) == _left_face(b, half):
        return third
    if first != NONE:
        return first
    return second if second != NONE else third


@inlined
def _shoelace(b: Borders, half: int) -> int:
    """Twice the signed area between a half-edge and the origin."""
    begin = b.start[half // 2]
    end = begin + b.length[half // 2]
    total = np.int64(0)
    for i in range(begin + 1, end):
        total += np.int64(b.vx[i - 1]) * b.vy[i] - np.int64(b.vx[i]) * b.vy[i - 1]
    if b.origin[half // 2] == NONE:
        total += np.int64(b.vx[end - 1]) * b.vy[begin] - np.int64(b.vx[begin]) * b.vy[end - 1]
    return int(-total if half % 2 else total)


@inlined
def _own_vertices(b: Borders, half: int) -> int:
    """How many vertices a half-edge adds to its ring: all but its last one, which is the next half-edge's first."""
    code = b.target[half // 2] if half % 2 else b.origin[half // 2]
    if code < 0:
        return int(b.length[half // 2])
    return int(b.length[half // 2]) - (2 if b.dropped[code // 4] else 1)


@compiled
def _follow(b: Borders, is_listed: Any, seen: Any, halves: Int32Array, table: Any) -> int:
    rings, n = 0, 0
    for first in range(2 * len(b.start)):
        face = _left_face(b, first)
        if seen[first] or not is_listed[face]:
            continue
        area2, size, half = np.int64(0), np.int64(0), first
        table[0, rings], table[2, rings] = n, face
        while not seen[half]:  # a ring is closed when it comes back to its first half-edge
            seen[half] = True
            halves[n] = half
            n += 1
            area2 += _shoelace(b, half)
            size += _own_vertices(b, half)
            half = _next_half(b, half)
        table[1, rings], table[3, rings], table[4, rings] = n, area2, size
        rings += 1
    return rings


@compiled
def ring_vertices(b: Borders, halves: Int32Array, bounds: tuple[Any, Any], xy: Any, level: Any) -> None:
    """Write the lattice (column, row) and the level of every vertex of these rings, each ring's first one repeated.

    Args:
        bounds: where every ring begins and ends among the half-edges.
        xy: (n, 2) is written to. level: (n,) is written to.
    """
    begin, end = bounds
    n = 0
    for ring in range(len(begin)):
        first = n
        for k in range(begin[ring], end[ring]):
            half = halves[k]
            arc, backward = half // 2, half % 2 == 1
            code = b.target[arc] if backward else b.origin[arc]
            count = b.length[arc]
            skipped = 1 if code >= 0 and b.dropped[code // 4] else 0
            for i in range(skipped, count if code == NONE else count - 1):
                place = b.start[arc] + (count - 1 - i if backward else i)
                xy[n, 0], xy[n, 1] = b.vx[place], b.vy[place]
                level[n] = 0 if code >= 0 and i == 0 else b.level[place]
                n += 1
        xy[n, 0], xy[n, 1] = xy[first, 0], xy[first, 1]
        n += 1


@compiled
def round_rings(xy: Any, level: Any, offsets: Any, reach_px: float, rounded: Any, ends: Any) -> None:
    """Replace corners by a curve of three points, the middle one halfway between chord and corner.

    Two curves that meet in the middle of an edge share that point: it is written once.

        before             i = corner, left out            x: written
           +-------x-------+
                     ` .   |
                        `x |   `one` and `two`: shares of the edges before and after the corner
                          `|
                           x
                           |
                           + after

    Args:
        xy: (n, 2) vertices of rings from `offsets[i]` on, each ring's first one repeated. level: (n,).
        rounded: (n + 2 for every level above 0, 2) is written to. ends: (rings + 1,) is written to: where rings begin.
    """
    n = 0
    ends[0] = 0
    for ring in range(len(offsets) - 1):
        begin, first, count = n, offsets[ring], offsets[ring + 1] - offsets[ring] - 1
        for k in range(count):
            i = first + k
            x, y = xy[i, 0], xy[i, 1]
            if level[i] == 0:
                rounded[n, 0], rounded[n, 1] = x, y
                n += 1
                continue
            before, after = first + (k - 1) % count, first + (k + 1) % count
            ux, uy, vx, vy = xy[before, 0] - x, xy[before, 1] - y, xy[after, 0] - x, xy[after, 1] - y
            share = 0.5 ** (level[i] - 1)
            one = min(0.5, reach_px / math.sqrt(ux * ux + uy * uy)) * share
            two = min(0.5, reach_px / math.sqrt(vx * vx + vy * vy)) * share
            rounded[n, 0], rounded[n, 1] = x + one * ux, y + one * uy
            if n == begin or rounded[n, 0] != rounded[n - 1, 0] or rounded[n, 1] != rounded[n - 1, 1]:
                n += 1
            rounded[n, 0], rounded[n, 1] = x + (one * ux + two * vx) / 4, y + (one * uy + two * vy) / 4
            rounded[n + 1, 0], rounded[n + 1, 1] = x + two * vx, y + two * vy
            n += 2
        if rounded[n - 1, 0] != rounded[begin, 0] or rounded[n - 1, 1] != rounded[begin, 1]:
            rounded[n, 0], rounded[n, 1] = rounded[begin, 0], rounded[begin, 1]
            n += 1
        ends[ring + 1] = n
