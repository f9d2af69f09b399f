"""Give small patches of a class raster the class of the neighbour with the longest common border.

Two passes over the bands: the first numbers the patches and measures them and their common borders; then the smallest
patch is merged first, until every patch is large enough or has no neighbour; the second gives pixels their new class.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from glraster.vector.arcs import NONE, Int32Array, find_root, join_labels
from glraster.vector.compiled import compiled, inlined, int64
from glraster.vector.patches import BandPatches, FloatArray, summed


class Patches(NamedTuple):
    """All patches of a raster while they are merged: tree of labels, value, area, and a list of borders of small ones.

        head[p] --> i --> following[i] --> ... <-- tail[p]      other[i]: patch on the other side, length[i]

    When two patches become one, their lists are linked: two borders may then lead to one neighbour, and some inside.
    `along` is room to add up the borders to each neighbour, `touched` for the neighbours.
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


def new_values(bands: Iterable[BandPatches], blank: int, least_area: float) -> list[Int32Array]:
    """The value of every label of every band when no patch is smaller than it must be.

    Args:
        bands: from top to bottom.
        blank: value of pixels without class.
        least_area: in the unit of the bands' sizes.

    Memory: about 60 bytes per patch, 100 for one that is too small.
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


def _joined(borders: list[tuple[Int32Array, Int32Array, FloatArray]]) -> tuple[Int32Array, Int32Array, FloatArray]:
    one, two, length = (np.concatenate(patches) for patches in zip(*borders, strict=True))
    return one, two, length


def _merge_small(
    parent: Int32Array,
    value: Int32Array,
    area: FloatArray,
    borders: tuple[Int32Array, Int32Array, FloatArray],
    limits: tuple[int, float],
) -> None:
    """Merge patches, smallest first; `value` is changed for every label. `limits` are blank and the least area."""
    blank, least = limits
    _gather_areas(parent, area)
    one, two, length = borders
    one, two = parent[one], parent[two]
    one, two, length = summed(np.minimum(one, two), np.maximum(one, two), length)
    is_small = (parent == np.arange(len(parent))) & (area < least) & (value != blank)
    owner, other = np.concatenate([one, two]), np.concatenate([two, one])
    length = np.concatenate([length, length])
    matters = is_small[owner] & (owner != other)
    owner, other, length = owner[matters], other[matters], length[matters]
    head, tail, following = (np.full(n, NONE, np.int32) for n in (len(parent), len(parent), len(owner)))
    patches = Patches(
        *(parent, value, area, head, tail, other, length, following),
        np.zeros(len(parent)),
        np.empty(len(owner) + 1, np.int32),
    )
    _list_borders(patches, owner)
    small = np.flatnonzero(is_small).astype(np.int32)
    small = small[np.lexsort((small, area[small]))]
    room = len(small) + 1
    _merge(patches, (area[small], small), (np.empty(room), np.empty(room, np.int32)), least)
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
def _list_borders(p: Patches, owner: Int32Array) -> None:
    for i in range(len(owner)):
        if p.tail[owner[i]] == NONE:
            p.head[owner[i]] = i
        else:
            p.following[p.tail[owner[i]]] = i
        p.tail[owner[i]] = i


@inlined
def _best_neighbour(p: Patches, patch: int) -> tuple[int, int]:
    """The neighbour with the longest common border (of two the larger, of equals the first), and how many it has."""
    count = 0
    i = p.head[patch]
    while i != NONE:
        other = find_root(p.parent, int64(p.other[i]))
        if other != patch:
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
def _absorb(p: Patches, one: int, two: int) -> int:
    """Make one patch of two; return its label."""
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
def _merge(p: Patches, small: tuple[Any, Any], heap: tuple[Any, Any], least: float) -> None:
    """Merge the patches in `small`, sorted by area, and the merged ones that are still too small, which wait in `heap`.

    Both are pairs of areas and patches; an entry is out of date if its patch has another area now.
    """
    first, waiting = 0, 0
    while first < len(small[0]) or waiting > 0:
        if waiting > 0 and (first == len(small[0]) or (heap[0][0], heap[1][0]) < (small[0][first], small[1][first])):
            area, patch = heap[0][0], heap[1][0]
            waiting -= 1
            _take_first(heap, waiting)
        else:
            area, patch = small[0][first], small[1][first]
            first += 1
        if p.parent[patch] != patch or p.area[patch] != area:
            continue
        best, count = _best_neighbour(p, patch)
        if best == NONE:
            continue
        value, merged = p.value[best], patch
        for k in range(count):
            if p.value[p.touched[k]] == value:
                merged = _absorb(p, merged, p.touched[k])
        p.value[merged] = value
        if p.area[merged] < least:
            _insert(heap, waiting, p.area[merged], merged)
            waiting += 1


@inlined
def _take_first(heap: tuple[Any, Any], size: int) -> None:
    areas, patches = heap
    areas[0], patches[0] = areas[size], patches[size]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and (areas[child + 1], patches[child + 1]) < (areas[child], patches[child]):
            child += 1
        if (areas[child], patches[child]) >= (areas[at], patches[at]):
            break
        areas[at], areas[child] = areas[child], areas[at]
        patches[at], patches[child] = patches[child], patches[at]
        at = child


@inlined
def _insert(heap: tuple[Any, Any], size: int, area: float, patch: int) -> None:
    areas, patches = heap
    areas[size], patches[size] = area, patch
    at = size
    while at > 0:
        above = (at - 1) // 2
        if (areas[at], patches[at]) >= (areas[above], patches[above]):
            break
        areas[at], areas[above] = areas[above], areas[at]
        patches[at], patches[above] = patches[above], patches[at]
        at = above
