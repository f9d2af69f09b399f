r"""Simplify borders once for both of their sides, so that no gap and no overlap can arise.

Corners are cut in the order of the area of their triangle (Visvalingam and Whyatt, 1993, Line generalisation by
repeated elimination of points), but only where no other vertex lies in the triangle or on its edge: then borders cannot
cross, and no face loses its area (as in the coverage simplification of JTS and GEOS). Nodes stay, and so do borders to
pixels without class: the area of the whole does not change.

Every band is simplified for itself, with its seams fixed: a cut stays inside the convex hull of its border, so borders
of different bands cannot meet. Then a strip around each seam is simplified again with the vertices on it free.

     |      \         |    band above
     |   - - \ - - -  |  - - - - - - - - -  STRIP_PX above the seam
     |        \        \
    =o=========o========o=================  seam: a border that crosses it ends at a node here
     |          \        \
     |   - - - - | - - - -\ - - - - - - -  STRIP_PX below
     |           |         |    band below

A seam is no border: its nodes are vertices only as long as one band is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glraster.vector.arcs import NONE, Int32Array
from glraster.vector.compiled import compiled
from glraster.vector.corners import BoolArray, chains, cut_corners, round_levels
from glraster.vector.trace import Band

STRIP_PX = 96
"""Rows on either side of a seam whose vertices are free again."""


@dataclass(frozen=True)
class Simplification:
    """`tolerance_px` is the side of a square as large as the largest triangle that is cut; `smooth` rounds corners.

    `reach_px` is how far from a corner its rounding begins, at most.
    """

    tolerance_px: float
    smooth: bool = False

    @property
    def most_area2(self) -> float:
        return 2 * self.tolerance_px**2

    @property
    def reach_px(self) -> float:
        return max(1.0, 2 * self.tolerance_px)


def arc_links(start: npt.NDArray[Any], count: npt.NDArray[Any], closed: BoolArray) -> tuple[Int32Array, Int32Array]:
    """The neighbours of the vertices of arcs that lie one after the other from the first vertex on."""
    total = int(count.sum())
    one, two = np.arange(-1, total - 1, dtype=np.int32), np.arange(1, total + 1, dtype=np.int32)
    first = start - start[0] if len(start) else start
    last = first + count - 1
    one[first] = np.where(closed, last, NONE)
    two[last] = np.where(closed, first, NONE)
    return one, two


def simplify_band(band: Band, blank: int, how: Simplification) -> Band:
    """Simplify the borders of a band whose seams stay as they are.

    Args:
        band: as traced.
        blank: pixel value without class, along which borders stay.
        how: tolerance, and whether to find out how far corners can be rounded.

    Memory: about 60 bytes per vertex, and a byte for every two pixels.
    """
    if not len(band.vx):
        return band
    start, count = band.start[:-1], np.diff(band.start)
    closed = band.origin == NONE
    links = arc_links(start, count, closed)
    inner = (band.value[band.left] != blank) & (band.value[band.right] != blank)
    free = np.repeat(inner, count)
    free[start[~closed]] = False
    free[band.start[1:][~closed] - 1] = False
    edges = (band.first_row, band.first_row + band.rows)
    frame = (*edges, int(band.vx.min()), int(band.vx.max()))
    c = chains(band.vx, band.vy, links, free, frame)
    cut_corners(c, how.most_area2, edges)
    level = np.zeros(len(band.vx), np.uint8)
    if how.smooth:
        round_levels(c, how.reach_px, level)
    lengths = np.add.reduceat(c.alive, start, dtype=np.int32)
    return band._replace(
        vx=band.vx[c.alive],
        vy=band.vy[c.alive],
        level=level[c.alive],
        start=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
    )


class SeamArcs(NamedTuple):
    """The arcs of two bands.

    Attributes:
        start, length: (arcs,) first vertex and number of vertices.
        closed: (arcs,) whether it is a ring without node.
        inner: (arcs,) whether it may change: it lies between two classes, and none of its faces has been written.
        begins_passed, ends_passed: (arcs,) whether its first or last vertex lies on an earlier seam and was cut.
    """

    start: npt.NDArray[np.int64]
    length: Int32Array
    closed: BoolArray
    inner: BoolArray
    begins_passed: BoolArray
    ends_passed: BoolArray


def mend(
    vertices: tuple[Int32Array, Int32Array, npt.NDArray[np.uint8]],
    arcs: SeamArcs,
    halves: Int32Array,
    rows: tuple[int, int, int],
    how: Simplification,
) -> tuple[BoolArray, BoolArray]:
    """Cut corners in the strip; levels of rounding are written to the vertices.

    Args:
        vertices: column, row and level of the arcs' vertices.
        halves: (n, 2) half-edges that leave the n crossings of borders with the seam: the one upwards, the other one.
        rows: first row of the upper band, of the lower one, and the row below it.

    Returns:
        Which vertices remain (the ends of arcs do), and which of the n crossings are no corner any more.
    """
    x, y, level = vertices
    top, seam, bottom = rows
    strip = (max(top, seam - STRIP_PX), min(bottom, seam + STRIP_PX))
    one, two = arc_links(arcs.start, arcs.length, arcs.closed)
    ends = _ends(arcs)
    above, below = _origins(arcs, halves[:, 0]), _origins(arcs, halves[:, 1])
    _tie(one, two, above, below)
    inside = (y >= strip[0]) & (y <= strip[1])
    inside[arcs.start[arcs.begins_passed]] = False
    inside[(arcs.start + arcs.length - 1)[arcs.ends_passed]] = False
    free = np.repeat(arcs.inner, arcs.length) & ~ends
    free[below] = arcs.inner[halves[:, 1] // 2]
    free &= inside & (one != NONE) & (two != NONE)
    free &= inside[one] & inside[two]
    c = chains(x, y, (one, two), free, (*strip, int(x.min()), int(x.max())))
    c.alive[above] = False
    before = one.copy(), two.copy()
    cut_corners(c, how.most_area2, (top, bottom))
    if how.smooth:
        fresh = np.zeros(len(x), np.uint8)
        round_levels(c, how.reach_px, fresh)
        level[free] = fresh[free]
        level[~free & ((before[0] != one) | (before[1] != two))] = 0
    return c.alive | ends, ~c.alive[below]


def _ends(arcs: SeamArcs) -> BoolArray:
    ends = np.zeros(int(arcs.length.sum()), bool)
    is_open = ~arcs.closed
    ends[arcs.start[is_open]] = True
    ends[(arcs.start + arcs.length - 1)[is_open]] = True
    return ends


def _origins(arcs: SeamArcs, halves: Int32Array) -> npt.NDArray[np.intp]:
    """The first vertex of half-edges."""
    arc = halves // 2
    return np.where(halves % 2 == 1, arcs.start[arc] + arcs.length[arc] - 1, arcs.start[arc])


@compiled
def _tie(one: Any, two: Any, above: Any, below: Any) -> None:
    """Make one chain of the borders above and below each crossing: the vertex of the lower one stands for both.

    before:  n --- upper   lower --- m        after:  n --- lower --- m
    """
    for k in range(len(above)):
        upper, lower = above[k], below[k]
        neighbour = one[upper] if one[upper] != NONE else two[upper]
        if one[neighbour] == upper:
            one[neighbour] = lower
        else:
            two[neighbour] = lower
        if one[lower] == NONE:
            one[lower] = neighbour
        else:
            two[lower] = neighbour
        one[upper] = two[upper] = NONE
