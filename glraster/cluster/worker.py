"""What runs on a worker of a cluster: a function on files that stay open, and errors that survive the way back."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from glraster.errors import ClusterError, GlrasterError
from glraster.runner import Source

_MOST_OPEN = 16
"""Calls whose files a worker keeps open."""

Fingerprint = Mapping[str, object]
"""All that decides the bytes of a result, as JSON values."""

Call = TypeVar("Call", bound=Hashable)


@dataclass(frozen=True)
class Opening(Generic[Call, Source]):
    """How a worker opens what tasks need.

    `open` is a function of a module. It is given the `call`, names that mean the same on every machine, and returns
    what it opened, which is closed when nobody holds it any more, and its fingerprint.
    """

    open: Callable[[Call], tuple[Source, Fingerprint]]
    call: Call


@dataclass(frozen=True)
class Work(Generic[Call, Source]):
    """A task, the function that computes it from the task and what is opened, and the fingerprint this must have."""

    function: Callable[[Source, Any], Any]
    opening: Opening[Call, Source]
    fingerprint: Fingerprint
    task: Any


def describe(opening: Opening[Call, Source]) -> Fingerprint:
    """The fingerprint that results would have on this worker.

    Raises:
        ClusterError: if the worker does not see the files.
    """
    with _errors_for_client():
        return _open(opening)[1]


def run(work: Work[Call, Source]) -> Any:
    """The result of a task. What it needs is opened once, and stays open for the next tasks.

    Raises:
        ClusterError: if the worker does not see the files, or its results would differ from those of the run.
        GlrasterError, OSError: as the function.
    """
    with _errors_for_client():
        with _opening:
            source = open_once(work.opening, json.dumps(work.fingerprint, sort_keys=True))
        return work.function(source, work.task)


_opening = threading.Lock()


@lru_cache(_MOST_OPEN)
def open_once(opening: Opening[Call, Source], fingerprint: str) -> Source:
    """What an opening opens, if it has a fingerprint: an edited file has another one, and is opened anew."""
    source, own = _open(opening)
    check_agreement(worker_name(), own, json.loads(fingerprint))
    return source


def _open(opening: Opening[Call, Source]) -> tuple[Source, Fingerprint]:
    try:
        return opening.open(opening.call)
    except GlrasterError as error:
        raise ClusterError(
            f"worker {worker_name()}: {error}; every worker must see all files under the name they have here"
        ) from error


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
