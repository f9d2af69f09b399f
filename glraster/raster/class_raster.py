"""Read a raster of class numbers band by band, with a rim that has no class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from rasterio.enums import MaskFlags
from rasterio.windows import Window as RasterioWindow

from glraster.config import LandClass
from glraster.errors import SceneError
from glraster.raster.georef import bounds_window
from glraster.raster.grid import Window, round_up
from glraster.raster.source import OpenRaster
from glraster.raster.writer import CLASSES_TAG

BAND_PX = 8 * 2**20
"""Pixels of a band, about; a band is at least one row of the file's blocks."""

_NO_CLASS = np.iinfo(np.int32).min

Bounds = tuple[float, float, float, float]


class ClassRaster(OpenRaster):
    """A single-band raster of class numbers, or the part of it inside `bounds` (left, bottom, right, top in its CRS).

    Use as a context manager. `blank` is the value that stands for "no class" in the pixels that are read; `region`
    the part in pixels of the file; `columns` the width of what is read, rim included. With `measured`, a raster of
    values of any kind, for `read_measured`.
    """

    def __init__(self, path: str, bounds: Bounds | None = None, measured: bool = False) -> None:
        super().__init__(path)
        with self.closed_on_error():
            self._band = self._only_band(measured)
            self.region = self.extent if bounds is None else bounds_window(bounds, self.transform, *self.shape)
        self._masked = not {MaskFlags.all_valid, MaskFlags.nodata} & set(self.dataset.mask_flag_enums[self._band - 1])
        nodata = self.dataset.nodatavals[self._band - 1]
        self._nodata = int(nodata) if nodata is not None and float(nodata).is_integer() else None
        narrow = self.dtype == "uint8" and not self._masked and self._nodata is not None and 0 <= self._nodata <= 255
        self.pixel = np.dtype(np.uint8 if narrow else np.int32)
        self.blank = int(self._nodata or 0) if narrow else int(_NO_CLASS)
        self.columns = round_up(self.region.width + 2, 8 // self.pixel.itemsize)

    def _only_band(self, measured: bool) -> int:
        bands = self.value_bands
        if len(bands) != 1:
            what = "values" if measured else "class numbers"
            raise SceneError(f"{self.path}: has {len(bands)} bands; one band of {what} is needed")
        self.dtype = str(self.dataset.dtypes[bands[0] - 1])
        if self.dtype[0] not in "iu" and not measured:
            raise SceneError(f"{self.path}: has {self.dtype} pixels, a class mask has whole numbers; convert it first")
        return int(bands[0])

    @property
    def band_rows(self) -> int:
        """Rows of a band: whole rows of the file's blocks."""
        block: int = self.dataset.block_shapes[self._band - 1][0]
        wanted = max(1, BAND_PX // self.columns)
        return int(min(max(block, wanted // block * block), self.region.height))

    def bands(self, rows: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """The pixels from top to bottom: the first row, and (1 + rows, columns) values with the row above the band.

        The rim around the region is blank; the last band has a blank row at its end. Memory: one band.
        """
        above: npt.NDArray[Any] | None = None
        for top in range(self.region.top, self.region.bottom, rows):
            pixels = self._with_rim(top, min(rows, self.region.bottom - top), above)
            above = pixels[min(rows, self.region.bottom - top)].copy()
            yield top, pixels

    def band(self, top: int, rows: int) -> npt.NDArray[Any]:
        """The pixels of the one of the `bands` of `rows` rows that begins at row `top`."""
        above = None
        if top > self.region.top:
            above = self._with_rim(top - 1, 1, None)[1]
        return self._with_rim(top, min(rows, self.region.bottom - top), above)

    def _with_rim(self, top: int, height: int, above: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        """Rows of the region, with the row above them, blank where None, a rim, and at the end a blank row."""
        last = top + height == self.region.bottom
        pixels = np.full((1 + height + last, self.columns), self.blank, self.pixel)
        if above is not None:
            pixels[0] = above
        left, width = self.region.left, self.region.width
        pixels[1 : 1 + height, 1 : 1 + width] = self._read(Window(top, left, height, width))
        return pixels

    def _read(self, window: Window) -> npt.NDArray[Any]:
        source = RasterioWindow(window.left, window.top, window.width, window.height)
        values = self.read_bands(self._band, window=source)
        mask = self.read_masks(self._band, window=source) if self._masked else None
        if values.dtype == self.pixel and mask is None and self._nodata in (None, self.blank):
            return np.asarray(values)
        invalid = values == self._nodata if self._nodata is not None else np.zeros(values.shape, bool)
        if mask is not None:
            invalid |= mask == 0
        valid = values[~invalid] if values.dtype.itemsize >= 4 else values[:0]
        if valid.size and (int(valid.min()) <= _NO_CLASS or int(valid.max()) > np.iinfo(np.int32).max):
            raise SceneError(f"{self.path}: has values beyond 32 bits, which no class number needs")
        classes = values.astype(np.int32)
        classes[invalid] = self.blank
        return np.asarray(classes)

    def read_measured(self, window: Window) -> npt.NDArray[np.float32]:
        """Values of a window of a raster that measures something, NaN where they are invalid."""
        source = RasterioWindow(window.left, window.top, window.width, window.height)
        values = self.read_bands(self._band, window=source).astype(np.float32)
        values[self.read_masks(self._band, window=source) == 0] = np.nan
        return values

    def classes(self) -> tuple[LandClass, ...]:
        """The classes that the file itself names: by glraster's tag, by category names, or by its colour table."""
        tag = self.tags.get(CLASSES_TAG)
        if tag is not None:
            try:
                return listed_classes(tag)
            except (ValueError, KeyError, TypeError) as error:
                raise SceneError(f"{self.path}: its tag {CLASSES_TAG} is damaged") from error
        names = self._category_names()
        try:
            colors = {i: _rgb(color) for i, color in self.dataset.colormap(self._band).items()}
        except ValueError:
            colors = {}
        used = {i for i, color in colors.items() if color != (0, 0, 0)} if len(set(colors.values())) > 1 else set()
        found = sorted(({i for i, name in enumerate(names) if name} | used) - {self._nodata})
        default = generated_colors(len(found))
        return tuple(
            LandClass(
                i,
                names[i] if i < len(names) and names[i] else f"class {i}",
                colors[i] if i in used else default[k],
            )
            for k, i in enumerate(found)
        )

    def _category_names(self) -> list[str]:
        sidecar = Path(self.name + ".aux.xml")
        if not sidecar.is_file():
            return []
        try:
            tree = ElementTree.parse(sidecar)
        except ElementTree.ParseError:
            return []
        band = tree.find(f"PAMRasterBand[@band='{self._band}']/CategoryNames")
        return [] if band is None else [category.text or "" for category in band.findall("Category")]


def listed_classes(tag: str) -> tuple[LandClass, ...]:
    """The classes that the text of a `GLRASTER_CLASSES` tag lists; a ValueError, KeyError or TypeError if damaged."""
    return tuple(LandClass(int(c["id"]), str(c["name"]), _rgb(c["color"])) for c in json.loads(tag))


def _rgb(color: Any) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, int(channel))) for channel in list(color)[:3])
    return red, green, blue


def generated_colors(count: int) -> list[tuple[int, int, int]]:
    """Colours that differ from their neighbours: hues a golden angle apart."""
    from colorsys import hsv_to_rgb

    turns = [(0.07 + 0.618034 * i) % 1 for i in range(count)]
    return [_rgb(255 * c for c in hsv_to_rgb(h, 0.55 + 0.25 * (i % 2), 0.85)) for i, h in enumerate(turns)]
