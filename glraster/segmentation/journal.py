"""Make a long computation resumable: finished parts, and a record of what they belong to, in a folder or a store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from glraster.errors import GlrasterError, OutputError, ResumeError
from glraster.files import cannot_write, is_foreign, is_unfinished, remove_if_empty
from glraster.locks import Lock
from glraster.segmentation.parts import forget_fetched
from glraster.segmentation.stores import FolderStore, Store

JOURNAL_FORMAT = 1
JOURNAL, RUN_FILE, PUBLISHING = "journal.json", "journal.run", "publishing"
"""Files beside the parts. `RUN_FILE` holds the token of the run that the parts are for: a worker of a run that ended
writes into no other."""


class Journal:
    """The staging folder of one output, held by one process at a time, and the store of its parts.

    `fingerprint` is all that decides the parts' bytes, as JSON values; the store is the folder itself if None. Use
    as a context manager: entering creates the folder or, with `resume`, checks that its parts have the same
    fingerprint; leaving with an error removes all if no part is finished, and keeps it otherwise.

    Raises:
        ResumeError: on entering, if parts of another computation are there, or of this one without `resume`.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, object],
        *,
        resume: bool,
        overwrite: bool,
        store: Store | None = None,
    ) -> None:
        self.folder = folder
        self.store = store or FolderStore(folder)
        self._fingerprint = json.loads(json.dumps(fingerprint))
        self._resume = resume
        self._overwrite = overwrite
        self._lock: Lock | None = None

    def __enter__(self) -> Journal:
        try:
            self._refuse_foreign()
            self.folder.mkdir(exist_ok=True)
            self._lock = Lock(self.folder, ResumeError)
            forget_fetched(self.folder)
            known = self.store.read(JOURNAL)
            if known is None:
                self._start()
            elif self._resume:
                self._compare(known)
            elif self._overwrite:
                self._clear()
                self._start()
            else:
                raise ResumeError(
                    f"{self.store.name}: holds the parts of an interrupted run; go on with --resume, or discard them "
                    "with --overwrite"
                )
        except OSError as error:
            self._release()
            raise cannot_write(self.folder, error) from error
        except GlrasterError:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        forget_fetched(self.folder)
        try:
            if self.folder.exists() and not any(_is_part(file) for file in self.store.files()):
                self.discard()
        except OutputError:
            if error is None:
                raise
        self._release()

    def publishing(self, outputs: Iterable[Path]) -> None:
        """Note that these outputs are complete and about to get their names: from here on, they are this run's."""
        self.store.write(PUBLISHING, "\n".join(str(path.absolute()) for path in outputs).encode())

    def discard(self) -> None:
        """Remove the parts: the output is complete. Killed on the way, it leaves a folder that is known as ours."""
        self._clear()
        self.store.close()
        forget_fetched(self.folder)
        for pattern in ("*.tif*", "names.xml"):
            for leftover in self.folder.glob(pattern):
                leftover.unlink()

    def _release(self) -> None:
        """Give the folder back, and remove it if it holds nothing else than the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        with suppress(OSError):
            remove_if_empty(self.folder)

    def _refuse_foreign(self) -> None:
        beside = FolderStore(self.folder).files()
        for name, files in ((self.folder, beside), (self.store.name, self.store.files())):
            if is_foreign(files):
                raise ResumeError(f"{name}: is in the way and no folder of glraster's; move or rename it")

    def _clear(self) -> None:
        """Remove the parts first and the record last."""
        files = self.store.files()
        self.store.remove(sorted(file for file in files if file.startswith("window_")))
        self.store.remove(file for file in files if file.endswith(".tif") or is_unfinished(file) or file == PUBLISHING)
        self.store.remove(sorted(file for file in files if file.startswith("journal.")))

    def _start(self) -> None:
        record = {"format": JOURNAL_FORMAT, "fingerprint": self._fingerprint}
        self.store.write(JOURNAL, json.dumps(record, indent=1).encode())

    def _compare(self, content: bytes) -> None:
        name = f"{self.store.name}/{JOURNAL}"
        try:
            record = json.loads(content)
            known, kind = dict(record["fingerprint"]), record["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise ResumeError(f"{name}: is damaged; start anew with --overwrite") from error
        if kind != JOURNAL_FORMAT:
            raise ResumeError(f"{name}: is of another version of glraster; start anew with --overwrite")
        changed = [key for key in {**known, **self._fingerprint} if known.get(key) != self._fingerprint.get(key)]
        if changed:
            changes = "; ".join(
                f"{key} was {_brief(known, key)}, is {_brief(self._fingerprint, key)}" for key in changed
            )
            raise ResumeError(
                f"{self.store.name}: the finished parts belong to another run: {changes}; repeat its call, or start "
                "anew with --overwrite"
            )


def published(store: Store) -> set[str]:
    """Absolute names of the outputs that an interrupted run had begun to publish."""
    note = store.read(PUBLISHING)
    return set(note.decode().splitlines()) if note else set()


def _is_part(file: str) -> bool:
    return file.startswith("window_") and file.endswith(".npy")


def _brief(fingerprint: Mapping[str, object], key: str) -> str:
    text = json.dumps(fingerprint.get(key))
    return text if len(text) <= 60 else f"{text[:57]}..."
