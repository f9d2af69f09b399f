"""Read a map of classes: the one that `segment` writes, or any raster with one band of whole numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from rasterio.enums import MaskFlags, Resampling
from rasterio.windows import Window as RasterioWindow

from glraster.config import NODATA, LandClass, class_color
from glraster.errors import SceneError
from glraster.raster.class_names import declared_classes, foreign_classes
from glraster.raster.georef import bounds_window, pixel_area_m2
from glraster.raster.grid import Window, round_up
from glraster.raster.source import OpenRaster

BAND_PX = 8 * 2**20
"""Pixels of a band of rows, about; a band is at least one row of the file's blocks."""

_BLOCK = (512, 2048)

_NO_CLASS = np.iinfo(np.int32).min

Bounds = tuple[float, float, float, float]
BoolArray = npt.NDArray[np.bool_]
UInt8Array = npt.NDArray[np.uint8]


class ValueRaster(OpenRaster):
    """A raster with one band of values, beside which an alpha band may lie; use as a context manager.

    `index` is the 1-based index of the band. A pixel is valid if GDAL's mask of the band says so (nodata, alpha, mask
    band or .msk file), and the alpha band too.

    Raises:
        SceneError: on creation, if it has another number of bands.
    """

    content: ClassVar[str] = "values"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        with self.closed_on_error():
            if len(self.value_bands) != 1:
                raise SceneError(
                    f"{self.path}: has {len(self.value_bands)} bands; give a raster with one band of {self.content}"
                )
        self.index = self.value_bands[0]
        self.dtype = str(self.dataset.dtypes[self.index - 1])
        flags = set(self.dataset.mask_flag_enums[self.index - 1])
        self._only_nodata = flags == {MaskFlags.nodata}
        self._mask_bands = () if flags == {MaskFlags.all_valid} else (self.index,)
        # GDAL's mask of a band with nodata leaves the alpha band out
        self._alpha_bands = () if MaskFlags.alpha in flags else self.alpha_bands

    def read_measured(self, window: Window) -> npt.NDArray[np.float32]:
        """The values of a window, (height, width), NaN if invalid."""
        values, valid = self._read(window)
        measured = values.astype(np.float32)
        if valid is not None:
            measured[~valid] = np.nan
        return measured

    def _read(self, window: Window, **how: Any) -> tuple[npt.NDArray[Any], BoolArray | None]:
        """The values of a window and which are valid, None if all are."""
        form = {**how, "window": RasterioWindow(window.left, window.top, window.width, window.height)}
        values = self.read_bands(self.index, **form)
        form["resampling"] = Resampling.nearest
        valid: BoolArray | None = None
        for read, bands in ((self.read_masks, self._mask_bands), (self.read_bands, self._alpha_bands)):
            for band in bands:
                seen = read(band, **form) > 0
                valid = seen if valid is None else valid & seen
        return values, valid


class ClassRaster(ValueRaster):
    """A raster of class numbers, or the part of it inside `bounds` (left, bottom, right, top in its CRS).

    Pixels are whole numbers of 32 bits; a raster of floats is taken if its valid values are whole. NaN and infinite
    pixels are invalid. `region` is the part that is read by `bands`, in pixels of the file.

    Two views of the same pixels:

    - `read`, `overview`, `blocks`, `areas`: class ids of a map, uint8, 0 to 254, and 255 for no class;
    - `bands`, `band`: for tracing, with a rim without class around the region. Pixels are of the type `pixel`; `blank`
      stands for no class; `columns` is the width of what is read, rim included.

    Raises:
        SceneError: on creation, if it cannot be a map of classes.
    """

    content = "class numbers, as 'glraster segment' writes"

    def __init__(self, path: str, bounds: Bounds | None = None) -> None:
        super().__init__(path)
        with self.closed_on_error():
            if np.dtype(self.dtype if "complex" not in self.dtype else complex).kind not in "iuf":
                raise SceneError(f"{self.path}: has {self.dtype} pixels; give a raster with one band of {self.content}")
            self.region = self.extent if bounds is None else bounds_window(bounds, self.transform, *self.shape)
        nodata = self.dataset.nodatavals[self.index - 1]
        # bytes whose only invalid value is a byte are traced as they are
        narrow = self.dtype == "uint8" and self._only_nodata and not self._alpha_bands and nodata in range(256)
        self.pixel = np.dtype(np.uint8 if narrow else np.int32)
        self.blank = int(nodata) if narrow else int(_NO_CLASS)
        self.columns = round_up(self.region.width + 2, 8 // self.pixel.itemsize)

    @cached_property
    def declared(self) -> tuple[LandClass, ...]:
        """The classes of its `GLRASTER_CLASSES` tag, whether they occur or not."""
        return declared_classes(self.dataset)

    @cached_property
    def named(self) -> tuple[LandClass, ...]:
        """The classes that the file itself names, by its tag or else as `foreign_classes` finds them."""
        return self.declared or self.fetch(lambda: foreign_classes(self.dataset, self.index))

    @cached_property
    def classes(self) -> tuple[LandClass, ...]:
        """The classes of the map: the declared ones, or else those whose ids occur.

        Reads all pixels if there is no tag.

        Raises:
            SceneError: if it has values beyond 0 to 255.
        """
        if self.declared:
            return self.declared
        pixels = np.zeros(256, np.int64)
        for _, block in self.blocks():
            pixels += np.bincount(block.ravel(), minlength=256)
        named = {c.id: c for c in self.named}
        ids = np.flatnonzero(pixels[:NODATA]).tolist()
        return tuple(named.get(i) or LandClass(i, f"class {i}", class_color(i)) for i in ids)

    def read(self, window: Window) -> UInt8Array:
        """The class ids of a window inside the raster, (height, width); 255 if a pixel has none."""
        return self._ids(*self._read(window))

    def overview(self, side: int) -> UInt8Array:
        """All of the raster shrunk to `side` pixels at most; each takes the class that most of its pixels have.

        Votes are counted in the pixels themselves: overviews in the file may be averages, with classes that are not
        there. Time: one pass over all pixels.
        """
        factor = max(1.0, max(self.shape) / side)
        if factor == 1:
            return self.read(self.extent)
        shape = max(1, round(self.shape[0] / factor)), max(1, round(self.shape[1] / factor))
        with _WithoutOverviews(self.name) as pixels:
            values, valid = pixels._read(self.extent, out_shape=shape, resampling=Resampling.mode)
        if self.pixel == np.uint8:
            valid = values != self.blank  # nodata has no vote; the mask was read at one pixel of each place only
        return self._ids(values, valid)

    def blocks(self) -> Iterator[tuple[Window, UInt8Array]]:
        """The class ids of all of the raster, block by block."""
        for window in self.extent.blocks(*_BLOCK):
            yield window, self.read(window)

    def areas(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64] | None]:
        """Pixels of every value 0 to 255, and their area in m²; None if the CRS has no metres."""
        pixels, area, metric = np.zeros(256, np.int64), np.zeros(256), True
        for window, block in self.blocks():
            counts = np.bincount(block.ravel(), minlength=256)
            centre = window.top + window.height / 2, window.left + window.width / 2
            pixel_m2 = pixel_area_m2(self.crs, self.transform, *centre)
            metric &= pixel_m2 is not None
            pixels += counts
            area += counts * (pixel_m2 or 0.0)
        return pixels, area if metric else None

    @property
    def band_rows(self) -> int:
        """Rows of a band: whole rows of the file's blocks, about `BAND_PX` pixels."""
        block: int = self.dataset.block_shapes[self.index - 1][0]
        rows = max(1, BAND_PX // self.columns)
        return int(min(max(block, rows // block * block), self.region.height))

    def band(self, top: int, rows: int, above: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """The pixels of the `rows` rows from row `top` on, or of those that are left, below the row above them.

        The rim around the region is blank, and so is a row at the end of the last band. A region of 3 rows and 4
        columns in bands of 2 rows, `.` is blank:

            . . . . . .  row above        . 5 5 7 7 .  row above: the last of the band before
            . 1 1 2 2 .  first row        . 8 8 8 8 .  first row
            . 5 5 7 7 .                   . . . . . .  blank row at the region's end

        Args:
            top: a row of the region.
            rows: of the band.
            above: the row above it, (columns,), if it is known from the band before.

        Returns:
            (1 + rows, columns), one row more in the last band. Memory: the band.
        """
        if above is None and top > self.region.top:
            above = self._with_rim(top - 1, 1, None)[1]
        return self._with_rim(top, min(rows, self.region.bottom - top), above)

    def _with_rim(self, top: int, height: int, above: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        at_end = top + height == self.region.bottom
        pixels = np.full((1 + height + at_end, self.columns), self.blank, self.pixel)
        if above is not None:
            pixels[0] = above
        left, width = self.region.left, self.region.width
        pixels[1 : 1 + height, 1 : 1 + width] = self._numbers(Window(top, left, height, width))
        return pixels

    def _numbers(self, window: Window) -> npt.NDArray[Any]:
        """The class numbers of a window in the type `pixel`, `blank` if a pixel has none."""
        if self.pixel == np.uint8:  # nodata is blank
            source = RasterioWindow(window.left, window.top, window.width, window.height)
            return self.read_bands(self.index, window=source)
        values, valid = self._read(window)
        valid = self._checked(values, valid)
        with np.errstate(invalid="ignore"):  # invalid pixels can hold anything
            numbers = values.astype(np.int32, copy=False)
        if valid is not None:
            numbers[~valid] = self.blank
        return np.asarray(numbers)

    def _ids(self, values: npt.NDArray[Any], valid: BoolArray | None) -> UInt8Array:
        """Values as class ids of a map, 255 if a pixel has none."""
        if values.dtype != np.uint8:
            valid = self._checked(values, valid)
            used = values if valid is None else values[valid]
            if used.size and (used.min() < 0 or used.max() > NODATA):
                raise SceneError(f"{self.path}: has values beyond 0 to 255, so it holds no class numbers")
            with np.errstate(invalid="ignore"):
                values = values.astype(np.uint8)
        return values if valid is None else np.where(valid, values, np.uint8(NODATA))

    def _checked(self, values: npt.NDArray[Any], valid: BoolArray | None) -> BoolArray | None:
        """Which values are class numbers.

        Raises:
            SceneError: if a valid one is not whole, or not within 32 bits.
        """
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            valid = finite if valid is None else valid & finite
        if values.dtype.itemsize < 4 and values.dtype.kind != "f":
            return valid
        used = values if valid is None else values[valid]
        if values.dtype.kind == "f" and (broken := used[used != np.rint(used)]).size:
            raise SceneError(
                f"{self.path}: has the value {broken[0]:g}, a map of classes has whole numbers; classify it first"
            )
        if used.size and (int(used.min()) <= _NO_CLASS or int(used.max()) > np.iinfo(np.int32).max):
            raise SceneError(f"{self.path}: has values beyond -2147483647 to 2147483647, which no class number needs")
        return valid


class _WithoutOverviews(ValueRaster):
    """A raster as if it had no overviews."""

    open_options: ClassVar[Mapping[str, str]] = {"OVERVIEW_LEVEL": "NONE"}
