"""Labelled scenes at the ground sample distance of a catalog: image and label, window by window."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from glraster.catalog import IGNORE, Catalog, Member, Pair
from glraster.errors import CatalogError, SceneError
from glraster.labels.grid import ImageGrid, grid_of, require_file
from glraster.labels.reader import LabelReader
from glraster.labels.spec import CATALOG_WORDING, catalog_labels
from glraster.raster.grid import Window, WorkingAxis
from glraster.raster.reader import Scene
from glraster.raster.source import OpenRaster

MOST_OPEN = 64
"""Scenes that are open at once: each is two files or more, and systems allow a process some hundreds."""

_LABEL_PIXELS = 2**24
"""Label pixels in memory at once, if a label is much finer than the working grid."""


class LabelledScene:
    """An open image and its label on one working grid; `area` is the part that samples may show, in working pixels.

    `union_labels` has what the label's class indexes become in a union of catalogs; the indexes themselves if None.
    """

    def __init__(
        self, scene: Scene, labels: LabelReader, area: Window, union_labels: Sequence[int] | None = None
    ) -> None:
        self._scene, self._labels, self.area = scene, labels, area
        self._table: npt.NDArray[np.uint8] | None = None
        if union_labels is not None and tuple(union_labels) != tuple(range(len(union_labels))):
            self._table = np.full(256, IGNORE, np.uint8)
            self._table[: len(union_labels)] = union_labels

    def __enter__(self) -> LabelledScene:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        self._scene.close()
        self._labels.close()

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """Image (bands, H, W) and label (H, W) of a window of the working grid, `IGNORE` where either is unknown."""
        image, valid = self._scene.read(window)
        label = self._labels.read(window) if self._scene.grid.native else self._resampled(window)
        label[~valid] = IGNORE
        return image, label if self._table is None else self._table[label]

    def _resampled(self, window: Window) -> npt.NDArray[np.uint8]:
        """The label at the centres of working pixels."""
        rows = _scene_pixels(self._scene.grid.rows, window.top, window.bottom)
        columns = _scene_pixels(self._scene.grid.columns, window.left, window.right)
        label = np.empty((window.height, window.width), np.uint8)
        width = int(columns[-1] - columns[0]) + 1
        band = max(1, int(_LABEL_PIXELS / width / self._scene.grid.rows.scale))
        for start in range(0, len(rows), band):
            some = rows[start : start + band]
            source = Window(int(some[0]), int(columns[0]), int(some[-1] - some[0]) + 1, width)
            label[start : start + band] = self._labels.read(source)[np.ix_(some - some[0], columns - columns[0])]
        return label


def open_image(catalog: Catalog, pair: Pair) -> tuple[Scene, Window]:
    """Open the image of a pair at the catalog's ground sample distance, as `segment` reads it.

    A scene whose GSD differs by no more than 10 %, or whose CRS does not tell metres, is read in its own pixels.

    Returns:
        The open scene, and the part of its working grid that the pair covers.

    Raises:
        LabelError, SceneError: if it is missing or cannot be opened.
        CatalogError: if it is much too coarse, or smaller than the pair's window.
    """
    require_file(pair.image, CATALOG_WORDING.missing)
    scene = Scene(pair.image, catalog.indexes, catalog.bands)
    with scene.closed_on_error():
        part = _part(pair, grid_of(scene))
        if catalog.gsd_m is not None and scene.gsd_m is not None:
            _resample(scene, max(scene.gsd_m), catalog.gsd_m)
    top, bottom = _working_pixels(scene.grid.rows, part.top, part.bottom)
    left, right = _working_pixels(scene.grid.columns, part.left, part.right)
    return scene, Window(top, left, bottom - top, right - left)


def _resample(scene: Scene, own_gsd_m: float, gsd_m: float) -> None:
    try:
        scene.resample_to(gsd_m)
    except SceneError as error:
        raise CatalogError(
            f"its pixels of {own_gsd_m:.3g} m are too coarse to be read at gsd_m {gsd_m:g} of the catalog",
            where=scene.path,
        ) from error


def _part(pair: Pair, grid: ImageGrid) -> Window:
    """The pixels of an image that a pair covers."""
    if pair.window is None:
        return grid.extent
    part = Window(*pair.window)
    if part.intersection(grid.extent) != part:
        height, width = grid.shape
        raise CatalogError(f"the window {list(pair.window)} leaves its {height} x {width} px", where=grid.path)
    return part


def open_labels(catalog: Catalog, pair: Pair, scene: OpenRaster) -> LabelReader:
    """Open the label of a pair on the grid of its open image.

    Raises:
        LabelError: if it cannot be read, or lies on another grid.
        CatalogError: if the image is smaller than the pair's window.
    """
    grid = grid_of(scene)
    return LabelReader(pair.label, catalog_labels(catalog), grid, _part(pair, grid))


def open_member(member: Member) -> LabelledScene:
    """Open an image and its label, with the labels of the union; use as a context manager."""
    scene, area = open_image(member.catalog, member.pair)
    with scene.closed_on_error():
        return LabelledScene(scene, open_labels(member.catalog, member.pair, scene), area, member.labels)


class OpenScenes:
    """Scenes of one or several catalogs, opened when first used; the `most` last used ones stay open."""

    def __init__(self, members: Sequence[Member], most: int = MOST_OPEN) -> None:
        self._members, self._most = members, most
        self._open: OrderedDict[int, LabelledScene] = OrderedDict()

    def __getitem__(self, number: int) -> LabelledScene:
        """The open scene of member `number`; a later call for another one may close it."""
        if number not in self._open:
            if len(self._open) >= self._most:
                self._open.popitem(last=False)[1].close()
            self._open[number] = open_member(self._members[number])
        self._open.move_to_end(number)
        return self._open[number]

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


@contextmanager
def warnings_once() -> Iterator[None]:
    """Log each warning of a scene once, although scenes are opened again and again.

    The warning of a missing georeference is dropped: it is about maps, and none is written here.
    """
    logged: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        repeated = text in logged or "has no georeference" in text
        logged.add(text)
        return not repeated

    logger = logging.getLogger("glraster.raster.reader")
    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


def _scene_pixels(axis: WorkingAxis, start: int, stop: int) -> npt.NDArray[np.int64]:
    """The scene pixels in which the centres of working pixels [start, stop) lie."""
    return np.asarray((np.arange(start, stop) + 0.5) * axis.scale // 1, np.int64)


def _working_pixels(axis: WorkingAxis, start: int, stop: int) -> tuple[int, int]:
    """The working pixels that lie in scene pixels [start, stop): one at least."""
    first = min(int(np.ceil(start / axis.scale - 1e-6)), axis.working - 1)
    return first, max(first + 1, int(np.floor(stop / axis.scale + 1e-6)))
