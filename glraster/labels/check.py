"""Check every file of a catalog before training."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window as RasterioWindow

from glraster.catalog import IGNORE, Catalog, Pair, Split
from glraster.errors import CatalogError
from glraster.labels.grid import attempt, require_file
from glraster.labels.reader import LabelReader, RasterLabel
from glraster.labels.scenes import open_image, open_labels, warnings_once
from glraster.labels.spec import catalog_labels
from glraster.names import redact
from glraster.raster.grid import Window
from glraster.raster.reader import Scene
from glraster.raster.source import gdal_session

log = logging.getLogger(__name__)

_BLOCK = (512, 4096)

Visit = Callable[[Split, int, Scene, Window], None]
"""Called with the split, the number of the pair in it, its open image and the working pixels that the pair covers."""


@dataclass(frozen=True)
class ClassPixels:
    """How often a class occurs: `share` is of all pixels that have a class."""

    id: int
    name: str
    pixels: int
    share: float


@dataclass(frozen=True)
class SceneReport:
    """One pair: the size of the part it covers, and its pixels per class, in the order of the catalog's classes."""

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
    """What is in a catalog's files. `problems` prevent training; `notes` are doubts that do not."""

    name: str
    content_hash: str
    splits: tuple[SplitReport, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)

    def require_sound(self, where: str) -> None:
        """Raise a CatalogError with all problems of the catalog file `where`, if there are any."""
        if self.problems:
            raise CatalogError(*self.problems, where=where)


def check_catalog(catalog: Catalog, visit: Visit | None = None) -> CatalogReport:
    """Open every file of a catalog once and count the pixels of every class.

    Labels are read whole, block by block; of an image its first and last block, which show most damage.

    Args:
        catalog: what to check.
        visit: called with every image while it is open; what it raises as a GlrasterError is a problem of the catalog.

    Returns:
        Counts per split and all problems: a bad file is reported, not raised.

    Memory: one block of a label and GDAL's cache.
    """
    problems: list[str] = []
    notes: list[str] = []
    splits = []
    with gdal_session(), warnings_once():
        for name, pairs in catalog.splits.items():
            scenes = []
            for number, pair in enumerate(pairs):
                see = None if visit is None else partial(visit, name, number)
                scenes.append(_check_pair(catalog, pair, see, problems, notes))
            splits.append(_split_report(name, [scene for scene in scenes if scene is not None], catalog))
    for split, pairs in zip(splits, catalog.splits.values(), strict=True):
        _judge_split(split, len(pairs), problems, notes)
    return CatalogReport(
        catalog.name, catalog.content_hash, tuple(splits), tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(notes))
    )


def _check_pair(
    catalog: Catalog,
    pair: Pair,
    see: Callable[[Scene, Window], None] | None,
    problems: list[str],
    notes: list[str],
) -> SceneReport | None:
    log.info("%s: reading", redact(pair.label))
    image = attempt(problems, lambda: open_image(catalog, pair))
    if image is None:
        attempt(problems, lambda: _check_label_alone(catalog, pair))
        return None
    scene, area = image
    with scene:
        attempt(problems, lambda: _check_image(pair, scene))
        if see is not None:
            attempt(problems, lambda: see(scene, area))
        reader = attempt(problems, lambda: open_labels(catalog, pair, scene))
        if reader is None:
            return None
        with reader:
            notes += reader.notes
            pixels = attempt(problems, lambda: _count(reader, problems))
    if pixels is None:
        return None
    class_pixels = tuple(int(count) for count in pixels[: len(catalog.classes)])
    extent = reader.extent
    return SceneReport(
        scene.path, reader.path, extent.height, extent.width, class_pixels, ignored_pixels=int(pixels[IGNORE])
    )


def _check_label_alone(catalog: Catalog, pair: Pair) -> None:
    """Open a label whose image cannot be opened. Polygons have no grid of their own, so only their file is checked."""
    spec = catalog_labels(catalog)
    if spec.encoding == "vector":
        require_file(pair.label, spec.wording.missing)
    else:
        RasterLabel(pair.label, spec).close()


def _count(reader: LabelReader, problems: list[str]) -> npt.NDArray[np.int64]:
    """Pixels per class index, (256,)."""
    pixels = np.zeros(256, np.int64)
    unknown: Counter[str] = Counter()
    for block in reader.extent.blocks(*_BLOCK):
        indexes, unknown_in_block = reader.read_with_unknown(block)
        pixels += np.bincount(indexes.ravel(), minlength=256)
        unknown.update(unknown_in_block)
    if unknown:
        problems.append(str(reader.unknown_values(unknown)))
    return pixels


def _check_image(pair: Pair, scene: Scene) -> None:
    """Read the first and the last block of an image."""
    part = Window(*pair.window) if pair.window else scene.extent
    blocks = list(part.blocks(*_BLOCK))
    for block in {blocks[0], blocks[-1]}:
        scene.read_bands(scene.indexes, window=RasterioWindow(block.left, block.top, block.width, block.height))


def _split_report(name: Split, scenes: list[SceneReport], catalog: Catalog) -> SplitReport:
    pixels = [sum(scene.pixels[i] for scene in scenes) for i in range(len(catalog.classes))]
    total = max(1, sum(pixels))
    classes = tuple(
        ClassPixels(c.id, c.name, count, count / total) for c, count in zip(catalog.classes, pixels, strict=True)
    )
    return SplitReport(name, tuple(scenes), classes, sum(scene.ignored_pixels for scene in scenes))


def _judge_split(split: SplitReport, pairs: int, problems: list[str], notes: list[str]) -> None:
    """Note what a split as a whole lacks, unless its scenes have problems of their own."""
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
