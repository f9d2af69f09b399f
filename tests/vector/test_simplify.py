"""Simplified polygons are as many as before, valid, without gap or overlap, also where bands meet."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from vector.masks import blobs, noise, polygons, spiral

from glraster.vector.simplify import Simplification


def vertices(found) -> int:
    return sum(shapely.get_num_coordinates(polygon) for _, polygon in found)


@pytest.mark.parametrize("seed", range(40))
def test_simplified_polygons_are_a_coverage_of_the_same_area(seed):
    rng = np.random.default_rng(seed)
    height, width, rows = (int(n) for n in rng.integers((3, 3, 1), (60, 60, 70)))
    mask = blobs(height, width, seed) if seed % 3 else noise(height, width, seed)
    how = Simplification(float(rng.choice([0.7, 1, 2, 4, 30])), smooth=bool(seed % 2))
    raw, simple = polygons(mask, rows), polygons(mask, rows, how)
    assert len(simple) == len(raw)
    assert sorted(value for value, _ in simple) == sorted(value for value, _ in raw)
    assert [shapely.is_valid_reason(p) for _, p in simple if not p.is_valid] == []
    assert sum(p.area for _, p in simple) == pytest.approx(int((mask > 0).sum()), abs=1e-6)
    assert shapely.coverage_is_valid([p for _, p in simple])


def test_simplifying_removes_stairs():
    mask = np.where(np.add.outer(2 * np.arange(200), np.arange(300)) < 400, 1, 2).astype(np.uint8)
    raw, simple = polygons(mask, 1000), polygons(mask, 1000, Simplification(2))
    assert vertices(raw) > 400
    assert vertices(simple) < 20


@pytest.mark.parametrize(("rows", "more"), [(16, 0.35), (50, 0.1)])
def test_seams_leave_no_trace_in_simplified_borders(rows, more):
    """A slope that crosses or follows seams has about as few vertices as one traced in a single band.

    Bands of 16 rows are lower than the strip that is simplified again, so more is left of their seams.
    """
    row, column = np.indices((200, 300))
    mask = (1 + (column > row + 30) + 2 * (row * 10 + column > 1300)).astype(np.uint8)
    whole, banded = (vertices(polygons(mask, n, Simplification(2))) for n in (1000, rows))
    assert banded <= whole * (1 + more)


def test_simplified_borders_stay_near_the_traced_ones():
    mask = blobs(120, 140, seed=5, salt=0)
    raw, simple = (shapely.union_all([p.boundary for _, p in polygons(mask, 50, how)]) for how in (None, SMALL))
    assert shapely.hausdorff_distance(raw, simple) < 4


SMALL = Simplification(1.5)


def test_borders_to_pixels_without_class_stay():
    mask = np.ones((40, 40), np.uint8)
    mask[np.add.outer(np.arange(40), np.arange(40)) < 30] = 0
    (_, polygon), *rest = polygons(mask, 1000, Simplification(5))
    assert not rest
    assert polygon.area == (mask == 1).sum()


def test_a_part_never_vanishes():
    assert len(polygons(spiral(31), 5, Simplification(100))) == len(polygons(spiral(31), 5))


def test_smooth_rounds_corners_and_keeps_the_total_area():
    mask = blobs(60, 70, seed=3, salt=0)
    plain, smooth = (polygons(mask, 17, Simplification(1, smooth=s)) for s in (False, True))
    assert vertices(smooth) > 1.5 * vertices(plain)

    def sharpest(found):
        turns = [turning(ring.coords) for _, p in found for ring in (p.exterior, *p.interiors)]
        return np.median(np.concatenate(turns))

    assert sharpest(smooth) < 0.6 * sharpest(plain)


HOW = st.none() | st.builds(Simplification, st.sampled_from([0.5, 0.7, 1.0, 2.0, 5.0]), st.booleans())
MASKS = arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 2))


@settings(max_examples=400, deadline=None)
@given(MASKS, st.integers(1, 8), HOW, st.booleans())
def test_no_segment_has_zero_length(mask, rows, how, diagonal):
    """QGIS calls polygons with equal neighbouring vertices invalid, GEOS does not."""
    found = polygons(mask, rows, how, diagonal)
    assert [p for _, p in found if (steps(p) == 0).all(axis=1).any()] == []
    assert all(p.is_valid for _, p in found)
    assert shapely.coverage_is_valid([p for _, p in found])


def steps(polygon) -> np.ndarray:
    """From vertex to vertex of all rings, (n, 2)."""
    rings = shapely.get_rings(shapely.get_parts(polygon))
    return np.concatenate([np.diff(shapely.get_coordinates(ring), axis=0) for ring in rings])


def turning(coordinates) -> np.ndarray:
    """Degrees by which a ring turns at its vertices."""
    steps = np.diff(np.asarray(coordinates), axis=0)
    angles = np.arctan2(steps[:, 1], steps[:, 0])
    return np.abs(np.degrees((np.diff(angles) + np.pi) % (2 * np.pi) - np.pi))
