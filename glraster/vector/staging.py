"""A folder beside an output for what is unfinished, held by one process at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glraster.errors import OutputError
from glraster.raster.holding import take_lock

_LOCK = "vectorize.lock"


@contextmanager
def staged(output: Path, folder: Path) -> Iterator[Path]:
    """Give a path in `folder` to write to, and move it to `output` when all went well.

    What an interrupted run left in the folder is removed first; on an error nothing is left.

    Raises:
        OutputError: where the folder cannot be made, is not ours, or is in use.
    """
    if folder.exists() and not (folder / _LOCK).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: is in the way and no folder of vectorize's; move or rename it")
    try:
        folder.mkdir(exist_ok=True)
        lock = take_lock(folder / _LOCK)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {os.strerror(error.errno or 0)}") from error
    with lock:
        try:
            _clear(folder)
            unfinished = folder / output.name
            yield unfinished
            with unfinished.open("rb") as stream:
                os.fsync(stream.fileno())
            unfinished.replace(output)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _clear(folder: Path) -> None:
    for leftover in folder.iterdir():
        if leftover.name != _LOCK:
            leftover.unlink()
