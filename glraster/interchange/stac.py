"""The STAC item of a map: what it is, where it lies, what made it, and from what."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from glraster.config import LandClass
from glraster.errors import SceneError
from glraster.interchange.footprint import footprint
from glraster.interchange.publish import publish_json
from glraster.names import is_remote, redact
from glraster.raster.georef import gsd_m, raster_bounds
from glraster.raster.mask import declared_classes
from glraster.raster.source import reason

STAC_VERSION = "1.1.0"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
PROCESSING = "https://stac-extensions.github.io/processing/v1.1.0/schema.json"

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
_DATE_TAGS = ("ACQUISITIONDATETIME", "TIFFTAG_DATETIME")
_VSI_SCHEMES = {"vsis3": "s3", "vsigs": "gs", "vsiaz": "az", "vsioss": "oss"}


@dataclass(frozen=True)
class MapFiles:
    """The files of one map: the mask, the scene it was made from, and what lies beside it."""

    mask: Path
    scene: str
    confidence: Path | None = None
    probabilities: Path | None = None
    style: Path | None = None


def item_path(mask: Path) -> Path:
    """Where the item of a mask lies: beside it, under its name, ending in `.stac.json`."""
    return mask.with_suffix(".stac.json")


def write_stac_item(files: MapFiles, path: Path, acquired: str | None = None) -> None:
    """Write the STAC item of a finished map; it appears whole or not at all and replaces what was there.

    Args:
        files: what the map is made of; classes, model and grid are read from the mask.
        path: usually `item_path(mask)`; the item names the files relative to its own folder.
        acquired: when the scene was taken, as `acquisition_time` finds it; the time of mapping where None.

    Raises:
        SceneError: where the mask cannot be read.
        OutputError: where the item cannot be written.
    """
    try:
        with rasterio.open(files.mask) as mask:
            item = _item(mask, files, path.absolute().parent, acquired)
    except RasterioError as error:
        raise SceneError(f"{files.mask}: cannot be read: {reason(error, str(files.mask))}") from error
    publish_json(path, item)


def acquisition_time(tags: dict[str, str]) -> str | None:
    """When a scene was taken, in UTC, from its tags; None where they do not tell a date."""
    for key in _DATE_TAGS:
        match = re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)(?:[ T](\d\d:\d\d:\d\d))?", tags.get(key, ""))
        try:
            if match is not None:
                year, month, day, time = match.groups()
                return _utc(datetime.fromisoformat(f"{year}-{month}-{day}T{time or '00:00:00'}+00:00"))
        except ValueError:
            continue
    return None


def classification(classes: Sequence[LandClass]) -> list[dict[str, Any]]:
    """The `classification:classes` of STAC: `name` has only letters, digits, - and _, and tells classes apart."""
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


def _item(mask: DatasetReader, files: MapFiles, folder: Path, acquired: str | None) -> dict[str, Any]:
    geometry, bbox = footprint(mask.crs, mask.transform, mask.height, mask.width)
    now = _utc(datetime.now(UTC))
    item = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [PROJECTION, CLASSIFICATION, PROCESSING],
        "id": files.mask.stem or "map",
        "geometry": geometry,
        "bbox": bbox,
        "properties": {
            "title": f"Land cover of {Path(_scene_href(files.scene, folder)).name}",
            "datetime": acquired or now,
            "created": now,
            **_grid(mask),
            **_processing(mask),
        },
        "links": [{"rel": "derived_from", "href": _scene_href(files.scene, folder), "title": "The scene"}],
        "assets": _assets(mask, files, folder),
    }
    return item if bbox else {key: value for key, value in item.items() if key != "bbox"}


def _grid(mask: DatasetReader) -> dict[str, Any]:
    """The projection extension's fields, and the GSD in metres where the CRS tells it."""
    code = mask.crs.to_authority() if mask.crs else None
    fields: dict[str, Any] = {
        "proj:code": ":".join(code) if code else None,
        "proj:shape": [mask.height, mask.width],
        "proj:transform": list(mask.transform)[:6],
        "proj:bbox": list(raster_bounds(mask.transform, mask.height, mask.width)),
    }
    if mask.crs and not code:
        fields["proj:wkt2"] = mask.crs.to_wkt(version="WKT2_2019")
    gsd = gsd_m(mask.crs, mask.transform, mask.height, mask.width)
    return fields | ({"gsd": round(max(gsd), 6)} if gsd else {})


def _processing(mask: DatasetReader) -> dict[str, Any]:
    tags = mask.tags()
    model = tags.get("GLRASTER_MODEL", "unknown")
    return {
        "processing:lineage": f"Classified with GLNet, model {model}",
        "processing:software": {"glraster": tags.get("GLRASTER_VERSION", "unknown")},
    }


def _assets(mask: DatasetReader, files: MapFiles, folder: Path) -> dict[str, Any]:
    def raster(file: Path, title: str, roles: list[str]) -> dict[str, Any]:
        href = relative_href(file, folder)
        return {"href": href, "type": COG_TYPE, "title": title, "roles": roles, "data_type": "uint8", "nodata": 255}

    classes = declared_classes(mask)
    found: dict[str, Any] = {"mask": raster(files.mask, "Class of every pixel", ["data"])}
    if classes:
        found["mask"]["classification:classes"] = classification(classes)
    if files.confidence is not None:
        found["confidence"] = raster(files.confidence, "Probability of the class in per cent", ["metadata"])
    if files.probabilities is not None:
        found["probabilities"] = raster(files.probabilities, "Probability of every class in per cent", ["metadata"])
    if files.style is not None:
        href = relative_href(files.style, folder)
        found["style"] = {"href": href, "type": "application/xml", "title": "QGIS style", "roles": ["metadata"]}
    return found


def _scene_href(scene: str, folder: Path) -> str:
    """The scene as a link, without accounts and signatures."""
    if not is_remote(scene):
        return relative_href(Path(scene.removeprefix("file://")), folder)
    bare = redact(scene).split("?")[0].replace("://...@", "://").removeprefix("/vsicurl/")
    match = re.match(r"/(vsi\w+)/(.+)", bare)
    return f"{_VSI_SCHEMES[match[1]]}://{match[2]}" if match and match[1] in _VSI_SCHEMES else bare


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
