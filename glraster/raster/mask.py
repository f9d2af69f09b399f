"""Read class masks: the map that `segment` writes, or any raster of class numbers."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from glraster.config import NODATA, LandClass
from glraster.errors import SceneError
from glraster.raster.class_raster import ClassRaster
from glraster.raster.georef import pixel_area_m2
from glraster.raster.grid import Window
from glraster.raster.opening import reason
from glraster.raster.writer import CLASSES_TAG, GDAL_ERRORS

UInt8Array = npt.NDArray[np.uint8]

_BLOCK = (512, 2048)


class Mask:
    """An open raster of class ids, 0 to 254; 255, nodata and masked pixels have no class.

    `classes` are those that its `GLRASTER_CLASSES` tag declares; without one, those whose ids occur, with the names and
    colours that the file has for them. Use as a context manager. Memory: one block, and GDAL's block cache.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._dataset = rasterio.open(path)
        except GDAL_ERRORS as error:
            raise SceneError(f"{path}: cannot be opened as a raster: {reason(error, path)}") from error
        try:
            self._check_form()
            self.classes = declared_classes(self._dataset) or self._found_classes()
        except SceneError:
            self.close()
            raise

    def _check_form(self) -> None:
        dtype = self._dataset.dtypes[0] if self._dataset.count else "nothing"
        if self._dataset.count != 1 or not np.issubdtype(np.dtype(dtype), np.integer):
            raise SceneError(
                f"{self.path}: is no mask of classes (it has {self._dataset.count} bands of {dtype}); give a raster "
                "with one band of class numbers, as 'glraster segment' writes"
            )

    def _found_classes(self) -> tuple[LandClass, ...]:
        pixels = np.zeros(256, np.int64)
        for _, block in self.blocks():
            pixels += np.bincount(block.ravel(), minlength=256)
        with ClassRaster(self.path) as raster:
            named = {c.id: c for c in raster.classes()}
        ids = np.flatnonzero(pixels[:NODATA]).tolist()
        return tuple(named.get(i) or LandClass(i, f"class {i}", distinct_color(i)) for i in ids)

    def __enter__(self) -> Mask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._dataset.close()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._dataset.height, self._dataset.width

    @property
    def extent(self) -> Window:
        return Window(0, 0, *self.shape)

    @property
    def crs(self) -> CRS | None:
        return self._dataset.crs

    @property
    def transform(self) -> Affine:
        transform: Affine = self._dataset.transform
        return transform

    @property
    def tags(self) -> Mapping[str, str]:
        tags: dict[str, str] = self._dataset.tags()
        return tags

    def read(self, window: Window) -> UInt8Array:
        """The class ids of a window inside the mask, (height, width); 255 where there is none."""
        return self._read(window, (window.height, window.width), Resampling.nearest)

    def overview(self, side: int, window: Window | None = None) -> UInt8Array:
        """A window, or all, shrunk to `side` pixels at most; each takes the class that most of its pixels have."""
        seen = window or self.extent
        factor = max(1.0, max(seen.height, seen.width) / side)
        shape = max(1, round(seen.height / factor)), max(1, round(seen.width / factor))
        return self._read(seen, shape, Resampling.mode if factor > 1 else Resampling.nearest)

    def blocks(self) -> Iterator[tuple[Window, UInt8Array]]:
        """All of the mask, block by block."""
        for window in self.extent.blocks(*_BLOCK):
            yield window, self.read(window)

    def areas(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64] | None]:
        """Pixels of every value 0 to 255, and their area in m²; None where the CRS tells no metres."""
        pixels, area, metric = np.zeros(256, np.int64), np.zeros(256), True
        for window, block in self.blocks():
            counted = np.bincount(block.ravel(), minlength=256)
            centre = window.top + window.height / 2, window.left + window.width / 2
            pixel_m2 = pixel_area_m2(self.crs, self.transform, *centre)
            metric &= pixel_m2 is not None
            pixels += counted
            area += counted * (pixel_m2 or 0.0)
        return pixels, area if metric else None

    def _read(self, window: Window, shape: tuple[int, int], resampling: Resampling) -> UInt8Array:
        source = RasterioWindow(window.left, window.top, window.width, window.height)
        with self._reading():
            values = self._dataset.read(1, window=source, out_shape=shape, resampling=resampling)
            valid = self._dataset.read_masks(1, window=source, out_shape=shape, resampling=Resampling.nearest) > 0
        if resampling is Resampling.mode and self._dataset.nodata == NODATA:
            valid = values != NODATA
        if values.dtype != np.uint8 and ((values < 0) | (values > NODATA))[valid].any():
            raise SceneError(f"{self.path}: has values beyond 0 to 255, so it holds no class numbers")
        return np.where(valid, values, NODATA).astype(np.uint8)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except GDAL_ERRORS as error:
            raise SceneError(f"{self.path}: cannot be read, it may be damaged: {reason(error, self.path)}") from error


def declared_classes(dataset: DatasetReader) -> tuple[LandClass, ...]:
    """The classes that a raster's `GLRASTER_CLASSES` tag declares; none where it is absent or damaged."""
    try:
        listed = json.loads(dataset.tags().get(CLASSES_TAG, "[]"))
        return tuple(LandClass(int(c["id"]), str(c["name"]), _color(c["color"])) for c in listed)
    except (ValueError, TypeError, KeyError):
        return ()


def distinct_color(position: int) -> tuple[int, int, int]:
    """A colour unlike those of the positions before: hues a golden section apart."""
    rgb = colorsys.hsv_to_rgb(position * 0.618034 % 1, 0.75, 0.9 if position % 2 == 0 else 0.65)
    red, green, blue = (round(255 * part) for part in rgb)
    return red, green, blue


def _color(channels: list[int]) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, int(channel))) for channel in channels[:3])
    return red, green, blue
