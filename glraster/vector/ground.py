"""Areas and lengths in metres on the ground, in any CRS."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from glraster.raster.georef import pixel_area_m2
from glraster.raster.grid import Window
from glraster.vector.compiled import compiled
from glraster.vector.rings import Int64Array

FloatArray = npt.NDArray[np.float64]

_SEMI_MAJOR_M = 6378137.0
_ECCENTRICITY2 = 0.0066943799901413165
_WEB_MERCATOR, _WGS84 = 3857, 4326
_TRUE_ENOUGH = 0.005
"""A CRS whose areas are true to this share over the whole raster is measured on its plane."""


class Ground(Protocol):
    """Measures rings: vertices (n, 2) in the raster's CRS, ring i from `offsets[i]` to `offsets[i + 1]`, closed."""

    def measure(self, xy: FloatArray, offsets: Int64Array) -> tuple[FloatArray, FloatArray]:
        """Signed areas in square metres, positive anticlockwise, and lengths in metres, (rings,)."""


class NoGround:
    """A CRS that tells no metres: nothing is known."""

    def measure(self, xy: FloatArray, offsets: Int64Array) -> tuple[FloatArray, FloatArray]:  # noqa: ARG002
        unknown = np.full(len(offsets) - 1, np.nan)
        return unknown, unknown


class Plane:
    """A projected CRS with true areas, of which one unit is `unit_m` metres."""

    def __init__(self, unit_m: float) -> None:
        self._unit_m = unit_m

    def measure(self, xy: FloatArray, offsets: Int64Array) -> tuple[FloatArray, FloatArray]:
        area, length = np.empty(len(offsets) - 1), np.empty(len(offsets) - 1)
        _measure(xy, offsets, area, length)
        return area * self._unit_m**2, length * self._unit_m


class Ellipsoid:
    """WGS 84, for geographic CRSs, EPSG:3857 and others whose plane is not true.

    Areas are exact for borders along parallels and meridians; others are straight lines in the cylindrical equal-area
    projection. Source: authalic latitude, Snyder 1987, Map Projections, eq. 3-12; radii of curvature, 4-18 to 4-20.
    """

    def __init__(self, crs: CRS) -> None:
        self._crs = crs

    def measure(self, xy: FloatArray, offsets: Int64Array) -> tuple[FloatArray, FloatArray]:
        longitude, latitude = self._lon_lat(xy)
        sine, e = np.sin(latitude), math.sqrt(_ECCENTRICITY2)
        curvature = 1 - _ECCENTRICITY2 * sine**2
        q = (1 - _ECCENTRICITY2) * (sine / curvature + np.arctanh(e * sine) / e)
        area, unused = np.empty(len(offsets) - 1), np.empty(len(offsets) - 1)
        _measure(np.stack([longitude, q], axis=1), offsets, area, unused)
        east_m = _SEMI_MAJOR_M / np.sqrt(curvature) * np.cos(latitude)
        north_m = _SEMI_MAJOR_M * (1 - _ECCENTRICITY2) / curvature**1.5
        steps = np.hypot(
            np.diff(longitude) * (east_m[1:] + east_m[:-1]) / 2, np.diff(latitude) * (north_m[1:] + north_m[:-1]) / 2
        )
        steps = np.append(steps, 0.0)
        steps[offsets[1:] - 1] = 0.0
        return area * _SEMI_MAJOR_M**2 / 2, np.add.reduceat(steps, offsets[:-1])

    def _lon_lat(self, xy: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Longitudes and latitudes in radians."""
        if self._crs.is_geographic:
            unit = self._crs.units_factor[1] or math.radians(1)
            return xy[:, 0] * unit, xy[:, 1] * unit
        if self._crs.to_epsg() == _WEB_MERCATOR:
            return xy[:, 0] / _SEMI_MAJOR_M, np.arctan(np.sinh(xy[:, 1] / _SEMI_MAJOR_M))
        lon, lat = transform_points(self._crs, CRS.from_epsg(_WGS84), xy[:, 0].tolist(), xy[:, 1].tolist())
        return np.radians(lon), np.radians(lat)


def ground_of(crs: CRS | None, transform: Affine, region: Window) -> Ground:
    """How to measure in the CRS of a raster: on its plane where areas are true there, else on the ellipsoid."""
    if crs is None or not (crs.is_geographic or crs.is_projected):
        return NoGround()
    if crs.is_geographic:
        return Ellipsoid(crs)
    unit_m = float(crs.linear_units_factor[1])
    planar = abs(transform.determinant) * unit_m**2
    rows = (region.top, (region.top + region.bottom) / 2, region.bottom)
    columns = (region.left, (region.left + region.right) / 2, region.right)
    true = [pixel_area_m2(crs, transform, row, column) for row in rows for column in columns]
    if all(area is None or abs(area / planar - 1) <= _TRUE_ENOUGH for area in true):
        return Plane(unit_m)
    return Ellipsoid(crs)


@compiled
def _measure(xy: Any, offsets: Any, area: Any, length: Any) -> None:
    for ring in range(len(offsets) - 1):
        begin = offsets[ring]
        x0, y0 = xy[begin, 0], xy[begin, 1]
        before_x, before_y, doubled, total = 0.0, 0.0, 0.0, 0.0
        for i in range(begin + 1, offsets[ring + 1]):
            x, y = xy[i, 0] - x0, xy[i, 1] - y0
            doubled += before_x * y - x * before_y
            total += math.sqrt((x - before_x) ** 2 + (y - before_y) ** 2)
            before_x, before_y = x, y
        area[ring], length[ring] = doubled / 2, total
