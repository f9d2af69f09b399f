"""Join the borders of one band after the other, and return every face as soon as it is closed.

band 1   |    |        Arcs that cross the lower edge of a band end in *ports*, one per column. The next band has
         v    v        a node wherever a border crosses its upper edge: the arcs are tied to it there. A crossing
=========o====o=====   with two borders is no corner if they go straight on: it is *dropped* from rings.
         |    +--      Labels of the row above the seam are joined with those that the next band gave the same
band 2   |             pixels. A face is closed when none of its labels lies on the last row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from glraster.vector.arcs import NONE, PORT, Int32Array, join_labels
from glraster.vector.compiled import compiled
from glraster.vector.rings import Borders, Rings, follow_rings
from glraster.vector.simplify import SeamArcs, Simplification, mend
from glraster.vector.trace import Band

BoolArray = npt.NDArray[np.bool_]

_SOUTH = 2


class Column:
    """An array that grows at its end without a second copy of it in memory."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._buffer = np.empty(0, dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def values(self) -> npt.NDArray[Any]:
        """A view of what is in use; it is void once the column has grown."""
        return self._buffer[: self._length]

    def append(self, values: npt.NDArray[Any]) -> None:
        needed = self._length + len(values)
        if needed > len(self._buffer):
            self._buffer.resize(needed + needed // 4, refcheck=False)
        self._buffer[self._length : needed] = values
        self._length = needed

    def keep(self, length: int) -> None:
        """Forget what lies behind the first `length` values, and give back memory that is far too much."""
        self._length = length
        if len(self._buffer) > 2 * length + 2**16:
            self._buffer.resize(length + length // 4, refcheck=False)


@dataclass(frozen=True)
class Faces:
    """Faces that are closed, ready to be written.

    `rings` are sorted by feature and face, the outer ring of each face first; `face` and `feature` are labels of every
    ring; `value` is the pixel value of every ring.
    """

    rings: Rings
    face: Int32Array
    feature: Int32Array
    value: Int32Array


class Coverage:
    """The borders of a raster of which band after band arrives from the top.

    `blank` is the value of pixels without class. With `diagonal`, faces of one value that touch at a corner belong to
    one feature, which is closed when all of them are.

    Memory: the borders of faces that are open, and of the bands since the last call of `closed_faces`.
    """

    def __init__(self, columns: int, blank: int, diagonal: bool = False) -> None:
        self._blank = blank
        self._diagonal = diagonal
        self.vx, self.vy, self.level = Column(np.int32), Column(np.int32), Column(np.uint8)
        self._start, self._length = Column(np.int64), Column(np.int32)
        self._left, self._right = Column(np.int32), Column(np.int32)
        self._origin, self._target = Column(np.int32), Column(np.int32)
        self._slots, self._dropped = Column(np.int32), Column(np.bool_)
        self._value, self._parent, self._group = Column(np.int32), Column(np.int32), Column(np.int32)
        self._emitted = Column(np.bool_)
        self._total, self._seen = Column(np.float64), Column(np.int64)
        self._port = np.full(columns, NONE, np.int32)
        self._recent = (0, 0)
        self._rows = (0, 0, 0)
        self._crossings: npt.NDArray[np.intp] = np.empty(0, np.intp)
        self._below: Int32Array | None = None

    def add(self, band: Band) -> None:
        """Take the next band; its upper edge is the lower edge of the one before."""
        arcs, nodes, labels = len(self._start), len(self._dropped), len(self._value)
        self._recent = (self._recent[1], arcs)
        self._rows = (self._rows[1], band.first_row, band.first_row + band.rows)
        self._start.append(band.start[:-1] + np.int64(len(self.vx)))
        self._length.append(np.diff(band.start))
        self.vx.append(band.vx)
        self.vy.append(band.vy)
        self.level.append(band.level)
        self._left.append(band.left + np.int32(labels))
        self._right.append(band.right + np.int32(labels))
        for column, ends in ((self._origin, band.origin), (self._target, band.target)):
            column.append(np.where(ends >= 0, ends + np.int32(4 * nodes), ends))
        self._slots.append(np.where(band.slots >= 0, band.slots + np.int32(2 * arcs), NONE).ravel())
        self._dropped.append(np.zeros(len(band.slots), bool))
        self._connect(band, nodes)
        self._open_ports(band, arcs)
        self._add_labels(band, labels)

    def _connect(self, band: Band, nodes: int) -> None:
        """Tie the arcs that ended at the lower edge of the band before to the nodes on this one's upper edge."""
        columns = np.flatnonzero(band.top >= 0)
        codes = 4 * (band.top[columns] + np.int32(nodes))
        halves = self._port[columns]
        slots = self._slots.values
        slots[codes] = halves
        backward = halves % 2 == 1
        self._origin.values[halves[~backward] // 2] = codes[~backward]
        self._target.values[halves[backward] // 2] = codes[backward]
        crossing = (slots.reshape(-1, 4)[codes // 4] != NONE).sum(axis=1) == 2
        self._crossings = codes[crossing].astype(np.intp)
        straight = crossing & (slots[codes + _SOUTH] != NONE)
        self._dropped.values[codes[straight] // 4] = True

    def _open_ports(self, band: Band, arcs: int) -> None:
        self._port[:] = NONE
        for side, ends in enumerate((band.origin, band.target)):
            hanging = np.flatnonzero(ends < PORT)
            self._port[PORT - ends[hanging]] = 2 * (hanging + arcs) + side

    def _add_labels(self, band: Band, labels: int) -> None:
        numbers = np.arange(labels, labels + len(band.value), dtype=np.int32)
        self._value.append(band.value)
        self._parent.append(numbers)
        self._emitted.append(np.zeros(len(numbers), bool))
        self._total.append(band.total)
        self._seen.append(band.seen)
        above = band.above + np.int32(labels)
        if self._diagonal:
            self._group.append(numbers)
            join_labels(self._group.values, *np.ascontiguousarray((band.pairs + np.int32(labels)).T))
        if self._below is not None:
            for parents in (self._parent, self._group)[: 1 + self._diagonal]:
                join_labels(parents.values, self._below, above)
        self._below = band.below + np.int32(labels)

    def mend_seam(self, how: Simplification) -> None:
        """Simplify along the seam between the last two bands, where borders were fixed until both were known.

        Memory: about 60 bytes per vertex of two bands.
        """
        first = self._recent[0]
        if not len(self._crossings) or first == len(self._start):
            return
        count, start = self._length.values[first:], self._start.values[first:]
        base = int(start[0])
        vertices = (self.vx.values[base:], self.vy.values[base:], self.level.values[base:])
        fixed = self._emitted.values | (self._value.values == self._blank)
        inner = ~(fixed[self._left.values[first:]] | fixed[self._right.values[first:]])
        arcs = SeamArcs(start - base, count, self._origin.values[first:] == NONE, inner, *self._passed_ends(first))
        slots = self._slots.values
        halves = np.stack([slots[self._crossings], slots.reshape(-1, 4)[self._crossings // 4, 1:].max(axis=1)], axis=1)
        remains, is_cut = mend(vertices, arcs, halves - 2 * first, self._rows, how)
        inner_crossing = inner[halves[:, 0] // 2 - first]
        self._dropped.values[self._crossings[inner_crossing] // 4] = is_cut[inner_crossing]
        new_count = np.add.reduceat(remains, start - base, dtype=np.int32)
        total = int(new_count.sum())
        for column in (self.vx, self.vy, self.level):
            column.values[base : base + total] = column.values[base:][remains]
            column.keep(base + total)
        count[:] = new_count
        start[:] = base + np.cumsum(new_count) - new_count

    def _passed_ends(self, first: int) -> tuple[BoolArray, BoolArray]:
        """Whether arcs begin and end on an earlier seam at a place that is no vertex any more."""
        passed = self._dropped.values.copy()
        passed[self._crossings // 4] = False
        codes = np.stack([self._origin.values[first:], self._target.values[first:]])
        begins, ends = (codes >= 0) & passed[np.maximum(codes, 0) // 4]
        return begins, ends

    def borders(self) -> Borders:
        """All borders in memory, as arrays."""
        _point_to_roots(self._parent.values)
        return Borders(
            vx=self.vx.values,
            vy=self.vy.values,
            level=self.level.values,
            start=self._start.values,
            length=self._length.values,
            left=self._left.values,
            right=self._right.values,
            origin=self._origin.values,
            target=self._target.values,
            slots=self._slots.values,
            dropped=self._dropped.values,
            root=self._parent.values,
        )

    def closed_faces(self, last: bool = False) -> Faces:
        """The faces that no later band can change and that were not returned before; at the `last` call all others."""
        borders = self.borders()
        root, value = borders.root, self._value.values
        feature = root
        if self._diagonal:
            feature = self._group.values
            _point_to_roots(feature)
        is_open = np.zeros(len(root), bool)
        if not last and self._below is not None:
            is_open[feature[self._below]] = True
        _gather(feature, root, self._total.values, self._seen.values)
        is_closed = ~is_open[feature[root]] & ~self._emitted.values[root] & (value != self._blank)
        rings = follow_rings(borders, is_closed)
        self._emitted.values[is_closed] = True
        order = np.lexsort((-np.abs(rings.area2), rings.face, feature[rings.face]))
        rings = rings.take(order)
        return Faces(rings, rings.face, feature[rings.face], value[rings.face])

    def means(self, features: Int32Array) -> npt.NDArray[np.float64]:
        """The mean measured value of features just returned, NaN if nothing was measured."""
        seen = self._seen.values[features]
        return np.where(seen > 0, self._total.values[features] / np.maximum(seen, 1), np.nan)

    def forget(self) -> None:
        """Free the memory of borders whose faces have all been returned, if they are more than half."""
        done = self._emitted.values | (self._value.values == self._blank)
        done = done[self._parent.values]
        needed = ~(done[self._left.values] & done[self._right.values])
        if needed.sum() * 2 > len(needed):
            return
        self._forget_vertices(needed)
        self._forget_nodes()
        self._forget_labels()

    def _forget_vertices(self, needed: BoolArray) -> None:
        arcs = np.flatnonzero(needed)
        vertices = (self.vx, self.vy, self.level)
        places = (self._start.values, self._length.values)
        vertex_count = _move_vertices((self.vx.values, self.vy.values, self.level.values), places, arcs)
        for column in vertices:
            column.keep(vertex_count)
        self._recent = (int(needed[: self._recent[0]].sum()), int(needed[: self._recent[1]].sum()))
        number = np.cumsum(needed, dtype=np.int32) - np.int32(1)
        for column in (self._start, self._length, self._left, self._right, self._origin, self._target):
            _squeeze(column, arcs)
        slots = self._slots.values
        arc = slots // 2
        slots[:] = np.where((slots >= 0) & needed[arc], 2 * number[arc] + slots % 2, NONE)
        hanging = self._port >= 0
        self._port[hanging] = 2 * number[self._port[hanging] // 2] + self._port[hanging] % 2

    def _forget_nodes(self) -> None:
        slots = self._slots.values.reshape(-1, 4)
        used = (slots != NONE).any(axis=1)
        number = np.cumsum(used, dtype=np.int32) - np.int32(1)
        for column in (self._origin, self._target):
            ends = column.values
            at_node = ends >= 0
            ends[at_node] = 4 * number[ends[at_node] // 4] + ends[at_node] % 4
        nodes = np.flatnonzero(used)
        remaining = slots[nodes].ravel()
        self._slots.values[: len(remaining)] = remaining
        self._slots.keep(len(remaining))
        _squeeze(self._dropped, nodes)

    def _forget_labels(self) -> None:
        """Keep one label of every face that still has borders or lies on the lower edge, and of their features."""
        assert self._below is not None
        root = self._parent.values
        used = np.zeros(len(root), bool)
        named = [self._left.values, self._right.values, self._below]
        for labels in named:
            labels[:] = root[labels]
            used[labels] = True
        if self._diagonal:
            _point_to_roots(self._group.values)
            used[self._group.values[used]] = True
        number = np.cumsum(used, dtype=np.int32) - np.int32(1)
        for labels in named:
            labels[:] = number[labels]
        remaining = np.flatnonzero(used)
        if self._diagonal:
            self._group.values[remaining] = number[self._group.values[remaining]]
            _squeeze(self._group, remaining)
        for column in (self._value, self._emitted, self._total, self._seen, self._parent):
            _squeeze(column, remaining)
        self._parent.values[:] = np.arange(len(remaining), dtype=np.int32)


def _squeeze(column: Column, rows: npt.NDArray[np.intp]) -> None:
    """Keep these rows of a column alone."""
    values = column.values[rows]
    column.values[: len(values)] = values
    column.keep(len(values))


@compiled
def _point_to_roots(parent: Int32Array) -> None:
    """Let every label point at its face's first label; parents always have smaller numbers."""
    for i in range(len(parent)):
        parent[i] = parent[parent[i]]


@compiled
def _gather(feature: Int32Array, root: Int32Array, total: Any, seen: Any) -> None:
    """Move what was measured on every label to its feature."""
    for i in range(len(root)):
        to = feature[root[i]]
        if to != i:
            total[to] += total[i]
            seen[to] += seen[i]
            total[i], seen[i] = 0.0, 0


@compiled
def _move_vertices(vertices: tuple[Any, Any, Any], places: tuple[Any, Any], arcs: Any) -> int:
    """Move the vertices of these arcs, given in ascending order, to the front; return how many there are."""
    vx, vy, level = vertices
    start, count = places
    n = 0
    for arc in arcs:
        begin = start[arc]
        start[arc] = n
        for i in range(begin, begin + count[arc]):
            vx[n], vy[n], level[n] = vx[i], vy[i], level[i]
            n += 1
    return n
