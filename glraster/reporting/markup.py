"""Build HTML so that nothing from data can become markup."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from typing import Any


class Markup(str):
    """Text that is HTML already and must not be escaped again."""

    __slots__ = ()


Content = str | int | float | None | Iterable[Any]
"""What an element may hold: text, which is escaped; `Markup`; nothing; or several of these."""

_VOID = frozenset({"img", "input", "meta", "link", "br"})


def element(tag: str, *content: Content, **attributes: str | int | float | bool | None) -> Markup:
    """One element with its content.

    Args:
        tag: its name.
        content: escaped where it is no `Markup`.
        attributes: `class_` and `for_` lose their underscore, others become hyphens. None and False leave an attribute
            out, True gives one without a value.
    """
    told = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{tag}{told}>")
    return Markup(f"<{tag}{told}>{text(*content)}</{tag}>")


def text(*content: Content) -> Markup:
    """Content one after the other, escaped where it is no `Markup`."""
    return Markup("".join(_written(part) for part in content))


def data_block(name: str, value: object) -> Markup:
    """A value as JSON for the page's script; no text in it can end the block."""
    written = json.dumps(value, ensure_ascii=True, allow_nan=False)
    for sign in "<>&":
        written = written.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(f'<script type="application/json" id="{escape(name)}">{written}</script>')


def _attribute(name: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    told = name.rstrip("_").replace("_", "-")
    return f" {told}" if value is True else f' {told}="{escape(str(value), quote=True)}"'


def _written(part: Content) -> str:
    if part is None:
        return ""
    if isinstance(part, Markup):
        return str(part)
    if isinstance(part, str | int | float):
        return escape(str(part), quote=True)
    return "".join(_written(inner) for inner in part)
