"""Keep a folder to one process: by a lock of the operating system or, without locks, by a file with its number."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from glraster.errors import GlrasterError, OutputError

log = logging.getLogger(__name__)

LOCK, _SOFT_LOCK = "lock", "lock.soft"
LOCK_FILES = (LOCK, _SOFT_LOCK)
"""The same names in every folder, so that what is one run's confidence cannot be the mask of another."""

_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}
"""What file systems without locks answer."""


class Lock:
    """A lock file in a folder; while one process has it, no other can.

    On a file system without locks (Lustre, FUSE, some NFS) it is a file that names its process instead. One that a
    killed process left is taken over on the same machine.

    Args:
        folder: where the lock file is made.
        error: what to raise if another process has it. busy, advice: what to say then.

    Raises:
        GlrasterError: `error`.
        OSError: if the lock file cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        error: type[GlrasterError] = OutputError,
        busy: str = "another process is working on this output",
        advice: str = "wait for its end",
    ) -> None:
        self._folder = folder
        self._lock: BaseFileLock = FileLock(folder / LOCK, blocking=False, thread_local=False, fallback_to_soft=False)
        try:
            self._acquire()
        except Timeout as held_by_other:
            raise error(busy + self._holder(), where=str(folder), advice=advice) from held_by_other

    def release(self) -> None:
        """Let other processes have it, and remove the lock file."""
        path = Path(self._lock.lock_file)
        if os.name == "posix" and not isinstance(self._lock, SoftFileLock):
            path.unlink(missing_ok=True)  # while it is held: afterwards it could be another process's file
        self._lock.release()
        if os.name == "nt":
            with suppress(OSError):  # another process has it open by now
                path.unlink(missing_ok=True)

    def _acquire(self) -> None:
        try:
            self._lock.acquire()
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in _NO_LOCKS:
                raise
            (self._folder / LOCK).unlink(missing_ok=True)
            log.warning("%s: the file system has no locks; a file there keeps other processes off", self._folder)
            self._lock = SoftFileLock(self._folder / _SOFT_LOCK, blocking=False, thread_local=False)
            self._lock.acquire()

    def _holder(self) -> str:
        if not isinstance(self._lock, SoftFileLock):
            return ""
        with suppress(OSError, ValueError):
            process, host = Path(self._lock.lock_file).read_text(encoding="utf-8").split()[:2]
            return f" (process {process} on {host}; if that has ended, remove {self._lock.lock_file})"
        return f" (if that has ended, remove {self._lock.lock_file})"
