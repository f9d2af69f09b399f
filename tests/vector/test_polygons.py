"""Polygons are GDAL's, valid, and a coverage, whatever the band they were traced in."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from vector.masks import as_set, blobs, checkerboard, gdal_polygons, noise, polygons, rivers, spiral

MASKS = {
    "blobs": blobs(60, 83, seed=1),
    "noise": noise(23, 31, seed=2),
    "checkerboard": checkerboard(17, 12),
    "spiral": spiral(25),
    "rivers": rivers(31, 40),
    "single pixel": np.ones((1, 1), np.uint8),
    "one row": noise(1, 40, seed=3),
    "one column": noise(40, 1, seed=4),
    "all blank": np.zeros((5, 6), np.uint8),
}


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
@pytest.mark.parametrize("name", MASKS)
def test_polygons_are_those_of_gdal_in_bands_of_any_height(name, rows):
    found = polygons(MASKS[name], rows)
    assert as_set(found) == as_set(gdal_polygons(MASKS[name]))
    assert all(polygon.is_valid for _, polygon in found)
    assert shapely.coverage_is_valid([polygon for _, polygon in found])


SMALL = arrays(
    st.sampled_from([np.uint8, np.int32]), st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)
)


@settings(max_examples=300, deadline=None)
@given(SMALL, st.integers(1, 6))
def test_any_small_mask_gives_the_polygons_of_gdal(mask, rows):
    found = polygons(mask, rows)
    assert as_set(found) == as_set(gdal_polygons(mask))
    assert all(polygon.is_valid for _, polygon in found)
    assert shapely.coverage_is_valid([polygon for _, polygon in found])


@settings(max_examples=300, deadline=None)
@given(SMALL, st.integers(1, 6))
def test_parts_that_touch_at_a_corner_are_one_valid_multipolygon(mask, rows):
    """GDAL's own polygons are invalid where a part touches itself at a corner: they are compared after a repair."""
    found = polygons(mask, rows, diagonal=True)
    theirs = [(value, shapely.make_valid(polygon)) for value, polygon in gdal_polygons(mask, connectivity=8)]
    assert all(polygon.is_valid and polygon.geom_type == "MultiPolygon" for _, polygon in found)
    assert as_multi_set(found) == as_multi_set(theirs)


def as_multi_set(found):
    return as_set([(value, shapely.multipolygons(shapely.get_parts(geometry))) for value, geometry in found])


def test_outer_rings_run_counter_clockwise():
    assert all(shapely.is_ccw(shapely.get_exterior_ring(polygon)) for _, polygon in polygons(MASKS["blobs"], 9))


def test_vertices_are_only_corners_and_meeting_points():
    """A strip beside two patches has the point where they meet, and no other vertex on its straight side."""
    mask = np.array([[1] * 8, [2, 2, 2, 3, 3, 3, 3, 3]], np.uint8)
    strip = next(polygon for value, polygon in polygons(mask, 1) if value == 1)
    assert set(strip.exterior.coords) == {(0, 0), (8, 0), (8, 1), (3, 1), (0, 1)}
