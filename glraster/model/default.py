"""The model that comes with glraster."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

DEFAULT_MODEL = "default"
"""The name under which the model that comes with glraster is called."""


def model_path(name: str | os.PathLike[str] | None) -> Path:
    """The file of a model: a path as it is, the one that comes with glraster for "default" or None."""
    if name is None or str(name) == DEFAULT_MODEL:
        return Path(str(files("glraster.model").joinpath("default.safetensors")))
    return Path(name)
