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

from glraster.catalog import IGNORE, Catalog, Pair
from glraster.catalog.records import color_code, raise_problems
from glraster.errors import CatalogError
from glraster.labels.grid import CatalogRaster, ImageGrid, attempt, grid_of
from glraster.labels.polygons import PolygonLabel
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
    """The label of one pair: windows of class indexes on the image's own grid.

    A class index is a position in `catalog.classes`, not an id; 255 is to be ignored. `grid` is the image's, `extent`
    the part of it that the pair covers. `notes` are doubts that do not hinder. Use as a context manager, in the
    process and thread that reads.

    Raises:
        CatalogError: on creation, with all that hinders: a missing or unreadable file, another grid, an encoding that
            the label does not have.
    """

    def __init__(self, pair: Pair, catalog: Catalog) -> None:
        self.pair = pair
        problems: list[str] = []
        grid = attempt(problems, lambda: _image_grid(pair.image))
        label = attempt(problems, lambda: _open_label(pair.label, catalog, grid))
        if grid is not None:
            self.grid = grid
            self.extent = Window(*pair.window) if pair.window else grid.extent
            if self.extent.intersection(grid.extent) != self.extent:
                height, width = grid.shape
                problems.append(f"{grid.path}: the window {list(pair.window or ())} leaves its {height} x {width} px")
            if isinstance(label, RasterLabel) and (mismatch := grid.mismatch(label.grid)):
                problems.append(mismatch)
        if problems and label is not None:
            label.close()
        raise_problems(problems)
        assert label is not None
        self._label: _Label = label

    @property
    def notes(self) -> list[str]:
        return self._label.notes()

    def read(self, window: Window) -> UInt8Array:
        """Read a window of the image's grid.

        Args:
            window: pixels of the image; it may reach beyond `extent`, where everything is to be ignored.

        Returns:
            Class indexes (height, width), 255 where ignored, nodata, or outside.

        Raises:
            CatalogError: where the label cannot be read, or has a value that is no class.
        """
        indexes, unknown = self.read_with_unknown(window)
        if unknown:
            raise CatalogError(unknown_text(unknown), source=redact(self.pair.label))
        return indexes

    def read_with_unknown(self, window: Window) -> tuple[UInt8Array, dict[str, int]]:
        """As `read`, with pixel counts of the label values that are no class instead of an error for them."""
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

    def __enter__(self) -> LabelReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._label.close()


class RasterLabel(CatalogRaster):
    """An open raster label; of an rgb one the values are colour codes, three bits for red, green and blue."""

    def __init__(self, path: str, catalog: Catalog) -> None:
        super().__init__(path)
        self._rgb = catalog.labels.encoding == "rgb"
        self._catalog = catalog
        self._meanings = catalog.label_meanings()
        self.grid = grid_of(self)
        self._indexes = [1, 2, 3] if self._rgb else [1]
        problem = _form_problem(self.dataset, catalog)
        if problem:
            self.close()
            raise CatalogError(problem, source=self.path)
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
        """The class index of a value, `IGNORE`, or None where it is no class."""
        return self._meanings.get(value)

    def describe(self, value: Any) -> str:
        if not self._rgb:
            return f"{value:g}" if isinstance(value, float) else str(value)
        return f"colour ({', '.join('255' if value & bit else '0' for bit in (4, 2, 1))})"

    def notes(self) -> list[str]:
        """A nodata value that is a class too: easily set by mistake, and the class is never learned."""
        nodata = self.dataset.nodata
        value = color_code((nodata,) * 3) if self._rgb and nodata is not None else nodata
        meaning = None if value is None else self._meanings.get(value)
        if meaning in (None, IGNORE):
            return []
        name = self._catalog.classes[meaning].name
        return [
            f"{self.path}: declares {nodata:g} as nodata, which is the class {name}; its pixels are ignored (if they "
            "should not be: rio edit-info --unset-nodata)"
        ]


def _image_grid(path: str) -> ImageGrid:
    with CatalogRaster(path) as raster:
        return grid_of(raster)


def _open_label(path: str, catalog: Catalog, grid: ImageGrid | None) -> RasterLabel | PolygonLabel | None:
    if catalog.labels.encoding != "vector":
        return RasterLabel(path, catalog)
    # polygons have no grid of their own: without the image there is nothing to check them against
    return None if grid is None else PolygonLabel(path, catalog, grid)


def _form_problem(dataset: DatasetReader, catalog: Catalog) -> str | None:
    """What makes a raster no label of the catalog's encoding."""
    encoding = catalog.labels.encoding
    if dataset.count == 0:
        return "holds no raster band"
    if "complex" in dataset.dtypes[0]:
        return "has complex pixels, so it is no label"
    if encoding == "rgb" and dataset.count < 3:
        return f"has {dataset.count} bands and the encoding rgb needs 3; use encoding: index"
    if encoding == "rgb" and dataset.dtypes[0] != "uint8":
        return f"is {dataset.dtypes[0]}, and rgb labels are uint8"
    if encoding != "rgb" and dataset.count >= 3:
        return f"has {dataset.count} bands, so it is a coloured mask and not {encoding}; use encoding: rgb"
    return None


def _color_codes(pixels: npt.NDArray[Any]) -> UInt8Array:
    red, green, blue = pixels >> 7
    return np.asarray(4 * red + 2 * green + blue, np.uint8)


def _classify(values: npt.NDArray[Any], valid: BoolArray, label: _Label) -> tuple[UInt8Array, dict[str, int]]:
    """Class indexes of label values, and the pixel counts of those that are no class."""
    seen = values[valid]
    if values.dtype == np.uint8:
        counts = np.bincount(seen, minlength=256)
        found = np.flatnonzero(counts)
        counts, places = counts[found], None
    else:
        found, places, counts = np.unique(seen, return_inverse=True, return_counts=True)
    meanings = [label.meaning(value) for value in found.tolist()]
    indexes = np.array([IGNORE if meaning is None else meaning for meaning in meanings], np.uint8)
    unknown = {
        label.describe(value): int(count)
        for value, count, meaning in zip(found.tolist(), counts, meanings, strict=True)
        if meaning is None
    }
    if places is None:
        table = np.full(256, IGNORE, np.uint8)
        table[found] = indexes
        classified = table[values]
        classified[~valid] = IGNORE
    else:
        classified = np.full(values.shape, IGNORE, np.uint8)
        classified[valid] = indexes[places]
    return classified, unknown


def unknown_text(unknown: Mapping[str, int]) -> str:
    """What to say of label values that are no class, by their pixel counts."""
    listed = [f"{value} ({count} px)" for value, count in list(unknown.items())[:_LISTED_VALUES]]
    more = len(unknown) - len(listed)
    told = ", ".join(listed) + (f" and {more} more" if more else "")
    return f"has label values that are no class: {told}; add them to classes, labels.values or ignore"
