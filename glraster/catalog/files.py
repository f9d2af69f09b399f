"""Find the files a catalog names: its root folder, single names, and globs paired by what their wildcards stand for."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from glraster.catalog.records import Pair
from glraster.names import is_path

_REFERENCE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_WILDCARD = re.compile(r"(\*\*/|\*|\?|\[!?\]?[^\]]*\])")

T = TypeVar("T")


def expand_root(text: str, folder: Path) -> str:
    """The base folder of a catalog's relative names.

    Args:
        text: a path, relative to `folder`; `${NAME}` and `${NAME:-default}` are environment variables.
        folder: the catalog's folder.

    Raises:
        ValueError: if a variable is not set and has no default.
    """

    def value(reference: re.Match[str]) -> str:
        name, default = reference.groups()
        setting = os.environ.get(name) or default
        if setting is None:
            raise ValueError(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        return setting

    expanded = _REFERENCE.sub(value, text)
    if "${" in expanded:
        raise ValueError(f"{text!r} has a reference that is neither ${{NAME}} nor ${{NAME:-default}}")
    return locate(str(folder.absolute()), expanded)


def locate(root: str, name: str) -> str:
    """A name that GDAL opens, from a name relative to the root; addresses and GDAL's virtual files stay as they are."""
    if not is_path(name):
        return name
    if not is_path(root):
        return f"{root.rstrip('/')}/{name}"
    return os.path.normpath(Path(root) / name)


def same_file_key(name: str) -> str:
    """Equal for two names of one file."""
    return os.path.realpath(name) if is_path(name) else name


def glob_pairs(root: str, images: str, labels: str, one_label: bool = False) -> tuple[list[Pair], list[str]]:
    """Pair the images of one glob with the labels of another by what the wildcards stand for.

    Args:
        root: the folder both globs start from.
        images: a glob such as `tiles/*_rgb.tif`; `*`, `?`, `[...]` and `**/` are wildcards.
        labels: a name with the same wildcards, such as `labels/*_mask.png`.
        one_label: whether `labels` may have no wildcard and so be the label of every image (vector labels).

    Returns:
        The pairs in the order of their names, and what is wrong: nothing matches, or images without label.
    """
    if not (is_path(root) and is_path(images)):
        return [], ["a glob needs a local folder; list remote images one by one"]
    shared = one_label and not _WILDCARD.search(labels)
    wildcards = [[match[0] for match in _WILDCARD.finditer(pattern)] for pattern in (images, labels)]
    if not shared and wildcards[0] != wildcards[1]:
        return [], [f"{images!r} and {labels!r} have different wildcards; an image finds its label by them"]
    names = sorted(glob.glob(images, root_dir=root, recursive=True), key=natural_key)  # noqa: PTH207
    if not names:
        return [], [f"{images!r} matches no file in {root}"]
    parts = _regex(images)
    pairs = []
    for image in names:
        match = parts.fullmatch(image)
        label = labels if shared or match is None else _fill(labels, match.groups(""))
        pairs.append(Pair(locate(root, image), locate(root, label)))
    lacking = [f"{p.image} has no label; {p.label} does not exist" for p in pairs if not Path(p.label).exists()]
    return pairs, lacking


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts tile2 before tile10."""
    return [(int(text), "") if text.isdecimal() else (-1, text) for text in re.split(r"(\d+)", name)]


def _regex(pattern: str) -> re.Pattern[str]:
    """A glob as a regular expression with one group for every wildcard."""
    meanings = {"**/": "((?:.*/)?)", "*": "([^/]*)", "?": "([^/])"}
    pieces = [
        meanings.get(piece, f"([{piece[1:-1].replace('!', '^', 1) if piece[1:2] == '!' else piece[1:-1]}])")
        if i % 2
        else re.escape(piece)
        for i, piece in enumerate(_WILDCARD.split(pattern))
    ]
    return re.compile("".join(pieces), re.DOTALL)


def _fill(pattern: str, parts: Sequence[str]) -> str:
    """A pattern with its wildcards replaced by `parts`."""
    remaining = iter(parts)
    return _WILDCARD.sub(lambda _: next(remaining), pattern)


def clashes(placed: Iterable[tuple[T, Pair]]) -> Iterator[tuple[Pair, T, T]]:
    """Pairs that share pixels of an image with an earlier one: the pair, its place, and the earlier one's place."""
    seen: dict[str, list[tuple[T, Pair]]] = {}
    for place, pair in placed:
        earlier = seen.setdefault(same_file_key(pair.image), [])
        rival = next((other for other, known in earlier if _overlap(pair, known)), None)
        if rival is not None:
            yield pair, place, rival
        earlier.append((place, pair))


def _overlap(one: Pair, two: Pair) -> bool:
    if one.window is None or two.window is None:
        return True
    (top, left, height, width), (other_top, other_left, other_height, other_width) = one.window, two.window
    return (
        top < other_top + other_height
        and other_top < top + height
        and left < other_left + other_width
        and other_left < left + width
    )
