"""Read a YAML file with the line of every value: no aliases, no tags that make objects, bounded size and depth."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from glraster.errors import CatalogError

LARGEST_BYTES = 10_000_000
DEEPEST = 12

# libyaml parses events ten times faster, if PyYAML was built with it
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

T = TypeVar("T")


@dataclass(frozen=True)
class Node:
    """A value and its line: a scalar, a list of nodes, or a mapping as (key, node) pairs, repeated keys included."""

    value: object
    line: int


@dataclass(frozen=True)
class Keyed:
    """The (key, value) pairs of a YAML mapping in their order."""

    pairs: tuple[tuple[Hashable, Node], ...]


def read_document(path: Path) -> Node:
    """Read the one document of a YAML file.

    Args:
        path: the file, UTF-8, at most `LARGEST_BYTES` long and `DEEPEST` levels deep.

    Returns:
        Its root. Memory: a few hundred bytes for every value.

    Raises:
        CatalogError: if it cannot be read, is no YAML, or uses what no catalog needs.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise CatalogError(f"cannot be read: {reason}; check the path", where=str(path)) from error
    if len(content) > LARGEST_BYTES:
        raise CatalogError(
            f"is larger than {LARGEST_BYTES // 10**6} MB; name files by globs instead of one by one", where=str(path)
        )
    try:
        return _compose(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CatalogError("is not UTF-8 text, so it is no catalog", where=str(path)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise CatalogError(f"is not YAML that a catalog may hold: {_reason(error)}", where=str(path)) from error


def _compose(text: str) -> Node:
    events = yaml.parse(text, Loader=_PARSER)
    root = None
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            if root is not None:
                raise ValueError(f"line {_line(event)}: a second document starts")
            root = _node(next(events), events, 0)
    return root or Node(None, 1)


def _node(event: Any, events: Iterator[Any], depth: int) -> Node:
    line = _line(event)
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise ValueError(f"line {line}: anchors and aliases are not allowed; write the value out")
    if depth > DEEPEST:
        raise ValueError(f"line {line}: more than {DEEPEST} levels deep")
    if isinstance(event, yaml.ScalarEvent):
        return Node(_scalar(event, line), line)
    if isinstance(event, yaml.SequenceStartEvent):
        return Node([_node(item, events, depth + 1) for item in _until(yaml.SequenceEndEvent, events)], line)
    return Node(Keyed(tuple(_pairs(events, depth))), line)


def _pairs(events: Iterator[Any], depth: int) -> Iterator[tuple[Hashable, Node]]:
    for event in _until(yaml.MappingEndEvent, events):
        if not isinstance(event, yaml.ScalarEvent):
            raise ValueError(f"line {_line(event)}: a key must be one plain value")
        key = _scalar(event, _line(event))
        yield key, _node(next(events), events, depth + 1)


def _until(end: type, events: Iterator[Any]) -> Iterator[Any]:
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _scalar(event: Any, line: int) -> Hashable:
    tag = event.tag
    if tag in (None, "!"):
        tag = Resolver().resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
    node = yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark)
    try:
        value = SafeConstructor().construct_object(node)
    except ValueError as error:
        raise ValueError(f"line {line}: {event.value[:40]!r} is no value of its kind: {error}") from error
    if not isinstance(value, Hashable):
        raise ValueError(f"line {line}: the tag {tag} is not allowed")
    return value


def _reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    message = getattr(error, "problem", None) or str(error)
    text = " ".join(str(message).split())
    return f"line {mark.line + 1}: {text}" if mark is not None else text


@dataclass(frozen=True)
class Problem:
    """What is wrong, at which line and key."""

    line: int
    where: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}, {self.where}: {self.text}" if self.where else f"line {self.line}: {self.text}"


@dataclass(frozen=True)
class Entry:
    """A node at its key path. Its readers add what is wrong to `problems` and go on."""

    node: Node
    where: str
    problems: list[Problem]

    def wrong(self, text: str) -> None:
        """Note a problem at this place."""
        self.problems.append(Problem(self.node.line, self.where, text))

    def _refuse(self, expected: str) -> None:
        value = self.node.value
        kind = {list: "a list", Keyed: "a mapping"}.get(type(value))
        text = repr(value)
        shown = kind or ("empty" if value is None else text if len(text) <= 60 else f"{text[:57]}...")
        self.wrong(f"is {shown}, not {expected}")

    def _at(self, key: object, node: Node) -> Entry:
        path = f"{self.where}[{key}]" if isinstance(key, int) else f"{self.where}.{key}".removeprefix(".")
        return Entry(node, path, self.problems)

    def pairs(self) -> list[tuple[Hashable, Entry]]:
        """The keys and values of a mapping, each key once."""
        if not isinstance(self.node.value, Keyed):
            self._refuse("a mapping of keys to values")
            return []
        entries: dict[Hashable, Entry] = {}
        for key, node in self.node.value.pairs:
            entry = self._at(key, node)
            if key in entries:
                entry.wrong("is given twice; keep one")
            entries.setdefault(key, entry)
        return list(entries.items())

    def fields(self, known: Collection[str], required: Collection[str] = ()) -> dict[str, Entry]:
        """The values of a mapping by its known keys; others, and missing ones, are problems."""
        entries = dict(self.pairs())
        for key in [key for key in entries if key not in known]:
            near = get_close_matches(str(key), known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(known)}"
            entries.pop(key).wrong(f"is no key of a catalog; {advice}")
        if isinstance(self.node.value, Keyed):
            for key in required:
                if key not in entries:
                    self.wrong(f"lacks the key {key}")
        return {str(key): entry for key, entry in entries.items()}

    def items(self) -> list[Entry]:
        """The items of a list."""
        if not isinstance(self.node.value, list):
            self._refuse("a list")
            return []
        return [self._at(i, node) for i, node in enumerate(self.node.value)]

    def text(self) -> str | None:
        value = self.node.value
        if isinstance(value, str) and value.strip():
            return value
        self._refuse("text" if value is None or isinstance(value, list | Keyed) else "text; put it in quotes")
        return None

    def whole(self, least: int | None = None, most: int | None = None) -> int | None:
        value = self.node.value
        # bool is an int to Python, and not to anyone else
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if is_whole and (least is None or value >= least) and (most is None or value <= most):  # type: ignore[operator]
            return int(value)  # type: ignore[call-overload, no-any-return]
        span = "" if least is None else f" of {least} or more" if most is None else f" from {least} to {most}"
        self._refuse(f"a whole number{span}")
        return None

    def positive(self) -> float | None:
        value = self.node.value
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
            return float(value)
        self._refuse("a positive number")
        return None

    def flag(self) -> bool | None:
        if isinstance(self.node.value, bool):
            return self.node.value
        self._refuse("true or false")
        return None

    def choice(self, choices: Collection[T]) -> T | None:
        for choice in choices:
            if self.node.value == choice:
                return choice
        self._refuse(f"one of {', '.join(map(str, choices))}")
        return None

    @property
    def keys(self) -> set[Hashable]:
        """The keys of a mapping, none for anything else."""
        return {key for key, _ in self.node.value.pairs} if isinstance(self.node.value, Keyed) else set()

    @property
    def is_null(self) -> bool:
        return self.node.value is None

    @property
    def is_list(self) -> bool:
        return isinstance(self.node.value, list)


def read_field(fields: dict[str, Entry], key: str, reader: Callable[[Entry], T | None], default: T) -> T:
    """What `reader` makes of the value at a key; `default` if the key is absent or its value is a problem."""
    value = reader(fields[key]) if key in fields else None
    return default if value is None else value
