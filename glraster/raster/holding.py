"""Hold the staging folder of an output, so that no two processes write to one output."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from glraster.errors import GlrasterError, OutputError
from glraster.raster.writer import refuse_foreign, remove_if_empty, staging_folder

LOCK = "lock"
"""The name of a journal's lock too: what is one run's confidence may be the mask of another."""


def take_lock(path: Path, error: type[GlrasterError] = OutputError, told: str = "") -> TextIO:
    """Open a lock file, which no other process can do until it is closed.

    Args:
        path: the file; made where it is not there.
        error: what is raised where another process has it.
        told: what is said then, instead of that it works on this output.

    Raises:
        OSError: where the file cannot be opened.
    """
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as held_by_other:
        lock.close()
        wanted = told or "another process is working on this output; wait for its end"
        raise error(f"{path.parent}: {wanted}") from held_by_other
    return lock


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
        lock = take_lock(folder / LOCK)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {os.strerror(error.errno or 0)}") from error
    with lock:
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            remove_if_empty(folder)
