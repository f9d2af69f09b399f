"""Describe a model for catalogs of models: a STAC item with the Machine Learning Model extension."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from glraster.interchange.mlm import model_item
from glraster.interchange.publish import check_free, publish_json
from glraster.model.checkpoint import read_spec
from glraster.model.default import model_path


def describe_model(
    name: str | os.PathLike[str], output: Path | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Describe a model file, or "default", as a STAC item.

    Args:
        name: the model.
        output: where to write the item; not written where None.
        overwrite: replace an item that exists.

    Returns:
        The item as JSON values; its link to the model is relative to the output's folder, or to the current one.

    Raises:
        ModelError: where the model cannot be read.
        OutputError: where the output exists or cannot be written.
    """
    if output is not None:
        check_free(output, overwrite)
    file = model_path(name)
    folder = Path.cwd() if output is None else output.absolute().parent
    item = model_item(file, read_spec(file), folder)
    if output is not None:
        publish_json(output, item)
    return item
