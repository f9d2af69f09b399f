"""Put a small file in its place: whole or not at all, and never over another by accident."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from glraster.errors import OutputError


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse an output that exists or has no folder, before the work for it is done.

    Raises:
        OutputError: with what to do.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give a file name")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path}: its folder does not exist; create it first")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path}: exists; use --overwrite to replace it")


def publish(path: Path, content: bytes) -> None:
    """Write a file beside its place, then rename it there. A link in its place is replaced, not what it points to.

    Raises:
        OutputError: where the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {os.strerror(error.errno or 0)}") from error


def publish_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON document; numbers that JSON lacks (NaN, infinity) are an error of the caller."""
    publish(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
