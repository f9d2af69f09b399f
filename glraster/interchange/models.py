"""Import the authors' checkpoints and describe model files."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glraster.errors import OutputError
from glraster.model.checkpoint import model_id, read_spec
from glraster.model.default import model_path


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
        What `model_info` says of the new file.

    Raises:
        ModelError: where a checkpoint is not what its slot needs.
        OutputError: where the output exists or cannot be written.
    """
    from glraster.model.checkpoint import save
    from glraster.model.official import import_official

    if os.path.lexists(output) and not overwrite:
        raise OutputError(f"{output}: exists; use --overwrite to replace it")
    network, spec = import_official(global_path, global_to_local, local_to_global)
    save(network, spec, output)
    return model_info(output)


def model_info(name: str | Path) -> dict[str, Any]:
    """What a model file, or "default", says of itself, and its identity, as JSON values."""
    path = model_path(name)
    return {"model": model_id(path), **asdict(read_spec(path))}
