"""Errors in the words of a Python caller: `overwrite=True` instead of `--overwrite`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from glraster.errors import GlrasterError

P = ParamSpec("P")
R = TypeVar("R")

SWITCHES = frozenset({"overwrite", "resume", "tta", "coarse-to-fine", "smooth", "dissolve", "bfloat16", "offline"})
"""Options of the command line that take no value."""

RENAMED = {
    "bidx": "indexes",
    "scale": "value_range",
    "context": "context_px",
    "tile": "tile_px",
    "overlap": "overlap_px",
    "co": "creation_options",
    "simplify": "simplify_m",
    "min-area": "min_area_m2",
    "set": "settings",
    "stage": "stages",
}
"""Options that have another name in Python."""

FOREIGN = frozenset({"crs", "dst-nodata", "like", "resampling", "src-nodata", "unset-nodata"})
"""Options of rio's commands, which a message may name."""

_OPTION = re.compile(
    r"(?<![\w-])--([a-z][a-z0-9-]*)(?:[ =](?=\d|-\d|native\b|paper\b|smooth\b|global\b|full\b)(\S*[\w%]))?"
)


def in_python(text: str) -> str:
    """Write the command line's options in a text as keywords."""

    def keyword(match: re.Match[str]) -> str:
        option, value = match.groups()
        if option in FOREIGN:
            return match[0]
        name = RENAMED.get(option, option.replace("-", "_"))
        if value is not None:
            return f"{name}={value}" if value[0] in "-0123456789" else f'{name}="{value}"'
        return f"{name}=True" if option in SWITCHES else name

    return _OPTION.sub(keyword, text)


def speaks_python(verb: Callable[P, R]) -> Callable[P, R]:
    """Decorator: errors and notes of a verb name keywords, as its caller wrote them."""

    @functools.wraps(verb)
    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            return verb(*arguments, **keywords)
        except (GlrasterError, KeyboardInterrupt) as error:
            if isinstance(error, GlrasterError):
                error.what, error.advice = in_python(error.what), in_python(error.advice)
            if hasattr(error, "__notes__"):
                error.__notes__ = [in_python(note) for note in error.__notes__]
            raise

    return call
