"""Give small parts of a class raster the class of the neighbour with the longest common border.

Two passes over the bands: the first numbers the parts and measures them and their common borders; then the smallest
part is merged first, until every part is large enough or has no neighbour; the second gives every pixel its new class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glraster.vector.arcs import NONE, Int32Array
from glraster.vector.compiled import compiled, inlined
from glraster.vector.labels import find_root, join_labels, unite

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RowMetrics:
    """Of every row of the raster, from its first row on: area of a pixel, its width (at its upper edge) and height."""

    first_row: int
    area: FloatArray
    width: FloatArray
    height: FloatArray


class Parts(NamedTuple):
    """All parts of a raster while they are merged: tree of labels, value, area, and a list of borders of small ones.

    `head` is a part's first border and `tail` its last one; border i leads to part `other[i]`, is `length[i]` long and
    is followed by `following[i]`. `along` is room to sum up borders by neighbour, `touched` for the neighbours.
    """

    parent: Int32Array
    value: Int32Array
    area: FloatArray
    head: Int32Array
    tail: Int32Array
    other: Int32Array
    length: FloatArray
    following: Int32Array
    along: FloatArray
    touched: Int32Array


class BandParts(NamedTuple):
    """The parts of one band of rows, with labels local to it: of the row above the band, of its last row; value and
    area of every label; pairs of labels with the length of their common border.
    """

    above: Int32Array
    below: Int32Array
    value: Int32Array
    area: FloatArray
    borders: tuple[Int32Array, Int32Array, FloatArray]


def band_parts(pixels: npt.NDArray[Any], blank: int, metrics: RowMetrics, first_row: int, diagonal: bool) -> BandParts:
    """Number and measure the parts of a band.

    Args:
        pixels: with the row above the band, as for `trace`.
        blank: value of pixels without class.
        metrics: sizes of the rows of the raster, or of this band's.
        first_row: of the band.
        diagonal: whether parts that touch at a corner are one.

    Memory: 8 bytes per pixel, besides what is returned.
    """
    labels, found = number_parts(pixels, diagonal)
    rows = slice(first_row - metrics.first_row, first_row - metrics.first_row + len(pixels) - 1)
    area = np.zeros(found)
    value = np.empty(found, np.int32)
    _measure_parts(pixels, labels, _padded(metrics.area[rows], len(pixels) - 1), value, area)
    borders = _common_borders(pixels, labels, blank, (metrics.width[rows], metrics.height[rows]))
    return BandParts(labels[0].copy(), labels[-1].copy(), value, area, borders)


def new_values(bands: Iterable[BandParts], blank: int, least_area: float) -> list[Int32Array]:
    """The value of every label of every band when no part is smaller than it must be.

    Args:
        bands: from top to bottom.
        blank: value of pixels without class.
        least_area: in the unit of the bands' sizes.

    Memory: about 60 bytes per part, 100 for one that is too small.
    """
    parent = np.empty(0, np.int32)
    values, areas, borders, ends = [], [], [], [0]
    below: Int32Array | None = None
    for band in bands:
        count = ends[-1]
        parent = np.concatenate([parent, np.arange(count, count + len(band.value), dtype=np.int32)])
        if below is not None:
            join_labels(parent, below, band.above + np.int32(count))
        below = band.below + np.int32(count)
        values.append(band.value)
        areas.append(band.area)
        one, two, length = band.borders
        borders.append((one + np.int32(count), two + np.int32(count), length))
        ends.append(count + len(band.value))
    value, area = np.concatenate(values), np.concatenate(areas)
    _merge_small(parent, value, area, _joined(borders), (blank, least_area))
    return np.split(value, ends[1:-1])


def with_new_values(pixels: npt.NDArray[Any], values: npt.NDArray[Any], diagonal: bool) -> npt.NDArray[Any]:
    """A band again, with the row above it, every pixel with the new value of its label."""
    labels, _ = number_parts(pixels, diagonal)
    merged: npt.NDArray[Any] = values.astype(pixels.dtype)[labels]
    return merged


def number_parts(pixels: npt.NDArray[Any], diagonal: bool) -> tuple[Int32Array, int]:
    """Labels 0, 1, 2, ... of the parts of one value in a band, and how many there are."""
    labels = np.empty(pixels.shape, np.int32)
    parent = np.empty(pixels.size, np.int32)
    count = _number(pixels, labels, parent, diagonal)
    return labels, count


def _padded(values: FloatArray, length: int) -> FloatArray:
    return np.pad(values, (0, length - len(values)))


@compiled
def _number(pixels: Any, labels: Any, parent: Int32Array, diagonal: bool) -> int:
    rows, columns = pixels.shape
    used = 0
    for r in range(rows):
        for c in range(columns):
            value, label = pixels[r, c], NONE
            if r > 0 and pixels[r - 1, c] == value:
                label = labels[r - 1, c]
            if c > 0 and pixels[r, c - 1] == value:
                if label != NONE and label != labels[r, c - 1]:
                    unite(parent, label, labels[r, c - 1])
                label = labels[r, c - 1]
            if label == NONE:
                label = used
                parent[used] = used
                used += 1
            labels[r, c] = label
            if diagonal and r > 0:
                if c > 0 and pixels[r - 1, c - 1] == value:
                    unite(parent, label, labels[r - 1, c - 1])
                if c + 1 < columns and pixels[r - 1, c + 1] == value:
                    unite(parent, label, labels[r - 1, c + 1])
    count = 0
    for i in range(used):
        if parent[i] == i:
            parent[i] = -1 - count
            count += 1
        else:
            root = parent[i]
            while root >= 0 and parent[root] >= 0:
                root = parent[root]
            parent[i] = parent[root]
    for r in range(rows):
        for c in range(columns):
            labels[r, c] = -1 - parent[labels[r, c]]
    return count


@compiled
def _measure_parts(pixels: Any, labels: Any, row_area: Any, value: Any, area: Any) -> None:
    """Sum up areas; the row above the band is another band's and counts nothing."""
    for r in range(len(labels)):
        for c in range(labels.shape[1]):
            value[labels[r, c]] = pixels[r, c]
            if r > 0:
                area[labels[r, c]] += row_area[r - 1]


def _common_borders(
    pixels: npt.NDArray[Any], labels: Int32Array, blank: int, sizes: tuple[FloatArray, FloatArray]
) -> tuple[Int32Array, Int32Array, FloatArray]:
    """Pairs of labels of different parts with the length of their common border."""
    rows = len(pixels) - 1
    width, height = (_padded(size, rows) for size in sizes)
    filled = pixels != blank
    level = (labels[1:] != labels[:-1]) & filled[1:] & filled[:-1]
    upright = (labels[1:, 1:] != labels[1:, :-1]) & filled[1:, 1:] & filled[1:, :-1]
    one = np.concatenate([labels[1:][level], labels[1:, 1:][upright]])
    two = np.concatenate([labels[:-1][level], labels[1:, :-1][upright]])
    length = np.concatenate([width[np.nonzero(level)[0]], height[np.nonzero(upright)[0]]])
    return _summed(np.minimum(one, two), np.maximum(one, two), length)


def _joined(borders: list[tuple[Int32Array, Int32Array, FloatArray]]) -> tuple[Int32Array, Int32Array, FloatArray]:
    one, two, length = (np.concatenate(parts) for parts in zip(*borders, strict=True))
    return one, two, length


def _summed(one: Int32Array, two: Int32Array, length: FloatArray) -> tuple[Int32Array, Int32Array, FloatArray]:
    key = one.astype(np.int64) << 32 | two
    keys, index = np.unique(key, return_inverse=True)
    sums: FloatArray = np.bincount(index, length, len(keys)).astype(np.float64)
    return (keys >> 32).astype(np.int32), (keys & 0xFFFFFFFF).astype(np.int32), sums


def _merge_small(
    parent: Int32Array,
    value: Int32Array,
    area: FloatArray,
    borders: tuple[Int32Array, Int32Array, FloatArray],
    limits: tuple[int, float],
) -> None:
    """Merge parts, smallest first; `value` is changed for every label. `limits` are blank and the least area."""
    blank, least = limits
    _gather_areas(parent, area)
    one, two, length = borders
    one, two = parent[one], parent[two]
    one, two, length = _summed(np.minimum(one, two), np.maximum(one, two), length)
    is_small = (parent == np.arange(len(parent))) & (area < least) & (value != blank)
    owner, other = np.concatenate([one, two]), np.concatenate([two, one])
    length = np.concatenate([length, length])
    kept = is_small[owner] & (owner != other)
    owner, other, length = owner[kept], other[kept], length[kept]
    head, tail, following = (np.full(n, NONE, np.int32) for n in (len(parent), len(parent), len(owner)))
    parts = Parts(
        *(parent, value, area, head, tail, other, length, following),
        np.zeros(len(parent)),
        np.empty(len(owner) + 1, np.int32),
    )
    _list_borders(parts, owner)
    small = np.flatnonzero(is_small).astype(np.int32)
    small = small[np.lexsort((small, area[small]))]
    room = len(small) + 1
    _merge(parts, (area[small], small), (np.empty(room), np.empty(room, np.int32)), least)
    _spread_values(parent, value)


@compiled
def _gather_areas(parent: Int32Array, area: FloatArray) -> None:
    for i in range(len(parent)):
        parent[i] = parent[parent[i]]
        if parent[i] != i:
            area[parent[i]] += area[i]


@compiled
def _spread_values(parent: Int32Array, value: Int32Array) -> None:
    for i in range(len(parent)):
        parent[i] = parent[parent[i]]
        value[i] = value[parent[i]]


@compiled
def _list_borders(p: Parts, owner: Int32Array) -> None:
    for i in range(len(owner)):
        if p.tail[owner[i]] == NONE:
            p.head[owner[i]] = i
        else:
            p.following[p.tail[owner[i]]] = i
        p.tail[owner[i]] = i


@inlined
def _best_neighbour(p: Parts, part: int) -> tuple[int, int]:
    """The neighbour with the longest common border (of two the larger, of equals the first), and how many it has."""
    count = 0
    i = p.head[part]
    while i != NONE:
        other = find_root(p.parent, p.other[i])
        if other != part:
            if p.along[other] == 0.0:
                p.touched[count] = other
                count += 1
            p.along[other] += p.length[i]
        i = p.following[i]
    best = NONE
    for k in range(count):
        other = p.touched[k]
        if (
            best == NONE
            or p.along[other] > p.along[best]
            or (p.along[other] == p.along[best] and (p.area[other], -other) > (p.area[best], -best))
        ):
            best = other
    for k in range(count):
        p.along[p.touched[k]] = 0.0
    return best, count


@inlined
def _absorb(p: Parts, one: int, two: int) -> int:
    """Make one part of two; return its label."""
    into, gone = min(one, two), max(one, two)
    p.parent[gone] = into
    p.area[into] += p.area[gone]
    if p.head[gone] != NONE:
        if p.head[into] == NONE:
            p.head[into] = p.head[gone]
        else:
            p.following[p.tail[into]] = p.head[gone]
        p.tail[into] = p.tail[gone]
    return into


@compiled
def _merge(p: Parts, small: tuple[Any, Any], heap: tuple[Any, Any], least: float) -> None:
    """Merge the parts in `small`, sorted by area, and those that are still too small after that, which wait in `heap`.

    Both are pairs of areas and parts; a part whose area has changed since then is not meant any more.
    """
    first, waiting = 0, 0
    while first < len(small[0]) or waiting > 0:
        if waiting > 0 and (first == len(small[0]) or (heap[0][0], heap[1][0]) < (small[0][first], small[1][first])):
            area, part = heap[0][0], heap[1][0]
            waiting -= 1
            _take_first(heap, waiting)
        else:
            area, part = small[0][first], small[1][first]
            first += 1
        if p.parent[part] != part or p.area[part] != area:
            continue
        best, count = _best_neighbour(p, part)
        if best == NONE:
            continue
        value, merged = p.value[best], part
        for k in range(count):
            if p.value[p.touched[k]] == value:
                merged = _absorb(p, merged, p.touched[k])
        p.value[merged] = value
        if p.area[merged] < least:
            _insert(heap, waiting, p.area[merged], merged)
            waiting += 1


@inlined
def _take_first(heap: tuple[Any, Any], size: int) -> None:
    areas, parts = heap
    areas[0], parts[0] = areas[size], parts[size]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and (areas[child + 1], parts[child + 1]) < (areas[child], parts[child]):
            child += 1
        if (areas[child], parts[child]) >= (areas[at], parts[at]):
            break
        areas[at], areas[child] = areas[child], areas[at]
        parts[at], parts[child] = parts[child], parts[at]
        at = child


@inlined
def _insert(heap: tuple[Any, Any], size: int, area: float, part: int) -> None:
    areas, parts = heap
    areas[size], parts[size] = area, part
    at = size
    while at > 0:
        above = (at - 1) // 2
        if (areas[at], parts[at]) >= (areas[above], parts[above]):
            break
        areas[at], areas[above] = areas[above], areas[at]
        parts[at], parts[above] = parts[above], parts[at]
        at = above
