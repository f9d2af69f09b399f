"""The provenance of a map or a model, as names and texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import rasterio

from glraster._version import __version__
from glraster.errors import ModelError
from glraster.model.checkpoint import DEFAULT_MODEL, model_id, model_path, read_spec
from glraster.names import redact
from glraster.raster.class_raster import ClassRaster

_ORIGIN = {
    "catalog": "Catalog",
    "catalog_hash": "Catalog hash",
    "licence": "Licence of the data",
    "recipe": "Recipe",
    "settings": "Settings",
    "val_miou": "mIoU on its val split",
    "date": "Trained",
    "glraster": "Trained with glraster",
}


def map_provenance(
    mask: ClassRaster, model: str | None, sources: Mapping[str, str], command: str | None
) -> dict[str, str]:
    """The provenance of a map: its files, its model, the training of that, and the command of this report."""
    facts = dict(sources)
    made_by = mask.tags.get("GLRASTER_MODEL")
    file = model or (DEFAULT_MODEL if made_by and made_by == model_id(model_path(None)) else None)
    facts["Model"] = (
        " ".join(part for part in (made_by, f"({file})" if file else "") if part) or "unknown: the map does not name it"
    )
    if file is not None:
        if made_by and model_id(model_path(file)) != made_by:
            raise ModelError(f"{file}: did not make {mask.path}, whose model is {made_by}; leave --model out")
        facts |= origin(read_spec(model_path(file)).provenance)
    if "GLRASTER_VERSION" in mask.tags:
        facts["Mapped with glraster"] = mask.tags["GLRASTER_VERSION"]
    return facts | report_facts(command)


def origin(provenance: Mapping[str, object]) -> dict[str, str]:
    """The training of a model, from its metadata."""
    present = {key: provenance[key] for key in _ORIGIN if provenance.get(key) not in (None, "", [])}
    return {_ORIGIN[key]: _text(value) for key, value in present.items()}


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)


def report_facts(command: str | None) -> dict[str, str]:
    """The command, versions and time of a report."""
    facts = {"Command": redact(command)} if command else {}
    versions = f"glraster {__version__}, GDAL {rasterio.__gdal_version__}"
    return {**facts, "Versions": versions, "Report made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}
