"""What runs on a worker of a cluster: a function on files that stay open, and errors that survive the way back."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from glraster.errors import ClusterError, GlrasterError

_MOST_OPEN = 16
"""Calls whose files a worker keeps open."""

Fingerprint = Mapping[str, object]
"""All that decides the bytes of a result, as JSON values."""

Call = TypeVar("Call", bound=Hashable)
Source = TypeVar("Source")


@dataclass(frozen=True)
class Opening(Generic[Call, Source]):
    """How a worker opens what tasks need.

    `open` is a function of a module. It is given the `call`, names that mean the same on every machine, and a stack
    that closes what it opens; it returns that and its fingerprint.
    """

    open: Callable[[Call, ExitStack], tuple[Source, Fingerprint]]
    call: Call


@dataclass(frozen=True)
class Work(Generic[Call, Source]):
    """A task, the function that computes it from the task and what is opened, and the fingerprint this must have."""

    function: Callable[[Source, Any], Any]
    opening: Opening[Call, Source]
    fingerprint: Fingerprint
    task: Any


@dataclass
class _Opened:
    """What is open, the fingerprint it had when it was opened, how to close it, and how many threads use it."""

    source: Any
    fingerprint: Fingerprint
    stack: ExitStack
    users: int = 0


class OpenFiles:
    """What a worker keeps open between tasks; what was used least recently is closed."""

    def __init__(self) -> None:
        self._opened: OrderedDict[Opening[Any, Any], _Opened] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def use(self, opening: Opening[Call, Source], expected: Fingerprint | None = None) -> Iterator[_Opened]:
        """What is open, opened anew if `expected` is not the fingerprint that it was opened with.

        Raises:
            ClusterError: if the worker does not see the files, or sees others than `expected` says.
        """
        with self._lock:
            opened = self._get(opening, expected)
            opened.users += 1
        try:
            yield opened
        finally:
            with self._lock:
                opened.users -= 1
                self._close_unused(opened)

    def _get(self, opening: Opening[Call, Source], expected: Fingerprint | None) -> _Opened:
        opened = self._opened.get(opening)
        if opened is None or opened.fingerprint != expected:
            if opened is not None:
                self._close_unused(self._opened.pop(opening))
            opened = self._opened[opening] = _open(opening)
            while len(self._opened) > _MOST_OPEN:
                self._close_unused(self._opened.popitem(last=False)[1])
        if expected is not None:
            check_agreement(worker_name(), opened.fingerprint, expected)
        self._opened.move_to_end(opening)
        return opened

    def _close_unused(self, opened: _Opened) -> None:
        if not opened.users and all(opened is not other for other in self._opened.values()):
            opened.stack.close()

    def close(self) -> None:
        """Close all that is not in use."""
        with self._lock:
            while self._opened:
                self._close_unused(self._opened.popitem()[1])


open_files = OpenFiles()
"""Of this process."""


def _open(opening: Opening[Call, Source]) -> _Opened:
    stack = ExitStack()
    try:
        return _Opened(*opening.open(opening.call, stack), stack)
    except GlrasterError as error:
        stack.close()
        raise ClusterError(
            f"worker {worker_name()}: {error}; every worker must see all files under the name they have here"
        ) from error


def describe(opening: Opening[Call, Source]) -> dict[str, object]:
    """The fingerprint that results would have on this worker.

    Raises:
        ClusterError: if the worker does not see the files.
    """
    with _errors_for_client(), open_files.use(opening) as opened:
        return dict(opened.fingerprint)


def run(work: Work[Call, Source]) -> Any:
    """The result of a task.

    Raises:
        ClusterError: if the worker does not see the files, or its results would differ from those of the run.
        GlrasterError, OSError: as the function.
    """
    with _errors_for_client(), open_files.use(work.opening, work.fingerprint) as opened:
        return work.function(opened.source, work.task)


@contextmanager
def _errors_for_client() -> Iterator[None]:
    """Drop the exception chain: rasterio's exceptions cannot be unpickled on the client."""
    try:
        yield
        return
    except (GlrasterError, OSError) as raised:
        error: GlrasterError | OSError = raised
    error.__cause__ = error.__context__ = None
    if not isinstance(error, ClusterError):
        error.add_note(f"on worker {worker_name()}")
    raise error


def as_json(fingerprint: Fingerprint) -> dict[str, object]:
    """A fingerprint as it comes back from a file: tuples are lists."""
    values: dict[str, object] = json.loads(json.dumps(fingerprint))
    return values


def check_agreement(worker: str, fingerprint: Fingerprint, expected: Fingerprint) -> None:
    """Refuse a worker whose results would not be those of the run.

    Raises:
        ClusterError: with what differs, and what to do about it.
    """
    keys = [key for key in {**expected, **fingerprint} if fingerprint.get(key) != expected.get(key)]
    if keys:
        differences = "; ".join(
            f"{key} is {_brief(fingerprint.get(key))}, not {_brief(expected.get(key))}" for key in keys
        )
        advice = "give all workers the same files, versions, devices and OMP_NUM_THREADS"
        raise ClusterError(f"worker {worker}: would compute another map: {differences}; {advice}")


def worker_name() -> str:
    """The worker's address, or the machine's name outside of a worker."""
    try:
        from distributed import get_worker

        return str(get_worker().address)
    except (ImportError, ValueError):
        return socket.gethostname()


def absolute(name: str) -> str:
    """The name by which another process finds a file of this one; what is no file here keeps its name."""
    return os.path.abspath(name) if Path(name).exists() else name  # noqa: PTH100 (a link stays a link)


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
