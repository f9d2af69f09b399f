"""Export a model as ONNX, for programs that run ONNX files."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glraster.interchange.onnx_export import export_onnx
from glraster.interchange.publish import check_free, publish
from glraster.model.checkpoint import load
from glraster.model.default import model_path


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
        tile_px: side of the image that the ONNX form takes, a multiple of 4; the model's tile where None.
        overwrite: replace an output that exists.

    Raises:
        UsageError: where the packages of the extra `onnx` are missing, or the side is impossible.
        ModelError: where the model cannot be read, or its ONNX form gives other results.
        OutputError: where the output exists or cannot be written.
    """
    check_free(output, overwrite)
    network, spec = load(model_path(name))
    exported = export_onnx(network, spec, tile_px)
    publish(output, exported.content)
    return ExportResult(str(output), len(exported.content), exported.tile_px, exported.deviation)
