"""What the values of a label mean, whether a catalog describes it or the options of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from glraster.catalog import IGNORE, Catalog, Encoding
from glraster.catalog.records import LabelValue


@dataclass(frozen=True)
class LabelWording:
    """How messages speak of a label to whoever described it, by keys of a catalog or by options.

    `image` is what its image is called. All others are advice: about a file that is `missing`, `values` that are no
    class, another `encoding` ("{}" stands for the right one), several `layer`s, and another `grid`.
    """

    image: str
    missing: str
    values: str
    encoding: str
    layer: str
    grid: str


CATALOG_WORDING = LabelWording(
    image="its image",
    missing="correct the catalog or its root",
    values="add them to classes, labels.values or ignore",
    encoding="use encoding: {}",
    layer="choose one by labels.layer",
    grid="warp the label onto the image's grid (rio warp --like IMAGE)",
)


@dataclass(frozen=True)
class LabelSpec:
    """How to read a label: the one description that `LabelReader` knows.

    Attributes:
        encoding: how the label tells classes.
        class_names: by class index.
        meanings: the class index of every label value, `IGNORE` for values to be ignored. The values of an rgb label
            are its `color_code`s; the values of polygons are what the column holds.
        column, layer: where a vector label keeps its classes; `layer` is None if the file has only one.
        background: class index outside of polygons.
        wording: for messages.
    """

    encoding: Encoding
    class_names: tuple[str, ...]
    meanings: Mapping[LabelValue, int]
    column: str | None = None
    layer: str | None = None
    background: int = IGNORE
    wording: LabelWording = CATALOG_WORDING


def catalog_labels(catalog: Catalog) -> LabelSpec:
    """The description of a catalog's labels; class indexes are positions in `catalog.classes`."""
    indexes = {c.id: i for i, c in enumerate(catalog.classes)}
    background = catalog.labels.background
    return LabelSpec(
        encoding=catalog.labels.encoding,
        class_names=tuple(c.name for c in catalog.classes),
        meanings=catalog.label_meanings(),
        column=catalog.labels.column,
        layer=catalog.labels.layer,
        background=IGNORE if background is None else indexes.get(background, IGNORE),
    )
