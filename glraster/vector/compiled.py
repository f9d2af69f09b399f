"""Compile functions over arrays to machine code once, and keep the result on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])

# Without reference counts: the arrays all belong to the caller, and counting their owners at every call takes longer
# than the work itself.
_OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False}


def compiled(function: Function) -> Function:
    """Compile a function of NumPy arrays, without Python's global lock; it cannot make arrays of its own.

    The machine code is kept beside the source, or in `NUMBA_CACHE_DIR`, or in the user's cache folder. Where none of
    them can be written it is made anew in every process, which takes about half a minute.
    """
    try:
        return cast(Function, numba.njit(cache=True, **_OPTIONS)(function))
    except RuntimeError:  # numba found no folder for its cache
        return cast(Function, numba.njit(**_OPTIONS)(function))


def inlined(function: Function) -> Function:
    """A part of compiled functions, which becomes part of their code.

    Records of many arrays are copied word by word at a real call: ten times the cost of the work.
    """
    return cast(Function, numba.njit(inline="always", **_OPTIONS)(function))
