"""The content of a catalog, as frozen records."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from glraster.config import NODATA, LandClass
from glraster.errors import CatalogError
from glraster.names import is_path

Encoding = Literal["index", "rgb", "binary", "vector"]
"""How a label encodes classes: by value, by colour, by 0 and 255, or by polygons with a class column."""

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = get_args(Split)

IGNORE = NODATA
"""Class index of a pixel that is neither trained on nor scored."""

LabelValue = int | str
"""A value of a label: a pixel's value, or the text in a polygon's class column."""


@dataclass(frozen=True)
class LabelEncoding:
    """What label values mean.

    `values` maps label values to class ids if they differ (index, vector); `column` and `layer` say where a
    vector label keeps its classes, and `background` is the class id outside its polygons (None: ignored).
    """

    encoding: Encoding
    values: tuple[tuple[LabelValue, int], ...] = ()
    column: str | None = None
    layer: str | None = None
    background: int | None = None


@dataclass(frozen=True)
class Pair:
    """An image and its label, both names that GDAL opens.

    `window` is (row, column, height, width) in pixels of the image if only this part of the scene is used.
    """

    image: str
    label: str
    window: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Catalog:
    """Scenes with labels to learn from.

    `classes` are learned, in the order of the network's outputs; `ignored` are classes of the label that are not,
    and `ignore` label values without any class. `left_out_of_mean` has the ids of classes that are learned but do
    not count in mean scores, `stands_for` (class id, names) those that stand for any of several classes of other
    catalogs, see `union`. `bands` is how many bands the network sees, `indexes` which (1-based; None: the
    first that are not alpha). `gsd_m` is metres per pixel (None: any), `context_px` the extent seen at once.
    `root` is the folder that relative names start from; `source` the file this was read from.
    """

    name: str
    classes: tuple[LandClass, ...]
    bands: int
    labels: LabelEncoding
    train: tuple[Pair, ...] = ()
    val: tuple[Pair, ...] = ()
    test: tuple[Pair, ...] = ()
    indexes: tuple[int, ...] | None = None
    gsd_m: float | None = None
    context_px: int = 2448
    ignored: tuple[LandClass, ...] = ()
    ignore: tuple[LabelValue, ...] = ()
    left_out_of_mean: tuple[int, ...] = ()
    stands_for: tuple[tuple[int, tuple[str, ...]], ...] = ()
    licence: str | None = None
    root: str = ""
    source: str = field(default="", compare=False)

    @property
    def splits(self) -> Mapping[Split, tuple[Pair, ...]]:
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def label_classes(self) -> tuple[LandClass, ...]:
        """All classes of the labels: those that are learned, then the ignored ones."""
        return (*self.classes, *self.ignored)

    @property
    def in_mean(self) -> tuple[bool, ...]:
        """For every class, whether it counts in mean scores."""
        return tuple(c.id not in self.left_out_of_mean for c in self.classes)

    @cached_property
    def content_hash(self) -> str:
        """Identifies the catalog: 16 hex digits over its content, file names and file sizes.

        Names count from `root`, so that a data set keeps its hash on another machine.
        """
        settings = {key: value for key, value in asdict(self).items() if key not in ("root", "source", *SPLITS)}
        if not self.stands_for:  # older models name hashes of catalogs without this key
            del settings["stands_for"]
        files = {
            split: [[self._file(pair.image), self._file(pair.label), pair.window] for pair in pairs]
            for split, pairs in self.splits.items()
        }
        text = json.dumps({**settings, **files}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _file(self, name: str) -> tuple[str, int | None]:
        if not is_path(name):
            return name, None
        size = Path(name).stat().st_size if Path(name).is_file() else None
        return Path(os.path.relpath(name, self.root or ".")).as_posix(), size

    def label_meanings(self) -> dict[LabelValue, int]:
        """The class index of every label value that has a meaning, `IGNORE` if it is to be ignored.

        The values of an rgb label are its `color_code`s. Vector labels may say ids or names.
        """
        known = {c.id: i for i, c in enumerate(self.classes)} | {c.id: IGNORE for c in self.ignored}
        meanings: dict[LabelValue, int]
        if self.labels.encoding == "rgb":
            return {color_code(c.color): known[c.id] for c in self.label_classes}
        if self.labels.encoding == "binary":
            meanings = {0: known[0], 255: known[1]}
        elif self.labels.values:
            meanings = {value: known[class_id] for value, class_id in self.labels.values}
        else:
            meanings = dict(known.items())
            if self.labels.encoding == "vector":
                meanings |= {c.name: known[c.id] for c in self.label_classes}
        return meanings | dict.fromkeys(self.ignore, IGNORE)


def color_code(color: tuple[float, float, float]) -> int:
    """A colour with every channel thresholded at 128, as three bits: red 4, green 2, blue 1."""
    red, green, blue = (int(channel >= 128) for channel in color)
    return 4 * red + 2 * green + blue


def raise_problems(problems: list[str], where: str = "") -> None:
    """Raise one CatalogError with all problems, if there are any."""
    if problems:
        raise CatalogError(*problems, where=where)
