"""Make a long computation resumable: a folder of finished parts and a record of what they belong to."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from glraster.errors import OutputError, ResumeError

JOURNAL_FORMAT = 1
PUBLISHING = "publishing"


class Journal:
    """The staging folder of one output, held by one process at a time.

    `fingerprint` is all that decides the parts' bytes, as JSON values. Use as a context manager: entering creates
    the folder or, with `resume`, checks that its parts have the same fingerprint; leaving with an error removes the
    folder where no part was finished, and keeps it otherwise.

    Raises:
        ResumeError: on entering, where parts of another computation, or of one that was not asked for, are there.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, object], *, resume: bool, overwrite: bool) -> None:
        self.folder = folder
        self._fingerprint = json.loads(json.dumps(fingerprint))
        self._resume = resume
        self._overwrite = overwrite
        self._lock: IO[str] | None = None

    @property
    def _file(self) -> Path:
        return self.folder / "journal.json"

    def __enter__(self) -> Journal:
        try:
            self._refuse_foreign()
            self.folder.mkdir(exist_ok=True)
            self._hold()
            if not self._file.exists():
                self._start()
            elif self._resume:
                self._compare()
            elif self._overwrite:
                self._clear()
                self._start()
            else:
                raise ResumeError(
                    f"{self.folder}: holds the parts of an interrupted run; go on with --resume, or discard them with "
                    "--overwrite"
                )
        except OSError as error:
            self._release()
            raise OutputError(f"{self.folder}: cannot be written: {os.strerror(error.errno or 0)}") from error
        except ResumeError:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.folder.exists() and not any(self.folder.glob("window_*.npy")):
            self.discard()
        self._release()

    def publishing(self, outputs: Iterable[Path]) -> None:
        """Note that these outputs are complete and about to get their names: from here on, they are this run's."""
        _write_durably(self.folder / PUBLISHING, "\n".join(str(path.absolute()) for path in outputs))

    def discard(self) -> None:
        """Remove the parts: the output is complete. Killed on the way, it leaves a folder that is known as ours."""
        for pattern in ("window_*", "*.tif*", PUBLISHING, "journal.*", "lock"):
            for leftover in self.folder.glob(pattern):
                leftover.unlink()
        self.folder.rmdir()

    def _hold(self) -> None:
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            self._lock = None
            raise ResumeError(f"{self.folder}: another process is working on this output; wait for its end") from error

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _refuse_foreign(self) -> None:
        names = {entry.name for entry in self.folder.iterdir()} if self.folder.exists() else set()
        if self._file.name not in names and names - {"lock", "journal.tmp", "journal.run"}:
            raise ResumeError(f"{self.folder}: is in the way and no folder of glraster's; move or rename it")

    def _clear(self) -> None:
        for pattern in ("window_*", "*.tif*", "journal.*", PUBLISHING):
            for leftover in self.folder.glob(pattern):
                leftover.unlink()

    def _start(self) -> None:
        record = {"format": JOURNAL_FORMAT, "fingerprint": self._fingerprint}
        _write_durably(self._file, json.dumps(record, indent=1))

    def _compare(self) -> None:
        try:
            record = json.loads(self._file.read_text())
            known, kind = dict(record["fingerprint"]), record["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise ResumeError(f"{self._file}: is damaged; start anew with --overwrite") from error
        if kind != JOURNAL_FORMAT:
            raise ResumeError(f"{self._file}: is of another version of glraster; start anew with --overwrite")
        changed = [key for key in {**known, **self._fingerprint} if known.get(key) != self._fingerprint.get(key)]
        if changed:
            told = "; ".join(f"{key} was {_brief(known, key)}, is {_brief(self._fingerprint, key)}" for key in changed)
            raise ResumeError(
                f"{self.folder}: the finished parts belong to another run: {told}; repeat its call, or start anew "
                "with --overwrite"
            )


def published(folder: Path) -> set[str]:
    """Absolute names of the outputs that an interrupted run had begun to publish."""
    note = folder / PUBLISHING
    return set(note.read_text().splitlines()) if note.exists() else set()


def _write_durably(path: Path, text: str) -> None:
    """Write a file that is whole or absent, also after a power failure."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _brief(fingerprint: Mapping[str, object], key: str) -> str:
    text = json.dumps(fingerprint.get(key))
    return text if len(text) <= 60 else f"{text[:57]}..."
