"""Compile functions over arrays to machine code once, and keep it on disk if that is possible.

What keeps the first run short (17 processor seconds of compilation before, 4 now):

- numba compiles a function anew for every combination of argument types. An index is an `int64` at every call: what is
  read from an `int32` array is converted first, and no literal is passed.
- A record of arrays goes into a function as seven words per array. A dozen arrays of records (`arcs.Sweep`) compile
  three times as fast as two dozen plain ones.
- Helpers are inlined by LLVM (`forceinline`), not by numba (`inline="always"`), which copies their source into every
  caller before types are known.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import event

Function = TypeVar("Function", bound=Callable[..., object])

int64: Any = numba.int64
"""Convert an index to the one type that helpers are compiled for."""

_PREPARING = "preparing the tracer for this machine, once: some seconds"

# Without Python's lock and, by a private option of numba, without reference counts: all arrays belong to the caller.
# With counts the sweep takes 2.6 times as long, `vectorize` of 20 000 x 20 000 px 7.4 instead of 6.2 processor seconds
# (of 5000 x 5000 px 1.19 instead of 1.14), and the first run compiles for a second more.
_OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False}

_helpers_changed = 0.0


def compiled(function: Function) -> Function:
    """Decorator: compile a function of NumPy arrays, which runs without Python's lock and cannot create arrays.

    The machine code is kept beside the source, in `NUMBA_CACHE_DIR`, or in the user's cache folder. If none of them can
    be written, every process compiles again, for some seconds.
    """
    try:
        dispatcher = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba has no folder for its cache
        return cast(Function, numba.njit(**_OPTIONS)(function))
    with suppress(OSError):
        _remove_stale(Path(dispatcher.stats.cache_path), function.__qualname__)
    return cast(Function, dispatcher)


def inlined(function: Function) -> Function:
    """Decorator: inline this helper into its compiled callers.

    It must not stay a call: a record of many arrays is copied word by word then, which takes half of the time again.
    """
    global _helpers_changed
    with suppress(OSError):
        _helpers_changed = max(_helpers_changed, Path(function.__code__.co_filename).stat().st_mtime)
    options = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, **_OPTIONS}
    return cast(Function, numba.njit(**options)(function))


def _remove_stale(cache: Path, name: str) -> None:
    """Remove machine code older than a helper's source file: numba compares the file of the caller alone."""
    for index, written in _indexes(cache):
        if f".{name}-" in index.name and written < _helpers_changed <= time.time():
            index.unlink(missing_ok=True)


@functools.cache
def _indexes(cache: Path) -> list[tuple[Path, float]]:
    """The indexes in a folder of machine code, with the time of their last change."""
    return [(index, index.stat().st_mtime) for index in cache.glob("*.nbi")]


class _FirstCompilation(event.Listener):
    def __init__(self, report: Callable[[str], None]) -> None:
        self._report: Callable[[str], None] | None = report

    def on_start(self, event: event.Event) -> None:  # noqa: ARG002
        report, self._report = self._report, None
        if report is not None:
            report(_PREPARING)

    def on_end(self, event: event.Event) -> None:
        """Only the start matters."""


@contextmanager
def first_compilation(report: Callable[[str], None]) -> Iterator[None]:
    """Call `report` with a line for people as soon as the block compiles; never if all machine code is on disk."""
    with event.install_listener("numba:compile", _FirstCompilation(report)):
        yield
