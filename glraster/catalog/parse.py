"""Read a catalog: one error lists every problem of the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from glraster.catalog.document import Entry, Problem, read_document, read_field
from glraster.catalog.files import clashes, expand_root, glob_pairs, locate
from glraster.catalog.records import SPLITS, Catalog, Encoding, LabelEncoding, LabelValue, Pair, Split, color_code
from glraster.config import NODATA, LandClass, is_plain
from glraster.errors import CatalogError

KEYS = ("name", "classes", "ignore", "bands", "gsd_m", "context_px", "licence", "root", "labels", "splits")
REQUIRED = ("name", "classes", "bands", "labels", "splits")
_CLASS_KEYS = ("id", "name", "color", "ignore", "in_mean", "any_of")
_LABEL_KEYS = ("encoding", "values", "column", "layer", "background")
_PAIR_KEYS = ("image", "label", "window")
_GLOB_KEYS = ("images", "labels")


@dataclass(frozen=True)
class _ClassEntry:
    """A class as written, and its place."""

    land_class: LandClass
    ignore: bool
    in_mean: bool
    any_of: tuple[str, ...]
    entry: Entry


_Placed = tuple[tuple[Split, Entry], Pair]


def load_catalog(path: str | Path) -> Catalog:
    """Read a catalog file; see docs/catalog.md for its keys.

    Globs are expanded against the disk. Files that are listed one by one are not looked at: `check_catalog` does.

    Args:
        path: a YAML file.

    Returns:
        The catalog, with absolute file names.

    Raises:
        CatalogError: with all problems of the file, each with its line and key.
    """
    path = Path(path)
    problems: list[Problem] = []
    top = Entry(read_document(path), "", problems)
    catalog = _catalog(top, path)
    if problems:
        ordered = sorted(problems, key=lambda problem: problem.line)
        raise CatalogError(*map(str, ordered), where=str(path))
    return catalog


def _catalog(top: Entry, path: Path) -> Catalog:
    fields = top.fields(KEYS, REQUIRED)
    classes = _classes(fields["classes"]) if "classes" in fields else []
    labels = _labels(fields["labels"], classes) if "labels" in fields else LabelEncoding("index")
    root = read_field(fields, "root", partial(_root, folder=path.parent), expand_root(".", path.parent))
    bands, indexes = _bands(fields["bands"]) if "bands" in fields else (1, None)
    no_values: tuple[LabelValue, ...] = ()
    ignore = read_field(fields, "ignore", partial(_ignore, labels=labels, classes=classes), no_values)
    splits = _splits(fields["splits"], root, labels) if "splits" in fields else {}
    return Catalog(
        name=read_field(fields, "name", Entry.text, ""),
        classes=tuple(c.land_class for c in classes if not c.ignore),
        ignored=tuple(c.land_class for c in classes if c.ignore),
        left_out_of_mean=tuple(c.land_class.id for c in classes if not (c.in_mean or c.ignore)),
        stands_for=tuple((c.land_class.id, c.any_of) for c in classes if c.any_of),
        ignore=ignore,
        bands=bands,
        indexes=indexes,
        gsd_m=read_field(fields, "gsd_m", lambda e: None if e.is_null else e.positive(), None),
        context_px=read_field(fields, "context_px", partial(Entry.whole, least=1), 2448),
        licence=read_field(fields, "licence", lambda e: None if e.is_null else e.text(), None),
        labels=labels,
        root=root,
        source=str(path),
        **splits,
    )


def _classes(entry: Entry) -> list[_ClassEntry]:
    items = entry.items()
    classes = [c for item in items if (c := _class(item)) is not None]
    for attribute in ("id", "name"):
        counted = Counter(getattr(c.land_class, attribute) for c in classes)
        for value, count in counted.items():
            if count > 1:
                last = [c for c in classes if getattr(c.land_class, attribute) == value][-1]
                last.entry.wrong(f"{attribute} {value!r} is given to {count} classes; it must tell them apart")
    if entry.is_list and sum(not c.ignore for c in classes) + len(items) - len(classes) < 2:
        entry.wrong("has fewer than two classes to learn; a map needs two or more")
    if classes and not any(c.in_mean for c in classes if not c.ignore):
        entry.wrong("leaves every class out of the mean; at least one must count")
    return classes


def _class(entry: Entry) -> _ClassEntry | None:
    noted = len(entry.problems)
    fields = entry.fields(_CLASS_KEYS, ("id", "name", "color"))
    land_class = LandClass(
        id=read_field(fields, "id", partial(Entry.whole, least=0, most=NODATA - 1), 0),
        name=read_field(fields, "name", _class_name, ""),
        color=read_field(fields, "color", _color, (0, 0, 0)),
    )
    ignore = read_field(fields, "ignore", Entry.flag, False)
    in_mean = read_field(fields, "in_mean", Entry.flag, True)
    no_names: tuple[str, ...] = ()
    any_of = read_field(fields, "any_of", partial(_any_of, name=land_class.name, ignore=ignore), no_names)
    return _ClassEntry(land_class, ignore, in_mean, any_of, entry) if len(entry.problems) == noted else None


def _any_of(entry: Entry, name: str, ignore: bool) -> tuple[str, ...]:
    names = tuple(str(item.text()) for item in entry.items())
    if entry.is_list and (len(set(names)) < max(2, len(names)) or name in names):
        entry.wrong("must name two or more other classes, each once")
    if ignore:
        entry.wrong("is of a class that is ignored; leave out one of the two keys")
    return names


def _class_name(entry: Entry) -> str | None:
    name = entry.text()
    if name is None or is_plain(name):
        return name
    entry.wrong("holds a control character; leave it out")
    return None


def _color(entry: Entry) -> tuple[int, int, int] | None:
    parts = [item.whole(0, 255) for item in entry.items()]
    if entry.is_list and len(parts) != 3:
        entry.wrong(f"has {len(parts)} parts, not red, green and blue")
    return tuple(parts) if len(parts) == 3 and None not in parts else None  # type: ignore[return-value]


def _bands(entry: Entry) -> tuple[int, tuple[int, ...] | None]:
    if not entry.is_list:
        return entry.whole(1) or 1, None
    indexes = tuple(item.whole(1) or 1 for item in entry.items())
    if not indexes:
        entry.wrong("is empty; name the bands, from 1, or how many there are")
    return len(indexes), indexes


def _root(entry: Entry, folder: Path) -> str | None:
    text = entry.text()
    try:
        return None if text is None else expand_root(text, folder)
    except ValueError as error:
        entry.wrong(str(error))
        return None


def _labels(entry: Entry, classes: Sequence[_ClassEntry]) -> LabelEncoding:
    fields = entry.fields(_LABEL_KEYS, ("encoding",))
    encodings: tuple[Encoding, ...] = get_args(Encoding)
    encoding = read_field(fields, "encoding", partial(Entry.choice, choices=encodings), None)
    if encoding is None:
        return LabelEncoding("index")
    encodings_of = {"values": ("index", "vector")} | dict.fromkeys(("column", "layer", "background"), ("vector",))
    for key in fields.keys() & encodings_of.keys():
        if encoding not in encodings_of[key]:
            fields.pop(key).wrong(f"is for {' and '.join(encodings_of[key])} labels, not for {encoding}")
    if encoding == "vector" and "column" not in fields:
        entry.wrong("lacks the key column; name the attribute of the polygons that holds their class")
    ids = [c.land_class.id for c in classes]
    if encoding == "binary" and classes and sorted(ids) != [0, 1]:
        entry.wrong("is binary: 0 is class id 0 and 255 class id 1, so the classes must have the ids 0 and 1")
    if encoding == "rgb":
        _refuse_like_colors(classes)
    class_id = partial(_class_id, ids=ids)
    return LabelEncoding(
        encoding,
        values=read_field(fields, "values", partial(_values, ids=ids), ()),
        column=read_field(fields, "column", Entry.text, None),
        layer=read_field(fields, "layer", Entry.text, None),
        background=read_field(fields, "background", class_id, None),
    )


def _refuse_like_colors(classes: Sequence[_ClassEntry]) -> None:
    first: dict[int, str] = {}
    for c in classes:
        other = first.setdefault(color_code(c.land_class.color), c.land_class.name)
        if other != c.land_class.name:
            c.entry.wrong(f"has the colour of {other} once channels are thresholded at 128, as rgb labels are")


def _class_id(entry: Entry, ids: Sequence[int]) -> int | None:
    value = entry.whole()
    if value is not None and ids and value not in ids:
        entry.wrong(f"is {value}, which is no class id; they are {', '.join(map(str, ids))}")
    return value


def _values(entry: Entry, ids: Sequence[int]) -> tuple[tuple[LabelValue, int], ...]:
    meanings: list[tuple[LabelValue, int]] = []
    for value, target in entry.pairs():
        if isinstance(value, bool) or not isinstance(value, int | str):
            target.wrong(f"{value!r} is neither a whole number nor text; put it in quotes")
            continue
        meanings.append((value, _class_id(target, ids) or 0))
    return tuple(meanings)


def _ignore(entry: Entry, labels: LabelEncoding, classes: Sequence[_ClassEntry]) -> tuple[LabelValue, ...]:
    if labels.encoding == "rgb":
        entry.wrong("lists label values, and rgb labels have colours; give a class of that colour `ignore: true`")
        return ()
    learned = {value for value, _ in labels.values} if labels.values else {c.land_class.id for c in classes}
    learned = {0, 255} if labels.encoding == "binary" else learned
    values: list[LabelValue] = []
    for item in entry.items():
        as_text = labels.encoding == "vector" and isinstance(item.node.value, str)
        value = item.text() if as_text else item.whole()
        if value is not None and value in learned:
            item.wrong(f"{value!r} is the label value of a class; give that class `ignore: true` instead")
        elif value is not None:
            values.append(value)
    return tuple(values)


def _splits(entry: Entry, root: str, labels: LabelEncoding) -> dict[str, Any]:
    placed: list[_Placed] = []
    for split, value in entry.fields(SPLITS).items():
        for item in value.items() if value.is_list else [] if value.is_null else [value]:
            placed += (((split, item), pair) for pair in _pairs(item, root, labels))  # type: ignore[misc]
    for pair, (_, item), (other_split, other) in clashes(placed):
        item.wrong(f"{pair.image} is in {other_split} too (line {other.node.line}); {_ADVICE}")
    return {split: tuple(pair for (own, _), pair in placed if own == split) for split in SPLITS}


_ADVICE = "keep it in one split, or give both disjoint windows"


def _pairs(entry: Entry, root: str, labels: LabelEncoding) -> list[Pair]:
    """The pairs of one item of a split: one image with its label, or two globs."""
    is_glob = bool(entry.keys & set(_GLOB_KEYS)) and not entry.keys & set(_PAIR_KEYS)
    known = _GLOB_KEYS if is_glob else _PAIR_KEYS
    noted = len(entry.problems)
    fields = entry.fields(known, known[:2])
    image, label = (read_field(fields, key, Entry.text, "") for key in known[:2])
    window = read_field(fields, "window", _window, None)
    if len(entry.problems) > noted:
        return []
    if not is_glob:
        return [Pair(locate(root, image), locate(root, label), window)]
    pairs, wrong = glob_pairs(root, image, label, one_label=labels.encoding == "vector")
    for text in wrong:
        entry.wrong(text)
    return pairs


def _window(entry: Entry) -> tuple[int, int, int, int] | None:
    items = entry.items()
    if entry.is_list and len(items) != 4:
        entry.wrong(f"has {len(items)} numbers, not row, column, height and width")
        return None
    parts = [item.whole(least) for item, least in zip(items, (0, 0, 1, 1), strict=False)]
    return tuple(parts) if len(parts) == 4 and None not in parts else None  # type: ignore[return-value]
