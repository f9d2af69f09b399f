"""Hold the staging folder of an output, so that no two processes write to one output."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from glraster.errors import OutputError
from glraster.raster.writer import refuse_foreign, remove_if_empty, staging_folder

LOCK = "lock"
"""The name of a journal's lock too: what is one run's confidence may be the mask of another."""


@contextmanager
def held(outputs: Iterable[Path]) -> Iterator[None]:
    """Keep other processes off outputs whose staging folders no journal holds.

    Args:
        outputs: the files to be written.

    Raises:
        OutputError: where another process works on one, or its staging folder cannot be made or is not ours.
    """
    with ExitStack() as stack:
        for output in outputs:
            stack.enter_context(_held(staging_folder(output)))
        yield


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    try:
        refuse_foreign(folder)
        folder.mkdir(exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {os.strerror(error.errno or 0)}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{folder}: another process is working on this output; wait for its end") from error
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            remove_if_empty(folder)
