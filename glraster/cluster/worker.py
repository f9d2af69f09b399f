"""What every task of a cluster's worker needs: its name, errors that survive the way back, files that stay open."""

from __future__ import annotations

import json
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from glraster.errors import ClusterError, GlrasterError

_MOST_OPEN = 16
"""Calls whose files a worker keeps open."""

Call = TypeVar("Call", bound=Hashable)
Work = TypeVar("Work")

Fingerprint = Mapping[str, object]


@dataclass(frozen=True)
class Opened(Generic[Work]):
    """What a worker has open for a call, the fingerprint it had when it was opened, and how to close it."""

    work: Work
    fingerprint: Fingerprint
    stack: ExitStack


class OpenCalls(Generic[Call, Work]):
    """What a worker keeps open between tasks, by call; the calls used least recently are closed."""

    def __init__(self, opened: Callable[[Call, ExitStack], tuple[Work, Fingerprint]]) -> None:
        self._open = opened
        self._kept: OrderedDict[Call, Opened[Work]] = OrderedDict()

    def get(self, call: Call, wanted: Fingerprint | None) -> Opened[Work]:
        """What is open for a call, opened anew where `wanted` is not the fingerprint that it was opened with.

        Raises:
            ClusterError: where the worker does not see the files, or sees others than `wanted` says.
        """
        known = self._kept.get(call)
        if known is None or known.fingerprint != wanted:
            if known is not None:
                self._kept.pop(call).stack.close()
            known = self._kept[call] = self._opened(call)
            while len(self._kept) > _MOST_OPEN:
                self._kept.popitem(last=False)[1].stack.close()
        if wanted is not None:
            hold_to(worker_name(), known.fingerprint, wanted)
        self._kept.move_to_end(call)
        return known

    def close(self) -> None:
        """Close all."""
        while self._kept:
            self._kept.popitem()[1].stack.close()

    def _opened(self, call: Call) -> Opened[Work]:
        stack = ExitStack()
        try:
            return Opened(*self._open(call, stack), stack)
        except GlrasterError as error:
            stack.close()
            raise ClusterError(
                f"worker {worker_name()}: {error}; every worker must see all files under the name they have here"
            ) from error


@contextmanager
def plain_errors() -> Iterator[None]:
    """Leave out what led to an error: rasterio's own do not survive the way to the client, and take ours with them."""
    told: GlrasterError | OSError
    try:
        yield
        return
    except (GlrasterError, OSError) as error:
        told = error
    told.__cause__ = told.__context__ = None
    if not isinstance(told, ClusterError):
        told.add_note(f"on worker {worker_name()}")
    raise told


def as_json(fingerprint: Fingerprint) -> dict[str, object]:
    """A fingerprint as it comes back from a journal: tuples are lists."""
    values: dict[str, object] = json.loads(json.dumps(fingerprint))
    return values


def hold_to(worker: str, found: Fingerprint, wanted: Fingerprint) -> None:
    """Refuse a worker that would not compute what the run computes.

    Raises:
        ClusterError: with what differs, and what to do about it.
    """
    keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    if keys:
        told = "; ".join(f"{key} is {_brief(found.get(key))}, not {_brief(wanted.get(key))}" for key in keys)
        advice = "give all workers the same files, versions, devices and OMP_NUM_THREADS"
        raise ClusterError(f"worker {worker}: would compute another map: {told}; {advice}")


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
