"""Read labels of any encoding as class indexes on the grid of their image."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from glraster.catalog import IGNORE
from glraster.catalog.records import color_code
from glraster.errors import LabelError
from glraster.labels.grid import ImageGrid, LabelRaster, grid_of, require_file
from glraster.labels.polygons import PolygonLabel
from glraster.labels.spec import LabelSpec
from glraster.names import redact
from glraster.raster.grid import Window

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

_LISTED_VALUES = 8


class _Label(Protocol):
    """A label as a raster of values: what they mean, and what to call them."""

    path: str

    def read(self, window: Window) -> tuple[npt.NDArray[Any], BoolArray]: ...
    def meaning(self, value: Any) -> int | None: ...
    def describe(self, value: Any) -> str: ...
    def notes(self) -> list[str]: ...
    def close(self) -> None: ...


class LabelReader:
    """An open label: windows of class indexes on the grid of its image.

    255 means ignored. `notes` are doubts that do not prevent reading. Use as a context manager, in the process and
    thread that reads.

    Args:
        name: what GDAL or OGR opens.
        spec: what its values mean.
        grid: of the image, or of the map that is compared.
        extent: the part of the grid to read; everything outside of it is ignored. All of it if None.
        path: the name for messages, if `name` is a temporary file.

    Raises:
        LabelError: on creation, if the label is missing or unreadable, lies on another grid, or does not have the
            encoding of `spec`.
    """

    def __init__(
        self, name: str, spec: LabelSpec, grid: ImageGrid, extent: Window | None = None, path: str | None = None
    ) -> None:
        self.path = path or redact(name)
        self.grid = grid
        self.extent = extent or grid.extent
        self._spec = spec
        self._label: _Label = PolygonLabel(name, spec, grid) if spec.encoding == "vector" else RasterLabel(name, spec)
        self._label.path = self.path
        mismatch = (
            grid.mismatch(grid_of(self._label), spec.wording.image) if isinstance(self._label, RasterLabel) else None
        )
        if mismatch:
            self.close()
            raise LabelError(mismatch, where=self.path, advice=spec.wording.grid)

    @property
    def notes(self) -> list[str]:
        return self._label.notes()

    def read(self, window: Window) -> UInt8Array:
        """Read a window of the image's grid.

        Args:
            window: pixels of the image; it may reach beyond `extent`.

        Returns:
            Class indexes (height, width), 255 where ignored, nodata, or outside of `extent`.

        Raises:
            LabelError: if the label cannot be read, or has a value that is no class.
        """
        indexes, unknown = self.read_with_unknown(window)
        if unknown:
            raise self.unknown_values(unknown)
        return indexes

    def read_with_unknown(self, window: Window) -> tuple[UInt8Array, dict[str, int]]:
        """As `read`, but values that are no class are ignored and returned with their pixel counts."""
        indexes = np.full((window.height, window.width), IGNORE, np.uint8)
        inside = window.intersection(self.extent)
        if inside is None:
            return indexes, {}
        values, valid = self._label.read(inside)
        target = (
            slice(inside.top - window.top, inside.bottom - window.top),
            slice(inside.left - window.left, inside.right - window.left),
        )
        indexes[target], unknown = _classify(values, valid, self._label)
        return indexes, unknown

    def unknown_values(self, pixel_counts: Mapping[str, int]) -> LabelError:
        """The error for label values that are no class, by their pixel counts."""
        listed = [f"{value} ({count} px)" for value, count in list(pixel_counts.items())[:_LISTED_VALUES]]
        more = len(pixel_counts) - len(listed)
        values = ", ".join(listed) + (f" and {more} more" if more else "")
        return LabelError(
            f"has label values that are no class: {values}", where=self.path, advice=self._spec.wording.values
        )

    def __enter__(self) -> LabelReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._label.close()


class RasterLabel(LabelRaster):
    """An open raster label. The values of an rgb label are colour codes, three bits for red, green and blue."""

    def __init__(self, name: str, spec: LabelSpec) -> None:
        require_file(name, spec.wording.missing)
        super().__init__(name)
        self._spec = spec
        self._rgb = spec.encoding == "rgb"
        self._indexes = [1, 2, 3] if self._rgb else [1]
        with self.closed_on_error():
            _check_form(self.dataset, self.path, spec)
        flags = [self.dataset.mask_flag_enums[i - 1] for i in self._indexes]
        self._all_valid = all(flag == [MaskFlags.all_valid] for flag in flags)

    def read(self, window: Window) -> tuple[npt.NDArray[Any], BoolArray]:
        """Values and validity of a window inside the raster, both (height, width)."""
        source = RasterioWindow(window.left, window.top, window.width, window.height)
        pixels = self.read_bands(self._indexes, window=source)
        valid = np.ones(pixels.shape[1:], bool)
        if not self._all_valid:
            valid = np.asarray((self.read_masks(self._indexes, window=source) > 0).any(axis=0))
        if np.issubdtype(pixels.dtype, np.floating):
            valid &= np.isfinite(pixels).all(axis=0)
        return _color_codes(pixels) if self._rgb else pixels[0], valid

    def meaning(self, value: Any) -> int | None:
        """The class index of a value, `IGNORE`, or None if it is no class."""
        return self._spec.meanings.get(value)

    def describe(self, value: Any) -> str:
        if not self._rgb:
            return f"{value:g}" if isinstance(value, float) else str(value)
        return f"colour ({', '.join('255' if value & bit else '0' for bit in (4, 2, 1))})"

    def notes(self) -> list[str]:
        """A nodata value that is a class too: easily set by mistake, and the class is never learned."""
        nodata = self.dataset.nodata
        value = color_code((nodata,) * 3) if self._rgb and nodata is not None else nodata
        class_index = None if value is None else self.meaning(value)
        if class_index is None or class_index == IGNORE:
            return []
        name = self._spec.class_names[class_index]
        return [
            f"{self.path}: declares {nodata:g} as nodata, which is the class {name}; its pixels are ignored (if they "
            "should not be: rio edit-info --unset-nodata)"
        ]


def _check_form(dataset: DatasetReader, path: str, spec: LabelSpec) -> None:
    """Raise a LabelError if a raster cannot have the encoding of the spec."""
    encoding, bands, dtype = spec.encoding, dataset.count, dataset.dtypes[0] if dataset.count else ""
    advice = ""
    if bands == 0:
        what = "holds no raster band"
    elif "complex" in dtype:
        what = "has complex pixels, so it is no label"
    elif encoding == "rgb" and bands < 3:
        what, advice = f"has {bands} bands and the encoding rgb needs 3", spec.wording.encoding.format("index")
    elif encoding == "rgb" and dtype != "uint8":
        what = f"is {dtype}, and rgb labels are uint8"
    elif encoding != "rgb" and bands >= 3:
        what = f"has {bands} bands, so it is a coloured mask and not {encoding}"
        advice = spec.wording.encoding.format("rgb")
    else:
        return
    raise LabelError(what, where=path, advice=advice)


def _color_codes(pixels: npt.NDArray[Any]) -> UInt8Array:
    red, green, blue = pixels >> 7
    return np.asarray(4 * red + 2 * green + blue, np.uint8)


def _classify(values: npt.NDArray[Any], valid: BoolArray, label: _Label) -> tuple[UInt8Array, dict[str, int]]:
    """Class indexes of label values, and the pixel counts of those that are no class."""
    valid_values = values[valid]
    if values.dtype == np.uint8:
        counts = np.bincount(valid_values, minlength=256)
        distinct = np.flatnonzero(counts)
        counts, places = counts[distinct], None
    else:
        distinct, places, counts = np.unique(valid_values, return_inverse=True, return_counts=True)
    meanings = [label.meaning(value) for value in distinct.tolist()]
    indexes = np.array([IGNORE if meaning is None else meaning for meaning in meanings], np.uint8)
    unknown = {
        label.describe(value): int(count)
        for value, count, meaning in zip(distinct.tolist(), counts, meanings, strict=True)
        if meaning is None
    }
    if places is None:
        table = np.full(256, IGNORE, np.uint8)
        table[distinct] = indexes
        classified = table[values]
        classified[~valid] = IGNORE
    else:
        classified = np.full(values.shape, IGNORE, np.uint8)
        classified[valid] = indexes[places]
    return classified, unknown
