"""Import the authors' checkpoints; tell what model files hold; describe and export them for other programs."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glraster.files import claim, write_file, write_json
from glraster.interchange.mlm import model_item
from glraster.model.checkpoint import load, model_id, model_path, read_spec, save


def import_model(
    output: Path,
    *,
    global_path: Path | None = None,
    global_to_local: Path | None = None,
    local_to_global: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write one model file from the authors' checkpoints; see `glraster.model.official.import_official`.

    Returns:
        The `model_info` of the new file.

    Raises:
        ModelError: a checkpoint is not what its slot needs.
        UsageError: the output is one of the checkpoints.
        OutputError: the output exists or cannot be written.
    """
    from glraster.model.official import import_official

    claim(output, inputs=[global_path, global_to_local, local_to_global], overwrite=overwrite)
    network, spec = import_official(global_path, global_to_local, local_to_global)
    save(network, spec, output)
    return model_info(output)


def model_info(name: str | Path) -> dict[str, Any]:
    """The identity and the metadata of a model file, or of "default", as JSON values."""
    path = model_path(name)
    return {"model": model_id(path), **asdict(read_spec(path))}


def describe_model(
    name: str | os.PathLike[str], output: Path | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Describe a model as a STAC item with the Machine Learning Model extension.

    Args:
        name: a model file, or "default".
        output: where to write the item; it is not written if None.
        overwrite: replace an item that exists.

    Returns:
        The item as JSON values; its link to the model is relative to the output's folder, or to the current one.

    Raises:
        UsageError: the output is the model.
        ModelError: the model cannot be read.
        OutputError: the output exists or cannot be written.
    """
    file = model_path(name)
    if output is not None:
        claim(output, inputs=[file], overwrite=overwrite)
    folder = Path.cwd() if output is None else output.absolute().parent
    item = model_item(file, read_spec(file), folder)
    if output is not None:
        write_json(output, item)
    return item


@dataclass(frozen=True)
class ExportResult:
    """The ONNX file, its size, the side of its tile, and its largest deviation from torch in probability."""

    output: str
    bytes: int
    tile_px: int
    deviation: float

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)


def export_model(
    name: str | os.PathLike[str], output: Path, *, tile_px: int | None = None, overwrite: bool = False
) -> ExportResult:
    """Write the single-input ONNX form of a model; it appears whole or not at all.

    Args:
        name: a model file, or "default".
        output: usually `*.onnx`.
        tile_px: side of the image that the ONNX form takes, a multiple of 4; the model's tile if None.
        overwrite: replace an output that exists.

    Raises:
        UsageError: the packages of the extra `onnx` are missing, the side is impossible, or the output is the model.
        ModelError: the model cannot be read, or its ONNX form gives other results.
        OutputError: the output exists or cannot be written.
    """
    from glraster.interchange.onnx_export import export_onnx

    model = model_path(name)
    claim(output, inputs=[model], overwrite=overwrite)
    network, spec = load(model)
    exported = export_onnx(network, spec, tile_px)
    write_file(output, exported.content)
    return ExportResult(str(output), len(exported.content), exported.tile_px, exported.deviation)
