"""Compile functions over arrays to machine code once, and keep the result on disk where that is possible."""

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

_PREPARING = "preparing the tracer for this machine, once: about half a minute"

# Without reference counts: the arrays all belong to the caller, and counting their owners at every call takes longer
# than the work itself.
_OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False}

_parts_changed = 0.0


def compiled(function: Function) -> Function:
    """Compile a function of NumPy arrays, without Python's global lock; it cannot make arrays of its own.

    The machine code is kept beside the source, or in `NUMBA_CACHE_DIR`, or in the user's cache folder. Where none of
    them can be written it is made anew in every process, which takes about half a minute.
    """
    try:
        made = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba found no folder for its cache
        return cast(Function, numba.njit(**_OPTIONS)(function))
    with suppress(OSError):
        _forget_stale(Path(made.stats.cache_path), function.__qualname__)
    return cast(Function, made)


def _forget_stale(cache: Path, name: str) -> None:
    """Drop machine code that is older than a part of it: numba looks at the file of the whole function alone."""
    for index, made in _indexes(cache):
        if f".{name}-" in index.name and made < _parts_changed <= time.time():
            index.unlink(missing_ok=True)


@functools.cache
def _indexes(cache: Path) -> list[tuple[Path, float]]:
    """The indexes of a folder of machine code, and when they were written."""
    return [(index, index.stat().st_mtime) for index in cache.glob("*.nbi")]


def inlined(function: Function) -> Function:
    """A part of compiled functions, which becomes part of their code.

    Records of many arrays are copied word by word at a real call: ten times the cost of the work.
    """
    global _parts_changed
    with suppress(OSError):
        _parts_changed = max(_parts_changed, Path(function.__code__.co_filename).stat().st_mtime)
    return cast(Function, numba.njit(inline="always", **_OPTIONS)(function))


class _FirstCompilation(event.Listener):
    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell: Callable[[str], None] | None = tell

    def on_start(self, event: event.Event) -> None:  # noqa: ARG002
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(_PREPARING)

    def on_end(self, event: event.Event) -> None:
        """Only the beginning counts."""


@contextmanager
def first_compilation(tell: Callable[[str], None]) -> Iterator[None]:
    """Call `tell` with a line for people before machine code is made in the block; never where all is on disk."""
    with event.install_listener("numba:compile", _FirstCompilation(tell)):
        yield
