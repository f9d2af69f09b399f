"""Where a raster lies on the Earth, as GeoJSON wants it: longitude and latitude, split at the antimeridian."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points

FloatArray = npt.NDArray[np.float64]

_WGS84 = CRS.from_epsg(4326)
_EDGE_POINTS = 21
"""Points along one edge: straight lines of a projection are curves in longitude and latitude."""


def footprint(
    crs: CRS | None, transform: Affine, height: int, width: int
) -> tuple[dict[str, Any], list[float]] | tuple[None, None]:
    """The outline of a raster and the box around it.

    Args:
        crs: of the raster.
        transform: pixel (column, row) to CRS.
        height, width: in pixels.

    Returns:
        A GeoJSON geometry, and (west, south, east, north) in degrees; west is greater than east across the
        antimeridian. None twice where the raster has no CRS, or one that is not on the Earth.

    Source: RFC 7946, sections 3.1.9 and 5.2.
    """
    if crs is None or not (crs.is_geographic or crs.is_projected):
        return None, None
    ring = _ring(height, width)
    points = [transform @ (column, row) for row, column in ring]
    try:
        longitude, latitude = transform_points(crs, _WGS84, [x for x, _ in points], [y for _, y in points])
    except (RasterioError, CPLE_BaseError):  # points outside the projection come as GDAL's own error
        return None, None
    lon, lat = np.asarray(longitude), np.asarray(latitude)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None, None
    return _on_the_globe(np.unwrap(lon, period=360), np.clip(lat, -90, 90))


def _on_the_globe(lon: FloatArray, lat: FloatArray) -> tuple[dict[str, Any], list[float]]:
    """A closed ring whose longitudes go on beyond 180, as a geometry of longitudes from -180 to 180 and its box."""
    south, north = float(lat.min()), float(lat.max())
    around_pole = abs(lon[-1] - lon[0]) > 180
    if around_pole:
        pole = 90.0 if lat.mean() > 0 else -90.0
        lon, lat = np.append(lon, [lon[-1], lon[0]]), np.append(lat, [pole, pole])
        south, north = min(south, pole), max(north, pole)
    ring = shapely.make_valid(shapely.Polygon(np.column_stack([lon, lat])))
    turns = range(math.floor((lon.min() + 180) / 360), math.floor((lon.max() + 180) / 360) + 1)
    # around a pole the ring starts and ends in one turn: its pieces there touch
    joined = shapely.union_all([_one_turn(ring, turn) for turn in turns])
    pieces = [piece for piece in shapely.get_parts(joined) if piece.area > 0]
    if around_pole or lon.max() - lon.min() >= 360:
        west, east = -180.0, 180.0
    elif len(turns) > 1 and len(pieces) > 1:
        west, east = float(lon.min()) - 360 * turns[0], float(lon.max()) - 360 * turns[-1]
    else:
        west, _, east, _ = shapely.MultiPolygon(pieces).bounds
    geometry = pieces[0] if len(pieces) == 1 else shapely.MultiPolygon(pieces)
    return _geojson(geometry), [round(v, 7) for v in (west, south, east, north)]


def _one_turn(shape: Any, turn: int) -> Any:
    """What of a shape lies in one turn of 360 degrees, moved to -180 to 180."""
    part = shapely.intersection(shape, shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90))
    return shapely.transform(part, lambda xy: xy - [360 * turn, 0])


def _ring(height: int, width: int) -> list[tuple[float, float]]:
    """(row, column) along the four edges, counter-clockwise from the upper left corner, closed."""
    steps = [i / (_EDGE_POINTS - 1) for i in range(_EDGE_POINTS - 1)]
    left = [(s * height, 0.0) for s in steps]
    bottom = [(float(height), s * width) for s in steps]
    right = [((1 - s) * height, float(width)) for s in steps]
    top = [(0.0, (1 - s) * width) for s in steps]
    return [*left, *bottom, *right, *top, (0.0, 0.0)]


def _geojson(geometry: shapely.Polygon | shapely.MultiPolygon) -> dict[str, Any]:
    """Rings counter-clockwise, degrees to seven decimals: a centimetre."""
    oriented = shapely.orient_polygons(geometry)
    mapped = shapely.geometry.mapping(oriented)
    return {"type": mapped["type"], "coordinates": _rounded(mapped["coordinates"])}


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_rounded(item) for item in value]
    return round(value, 7) if math.isfinite(value) else value
