"""The STAC item of a map: what it is, where it lies, what made it, and from what.

Needs the extra `stac` (pystac, antimeridian), which is imported only where an item is made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import transform as transform_points

from glraster.config import LandClass
from glraster.errors import SceneError
from glraster.files import write_json
from glraster.names import is_remote, redact
from glraster.raster.class_names import declared_classes
from glraster.raster.georef import gsd_m, raster_bounds
from glraster.raster.source import reason

if TYPE_CHECKING:
    import pystac

STAC_EXTRA = ("pystac", "antimeridian")
STAC_VERSION = "1.1.0"
CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
PROCESSING = "https://stac-extensions.github.io/processing/v1.1.0/schema.json"

_DATE_TAGS = ("ACQUISITIONDATETIME", "TIFFTAG_DATETIME")
_VSI_SCHEMES = {"vsis3": "s3", "vsigs": "gs", "vsiaz": "az", "vsioss": "oss"}

_WGS84 = CRS.from_epsg(4326)
_EDGE_STEPS = 20
"""Steps along one edge of a footprint: a straight line of a projection is curved in longitude and latitude."""
_DIGITS = 7
"""Decimals of a degree: a centimetre."""


@dataclass(frozen=True)
class MapFiles:
    """The files of one map: the mask, the scene it was made from, and what lies beside it."""

    mask: Path
    scene: str
    confidence: Path | None = None
    probabilities: Path | None = None
    style: Path | None = None


def write_stac_item(files: MapFiles, path: Path, acquired: datetime | None = None) -> None:
    """Write the STAC item of a finished map; it appears whole or not at all and replaces what was there.

    Args:
        files: of the map; classes, model and grid are read from the mask.
        path: usually `item_path(mask)`; the item names the files relative to its own folder.
        acquired: when the scene was taken, see `acquisition_time`; the time of mapping if None.

    Raises:
        SceneError: the mask cannot be read.
        OutputError: the item cannot be written.
    """
    try:
        with rasterio.open(files.mask) as mask:
            item = _item(mask, files, path.absolute().parent, acquired)
    except RasterioError as error:
        raise SceneError(f"{files.mask}: cannot be read: {reason(error, str(files.mask))}") from error
    write_json(path, item.to_dict(include_self_link=False, transform_hrefs=False))


def acquisition_time(tags: dict[str, str]) -> datetime | None:
    """When a scene was taken, in UTC, from its tags; None if they hold no date."""
    for key in _DATE_TAGS:
        match = re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)(?:[ T](\d\d:\d\d:\d\d))?", tags.get(key, ""))
        try:
            if match is not None:
                year, month, day, time = match.groups()
                return datetime.fromisoformat(f"{year}-{month}-{day}T{time or '00:00:00'}+00:00")
        except ValueError:
            continue
    return None


def classification(classes: Sequence[LandClass]) -> list[dict[str, Any]]:
    """The `classification:classes` of STAC. Each `name` is unique and has only letters, digits, - and _."""
    names = [re.sub(r"[^0-9A-Za-z_-]+", "_", c.name).strip("_") for c in classes]
    unique = [n if n and names.count(n) == 1 else f"{n or 'class'}_{c.id}" for n, c in zip(names, classes, strict=True)]
    return [
        {"value": c.id, "name": name, "title": c.name, "description": c.name, "color_hint": bytes(c.color).hex()}
        for name, c in zip(unique, classes, strict=True)
    ]


def relative_href(file: Path, folder: Path) -> str:
    """A file as a link from a folder."""
    href = quote(Path(os.path.relpath(file.absolute(), folder)).as_posix())
    return href if href.startswith("../") else f"./{href}"


def footprint(
    crs: CRS | None, transform: Affine, height: int, width: int
) -> tuple[shapely.Polygon | shapely.MultiPolygon, list[float]] | tuple[None, None]:
    """The outline of a raster in longitude and latitude, split at the antimeridian, and the box around it.

    Args:
        crs: of the raster.
        transform: pixel (column, row) to CRS.
        height, width: in pixels.

    Returns:
        The outline, counter-clockwise, and (west, south, east, north) in degrees; west is greater than east across
        the antimeridian. None twice for a raster without a CRS, or with one that is not on the Earth.

    Source: RFC 7946, sections 3.1.9 and 5.2.
    """
    import antimeridian

    if crs is None or not (crs.is_geographic or crs.is_projected):
        return None, None
    ring = [transform @ corner for corner in _outline(height, width)]
    if not shapely.LinearRing(ring).is_ccw:  # rows that run northwards
        ring.reverse()
    try:
        degrees = transform_points(crs, _WGS84, [x for x, _ in ring], [y for _, y in ring])
    except (RasterioError, CPLE_BaseError):  # points outside the projection come as GDAL's own error
        return None, None
    if not np.isfinite(degrees).all():
        return None, None
    longitude, latitude = np.asarray(degrees[0]), np.clip(degrees[1], -90, 90)
    if np.ptp(np.unwrap(longitude, period=360)[[0, _EDGE_STEPS, 2 * _EDGE_STEPS, 3 * _EDGE_STEPS]]) >= 360:
        shape = shapely.box(-180, latitude.min(), 180, latitude.max())
    else:
        polygon = shapely.Polygon(np.column_stack([longitude, latitude]))
        # the ring is counter-clockwise on the Earth, so that one around a pole encloses it
        shape = antimeridian.fix_polygon(polygon, fix_winding=False, great_circle=False)
    if not shape.is_valid:  # an edge on the antimeridian leaves a piece without area
        shape = shapely.orient_polygons(shapely.make_valid(shape, method="structure", keep_collapsed=False))
    shape = shapely.transform(shape, lambda degrees: degrees.round(_DIGITS))
    return shape, antimeridian.bbox(shape)


def _outline(height: int, width: int) -> list[tuple[float, float]]:
    """(column, row) along the four edges, closed: down, right, up, left."""
    corners = [(0, 0), (0, height), (width, height), (width, 0), (0, 0)]
    columns, rows = (
        np.interp(np.arange(4 * _EDGE_STEPS + 1), np.arange(5) * _EDGE_STEPS, axis)
        for axis in zip(*corners, strict=True)
    )
    return list(zip(columns.tolist(), rows.tolist(), strict=True))


def _item(mask: DatasetReader, files: MapFiles, folder: Path, acquired: datetime | None) -> pystac.Item:
    import pystac
    from pystac.extensions.classification import Classification, ClassificationExtension
    from pystac.extensions.projection import ProjectionExtension

    shape, bbox = footprint(mask.crs, mask.transform, mask.height, mask.width)
    gsd = gsd_m(mask.crs, mask.transform, mask.height, mask.width)
    scene, now, tags = _scene_href(files.scene, folder), datetime.now(UTC), mask.tags()
    item = pystac.Item(
        id=files.mask.stem or "map",
        geometry=None if shape is None else shapely.geometry.mapping(shape),
        bbox=bbox,
        datetime=acquired or now,
        properties={
            "title": f"Land cover of {Path(scene).name}",
            "created": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "processing:lineage": f"Classified with GLNet, model {tags.get('GLRASTER_MODEL', 'unknown')}",
            "processing:software": {"glraster": tags.get("GLRASTER_VERSION", "unknown")},
            **({"gsd": round(max(gsd), 6)} if gsd else {}),
        },
        stac_extensions=[PROCESSING],
        assets=_assets(files, folder),
    )
    code = mask.crs.to_authority() if mask.crs else None
    ProjectionExtension.ext(item, add_if_missing=True).apply(
        code=":".join(code) if code else None,
        wkt2=mask.crs.to_wkt(version="WKT2_2019") if mask.crs and not code else None,
        shape=[mask.height, mask.width],
        transform=list(mask.transform)[:6],
        bbox=list(raster_bounds(mask.transform, mask.height, mask.width)),
    )
    classes = [Classification(c) for c in classification(declared_classes(mask))]
    if classes:
        ClassificationExtension.ext(item.assets["mask"], add_if_missing=True).apply(classes)
    item.add_link(pystac.Link("derived_from", scene, title="The scene"))
    return item


def _assets(files: MapFiles, folder: Path) -> dict[str, pystac.Asset]:
    """An asset for each file of a map that there is."""
    from pystac import Asset, MediaType

    pixels = {"data_type": "uint8", "nodata": 255}
    assets = {
        "mask": (files.mask, "Class of every pixel", MediaType.COG, "data", pixels),
        "confidence": (files.confidence, "Probability of the class in per cent", MediaType.COG, "metadata", pixels),
        "probabilities": (
            files.probabilities, "Probability of every class in per cent", MediaType.COG, "metadata", pixels,
        ),
        "style": (files.style, "QGIS style", MediaType.XML, "metadata", {}),
    }  # fmt: skip
    return {
        name: Asset(relative_href(file, folder), title, media_type=kind, roles=[role], extra_fields=dict(fields))
        for name, (file, title, kind, role, fields) in assets.items()
        if file is not None
    }


def _scene_href(scene: str, folder: Path) -> str:
    """The scene as a link, without accounts and signatures."""
    if not is_remote(scene):
        return relative_href(Path(scene.removeprefix("file://")), folder)
    bare = redact(scene).split("?")[0].replace("://...@", "://").removeprefix("/vsicurl/")
    match = re.match(r"/(vsi\w+)/(.+)", bare)
    return f"{_VSI_SCHEMES[match[1]]}://{match[2]}" if match and match[1] in _VSI_SCHEMES else bare
