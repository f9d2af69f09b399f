"""Read class masks: the map that `segment` writes, or any raster of class numbers."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from glraster.config import NODATA, LandClass
from glraster.errors import SceneError
from glraster.raster.class_raster import ClassRaster, listed_classes
from glraster.raster.georef import pixel_area_m2
from glraster.raster.grid import Window
from glraster.raster.source import OpenRaster
from glraster.raster.writer import CLASSES_TAG

UInt8Array = npt.NDArray[np.uint8]

_BLOCK = (512, 2048)


class Mask(OpenRaster):
    """An open raster of class ids, 0 to 254; 255, nodata and masked pixels have no class.

    `classes` are those that its `GLRASTER_CLASSES` tag declares; without one, those whose ids occur, with the names and
    colours that the file has for them. Use as a context manager. Memory: one block, and GDAL's block cache.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        with self.closed_on_error():
            self._check_form()
            self.classes = declared_classes(self.dataset) or self._found_classes()

    def _check_form(self) -> None:
        dtype = self.dataset.dtypes[0] if self.dataset.count else "nothing"
        if self.dataset.count != 1 or not np.issubdtype(np.dtype(dtype), np.integer):
            raise SceneError(
                f"{self.path}: is no mask of classes (it has {self.dataset.count} bands of {dtype}); give a raster "
                "with one band of class numbers, as 'glraster segment' writes"
            )

    def _found_classes(self) -> tuple[LandClass, ...]:
        pixels = np.zeros(256, np.int64)
        for _, block in self.blocks():
            pixels += np.bincount(block.ravel(), minlength=256)
        with ClassRaster(self.name) as raster:
            named = {c.id: c for c in raster.classes()}
        ids = np.flatnonzero(pixels[:NODATA]).tolist()
        return tuple(named.get(i) or LandClass(i, f"class {i}", distinct_color(i)) for i in ids)

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
        values = self.read_bands(1, window=source, out_shape=shape, resampling=resampling)
        valid = self.read_masks(1, window=source, out_shape=shape, resampling=Resampling.nearest) > 0
        if resampling is Resampling.mode and self.dataset.nodata == NODATA:
            valid = values != NODATA
        if values.dtype != np.uint8 and ((values < 0) | (values > NODATA))[valid].any():
            raise SceneError(f"{self.path}: has values beyond 0 to 255, so it holds no class numbers")
        return np.where(valid, values, NODATA).astype(np.uint8)


def declared_classes(dataset: DatasetReader) -> tuple[LandClass, ...]:
    """The classes that a raster's `GLRASTER_CLASSES` tag declares; none where it is absent or damaged."""
    try:
        return listed_classes(dataset.tags().get(CLASSES_TAG, "[]"))
    except (ValueError, TypeError, KeyError):
        return ()


def distinct_color(position: int) -> tuple[int, int, int]:
    """A colour unlike those of the positions before: hues a golden section apart."""
    rgb = colorsys.hsv_to_rgb(position * 0.618034 % 1, 0.75, 0.9 if position % 2 == 0 else 0.65)
    red, green, blue = (round(255 * part) for part in rgb)
    return red, green, blue
