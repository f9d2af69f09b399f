"""Pixels on the ground: their size in metres, their area, and the pixels inside given bounds."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points

from glraster.errors import SceneError
from glraster.raster.grid import Window

_SEMI_MAJOR_M = 6378137.0
_FLATTENING = 1 / 298.257223563
_WGS84 = "EPSG:4326"  # as text: importing this module must not need a PROJ database


def pixel_vectors_m(crs: CRS | None, transform: Affine, row: float, column: float) -> npt.NDArray[np.float64] | None:
    """The ground vectors (east, north) in metres of one step down and one step right at a pixel.

    The steps are measured on the WGS 84 ellipsoid, so they are true metres also in a geographic CRS and in
    EPSG:3857. Source: radii of curvature, Snyder 1987, Map Projections, eq. 4-18 to 4-20.

    Returns:
        (2, 2): row step, column step; None if the raster has no CRS, or one that is not on the Earth.
    """
    if crs is None or not (crs.is_geographic or crs.is_projected):
        return None
    points = [transform @ point for point in ((column, row), (column, row + 1), (column + 1, row))]
    try:
        longitude, latitude = transform_points(crs, _WGS84, [p[0] for p in points], [p[1] for p in points])
    except (RasterioError, CPLE_BaseError):  # points outside the projection come as GDAL's own error
        return None
    lon, lat = np.radians(longitude), np.radians(latitude)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None
    eccentricity2 = _FLATTENING * (2 - _FLATTENING)
    curvature = 1 - eccentricity2 * math.sin(lat[0]) ** 2
    north_m = _SEMI_MAJOR_M * (1 - eccentricity2) / curvature**1.5
    east_m = _SEMI_MAJOR_M / math.sqrt(curvature) * math.cos(lat[0])
    eastward = (lon[1:] - lon[0] + math.pi) % (2 * math.pi) - math.pi  # a step may cross the antimeridian
    return np.stack([eastward * east_m, (lat[1:] - lat[0]) * north_m], axis=1)


def gsd_m(crs: CRS | None, transform: Affine, height: int, width: int) -> tuple[float, float] | None:
    """Ground sample distance in metres of rows and columns at the raster's centre; None if unknown."""
    vectors = pixel_vectors_m(crs, transform, height / 2, width / 2)
    if vectors is None:
        return None
    down, right = (float(np.hypot(*vector)) for vector in vectors)
    return (down, right) if down > 0 and right > 0 else None


def pixel_area_m2(crs: CRS | None, transform: Affine, row: float, column: float) -> float | None:
    """Ground area in square metres of the pixel at a row and column; None if the CRS has no metres."""
    vectors = pixel_vectors_m(crs, transform, row, column)
    return None if vectors is None else abs(float(np.linalg.det(vectors)))


def bounds_window(bounds: tuple[float, float, float, float], transform: Affine, height: int, width: int) -> Window:
    """The whole pixels of a raster that `bounds` (left, bottom, right, top in its CRS) touch.

    Raises:
        SceneError: if the bounds are empty or miss the raster.
    """
    left, bottom, right, top = bounds
    if not (left < right and bottom < top and all(map(math.isfinite, bounds))):
        raise SceneError(f"bounds {bounds} are empty; give LEFT BOTTOM RIGHT TOP with left < right, bottom < top")
    corners = [~transform @ corner for corner in ((left, top), (left, bottom), (right, top), (right, bottom))]
    columns, rows = [c for c, _ in corners], [r for _, r in corners]
    # Bounds copied from a file carry rounding noise. Less than a thousandth of a pixel does not touch it.
    first_row, first_column = math.floor(min(rows) + 1e-3), math.floor(min(columns) + 1e-3)
    last_row, last_column = math.ceil(max(rows) - 1e-3), math.ceil(max(columns) - 1e-3)
    window = Window(first_row, first_column, max(1, last_row - first_row), max(1, last_column - first_column))
    inside = window.intersection(Window(0, 0, height, width))
    if inside is None:
        raise SceneError(
            f"bounds {bounds} lie outside the scene, which covers {raster_bounds(transform, height, width)}"
        )
    return inside


def raster_bounds(transform: Affine, height: int, width: int) -> tuple[float, float, float, float]:
    """(left, bottom, right, top) of a raster's four corners, also if it is rotated or south-up."""
    corners = [transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return min(xs), min(ys), max(xs), max(ys)
