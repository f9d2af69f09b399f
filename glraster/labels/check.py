"""Look at every file of a catalog before anything is learned from it."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window as RasterioWindow

from glraster.catalog import IGNORE, Catalog, Pair, Split
from glraster.errors import CatalogError
from glraster.labels.grid import CatalogRaster, attempt
from glraster.labels.reader import LabelReader, unknown_text
from glraster.names import redact
from glraster.raster.grid import Window
from glraster.raster.source import gdal_session

log = logging.getLogger(__name__)

_BLOCK = (512, 4096)


@dataclass(frozen=True)
class ClassPixels:
    """How often a class occurs: `share` is of all pixels that have a class."""

    id: int
    name: str
    pixels: int
    share: float


@dataclass(frozen=True)
class SceneReport:
    """One pair: the size that is used of it, and its pixels per class, in the order of the catalog's classes."""

    image: str
    label: str
    height: int
    width: int
    pixels: tuple[int, ...]
    ignored_pixels: int


@dataclass(frozen=True)
class SplitReport:
    """The readable scenes of one split and its pixels per class."""

    name: Split
    scenes: tuple[SceneReport, ...]
    classes: tuple[ClassPixels, ...]
    ignored_pixels: int


@dataclass(frozen=True)
class CatalogReport:
    """What is in a catalog's files. `problems` hinder training; `notes` are doubts that do not."""

    name: str
    content_hash: str
    splits: tuple[SplitReport, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)

    def require_sound(self, source: str) -> None:
        """Raise a CatalogError with all problems of the catalog file `source`, if there are any."""
        if self.problems:
            raise CatalogError(*self.problems, source=source)


def check_catalog(catalog: Catalog) -> CatalogReport:
    """Open every file of a catalog and count the pixels of every class.

    Labels are read whole, block by block; of an image its first and last block, where damage mostly shows.

    Args:
        catalog: what to check.

    Returns:
        Counts per split and all problems: this never raises for a bad file.

    Memory: one block of a label and GDAL's cache.
    """
    problems: list[str] = []
    notes: list[str] = []
    splits = []
    with gdal_session():
        for name, pairs in catalog.splits.items():
            scenes = [_check_pair(pair, catalog, problems, notes) for pair in pairs]
            splits.append(_split_report(name, [scene for scene in scenes if scene is not None], catalog))
    for split, pairs in zip(splits, catalog.splits.values(), strict=True):
        _judge_split(split, len(pairs), problems, notes)
    return CatalogReport(
        catalog.name, catalog.content_hash, tuple(splits), tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(notes))
    )


def _check_pair(pair: Pair, catalog: Catalog, problems: list[str], notes: list[str]) -> SceneReport | None:
    log.info("%s: reading", redact(pair.label))
    reader = attempt(problems, lambda: LabelReader(pair, catalog))
    attempt(problems, lambda: _check_image(pair, catalog))
    if reader is None:
        return None
    with reader:
        notes += reader.notes
        pixels = attempt(problems, lambda: _count(reader, problems))
    if pixels is None:
        return None
    counted = tuple(int(count) for count in pixels[: len(catalog.classes)])
    names, extent = (redact(pair.image), redact(pair.label)), reader.extent
    return SceneReport(*names, extent.height, extent.width, counted, int(pixels[IGNORE]))


def _count(reader: LabelReader, problems: list[str]) -> npt.NDArray[np.int64]:
    """Pixels per class index."""
    pixels = np.zeros(256, np.int64)
    unknown: Counter[str] = Counter()
    for block in reader.extent.blocks(*_BLOCK):
        indexes, strange = reader.read_with_unknown(block)
        pixels += np.bincount(indexes.ravel(), minlength=256)
        unknown.update(strange)
    if unknown:
        problems.append(f"{redact(reader.pair.label)}: {unknown_text(unknown)}")
    return pixels


def _check_image(pair: Pair, catalog: Catalog) -> None:
    """Open an image and read a little of it.

    Raises:
        CatalogError: where it lacks bands or cannot be read.
    """
    with CatalogRaster(pair.image) as image:
        indexes = _bands(image, catalog)
        used = image.extent.intersection(Window(*pair.window)) if pair.window else image.extent
        blocks = list((used or image.extent).blocks(*_BLOCK))
        for block in {blocks[0], blocks[-1]}:
            image.read_bands(indexes, window=RasterioWindow(block.left, block.top, block.width, block.height))


def _bands(image: CatalogRaster, catalog: Catalog) -> list[int]:
    if catalog.indexes is not None:
        count = image.dataset.count
        absent = [i for i in catalog.indexes if i > count]
        if absent:
            raise CatalogError(f"has no band {absent[0]}; its bands are 1 to {count}", source=image.path)
        return list(catalog.indexes)
    bands = image.value_bands[: catalog.bands]
    if len(bands) < catalog.bands:
        raise CatalogError(f"has {len(bands)} bands without alpha, the catalog says {catalog.bands}", source=image.path)
    return list(bands)


def _split_report(name: Split, scenes: list[SceneReport], catalog: Catalog) -> SplitReport:
    pixels = [sum(scene.pixels[i] for scene in scenes) for i in range(len(catalog.classes))]
    whole = max(1, sum(pixels))
    classes = tuple(
        ClassPixels(c.id, c.name, count, count / whole) for c, count in zip(catalog.classes, pixels, strict=True)
    )
    return SplitReport(name, tuple(scenes), classes, sum(scene.ignored_pixels for scene in scenes))


def _judge_split(split: SplitReport, pairs: int, problems: list[str], notes: list[str]) -> None:
    """Note what a split as a whole lacks; one whose scenes have problems of their own is left alone."""
    where = f"splits.{split.name}"
    if pairs == 0 and split.name != "test":
        problems.append(f"{where}: is empty; training needs scenes to learn from and others to judge by")
    if pairs == 0 or len(split.scenes) < pairs:
        return
    present = [c.name for c in split.classes if c.pixels]
    if not present:
        problems.append(f"{where}: has no pixel of any class; check labels.encoding, labels.values and ignore")
    elif len(present) == 1 and split.name == "train":
        problems.append(f"{where}: has pixels of one class only, {present[0]}; there is nothing to tell apart")
    else:
        absent = ", ".join(c.name for c in split.classes if not c.pixels)
        notes += [f"{where}: has no pixel of {absent}"] if absent else []
