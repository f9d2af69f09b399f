"""The description of a model as a STAC item with the Machine Learning Model extension, version 1.4."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glraster._version import __version__
from glraster.config import ModelSpec
from glraster.interchange.stac import CLASSIFICATION, STAC_VERSION, classification, relative_href
from glraster.model.checkpoint import file_sha256, parameter_count

MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"

_SHA256_MULTIHASH = "1220"
_SPDX = ("MIT", "Apache-2.0", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0")
_PAPER = "https://arxiv.org/abs/1905.06368"


def model_item(file: Path, spec: ModelSpec, folder: Path) -> dict[str, Any]:
    """Describe a model for catalogs of models.

    Args:
        file: the model file.
        spec: the file's metadata.
        folder: the item's folder; the item links to the file relative to it.

    Returns:
        A STAC item as JSON values. It has no geometry: a model file does not know where its training data lie.

    Raises:
        ModelError: the file cannot be read.
    """
    sha256 = file_sha256(file)
    name = f"glraster-{sha256[:12]}"
    asset = {
        "href": relative_href(file, folder),
        "type": "application/vnd.safetensors",
        "title": "Weights and description, for 'glraster segment --model'",
        "roles": ["mlm:model", "mlm:weights", "data"],
        "mlm:artifact_type": "safetensors",
        # STAC 1.1 allows bands in the properties only if an asset has them too
        "bands": [{"name": band} for band in _bands(spec)],
        "file:size": file.stat().st_size,
        "file:checksum": _SHA256_MULTIHASH + sha256,
    }
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [MLM, CLASSIFICATION, FILE],
        "id": name,
        "geometry": None,
        "properties": _properties(name, file, spec),
        "links": [{"rel": "cite-as", "href": _PAPER, "title": "Collaborative Global-Local Networks, CVPR 2019"}],
        "assets": {"model": asset},
    }


def _properties(name: str, file: Path, spec: ModelSpec) -> dict[str, Any]:
    return {
        "title": f"GLNet for {', '.join(c.name for c in spec.classes)}",
        "datetime": _date(spec.provenance, file),
        **_licence(spec.provenance),
        "mlm:name": name,
        "mlm:architecture": "GLNet",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "PyTorch",
        "mlm:total_parameters": parameter_count(file),
        "mlm:accelerator": None,
        "mlm:input": [_input(spec)],
        "mlm:output": [_output(spec)],
        "mlm:hyperparameters": _hyperparameters(spec),
        "bands": [{"name": band} for band in _bands(spec)],
        **({"gsd": spec.gsd_m} if spec.gsd_m else {}),
        **{f"glraster:{key}": value for key, value in sorted(_finite(spec.provenance).items())},
    }


def _input(spec: ModelSpec) -> dict[str, Any]:
    """One tile in full resolution; the thumbnail of its surroundings is read from the same pixels."""
    bands = spec.architecture.bands
    mean, std = (values * bands if len(values) == 1 else values for values in (spec.mean, spec.std))
    scaling = [
        {"type": "z-score", "mean": m * spec.scale, "stddev": s * spec.scale} for m, s in zip(mean, std, strict=True)
    ]
    return {
        "name": "tile",
        "description": "A tile in full resolution"
        if spec.architecture.mode == "tiles"
        else f"A tile in full resolution, and its surroundings of {spec.context_px} px downsampled to "
        f"{spec.thumbnail_px} px, both with the same scaling",
        "bands": _bands(spec),
        "input": {
            "shape": [-1, bands, spec.tile_px, spec.tile_px],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": spec.dtype,
        },
        "value_scaling": scaling,
        "resize_type": None,
    }


def _output(spec: ModelSpec) -> dict[str, Any]:
    cells = -(-spec.tile_px // 4)
    return {
        "name": "logits",
        "description": "Scores of the classes for every 4 x 4 pixels",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, spec.architecture.classes, cells, cells],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": classification(spec.classes),
        "post_processing_function": None,
    }


def _hyperparameters(spec: ModelSpec) -> dict[str, Any]:
    architecture = asdict(spec.architecture)
    sizes = {"context_px": spec.context_px, "tile_px": spec.tile_px, "thumbnail_px": spec.thumbnail_px}
    return {**architecture, **sizes, "glraster_version": __version__}


def _bands(spec: ModelSpec) -> list[str]:
    """Names by position: a model file knows how many bands it reads, not what they are."""
    return [f"band-{i}" for i in range(1, spec.architecture.bands + 1)]


def _date(provenance: Mapping[str, object], file: Path) -> str:
    """The date of the training in the provenance; the time of the file if there is none."""
    try:
        date = datetime.fromisoformat(str(provenance.get("date")))
    except ValueError:
        date = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    date = date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    return date.strftime("%Y-%m-%dT%H:%M:%SZ")


def _licence(provenance: Mapping[str, object]) -> dict[str, Any]:
    """An SPDX identifier, or "other" for any other licence, as STAC asks; its full text stays in the provenance."""
    licence = str(provenance.get("licence") or "")
    identifier = licence.split(" ")[0].rstrip(",;")
    return {"license": identifier if identifier in _SPDX else "other"} if licence else {}


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
