"""Read the rasters of a report at reduced size: the scene on the map's grid, confidence, truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from glraster.errors import SceneError
from glraster.labels.grid import grid_of
from glraster.raster.class_raster import ClassRaster
from glraster.raster.grid import Window
from glraster.raster.source import OpenRaster

UInt8Array = npt.NDArray[np.uint8]

_WHITE = 255
_STRETCH = (2, 98)


class SceneView(OpenRaster):
    """A scene on the grid of a map, as RGB bytes; use as a context manager.

    Its first three bands that are not alpha are shown (one band: grey); pixels that are not bytes are stretched
    between the 2nd and the 98th percentile of the whole scene. Memory: the picture asked for, and GDAL's cache.
    """

    def __init__(self, path: str, mask: ClassRaster) -> None:
        super().__init__(path)
        self._shown: DatasetReader | WarpedVRT = self.dataset
        self._mask = mask
        with self.closed_on_error():
            self._indexes = self._shown_bands()
            self._shown = self._on_grid(mask)
            self._range = self._value_range()

    def _shown_bands(self) -> list[int]:
        """The first three bands that are not alpha, or the only one."""
        bands = list(self.value_bands)
        if not bands:
            raise SceneError(f"{self.path}: has no band to show")
        if any("complex" in dtype for dtype in self.dataset.dtypes):
            raise SceneError(f"{self.path}: has complex pixels, which cannot be shown")
        return bands[:3] if len(bands) >= 3 else bands[:1]

    def _on_grid(self, mask: ClassRaster) -> DatasetReader | WarpedVRT:
        if grid_of(mask).mismatch(grid_of(self)) is None:
            return self.dataset
        if not (mask.crs and self.crs):
            raise SceneError(f"{self.path}: is not the scene of {mask.path}: their sizes differ and one has no CRS")
        form = {"crs": mask.crs, "transform": mask.transform, "height": mask.shape[0], "width": mask.shape[1]}
        return WarpedVRT(self.dataset, resampling=Resampling.bilinear, add_alpha=self.dataset.nodata is None, **form)

    def _value_range(self) -> tuple[float, float] | None:
        if self.dataset.dtypes[self._indexes[0] - 1] == "uint8":
            return None
        pixels, valid = self._pixels(Window(0, 0, self._shown.height, self._shown.width), 1024)
        values = pixels[:, valid]
        if not values.size:
            return 0.0, 1.0
        low, high = np.percentile(values.astype(np.float64), _STRETCH)
        return float(low), float(high if high > low else low + 1)

    def close(self) -> None:
        self._shown.close()
        super().close()

    def reopen(self) -> None:
        super().reopen()
        self._shown = self._on_grid(self._mask)

    def picture(self, window: Window, side: int) -> UInt8Array:
        """A window of the map's grid as (H, W, 3), shrunk to `side` pixels at most; invalid pixels are white."""
        pixels, valid = self._pixels(window, side)
        if self._range is not None:
            low, high = self._range
            with np.errstate(invalid="ignore", over="ignore"):
                pixels = np.clip((pixels.astype(np.float32) - low) * (255 / (high - low)), 0, 255)
        shown = np.where(valid, np.nan_to_num(pixels), _WHITE).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(shown, (3, *shown.shape[1:])).transpose(1, 2, 0))

    def _pixels(self, window: Window, side: int) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
        shape = shrunk(window, side)
        source = RasterioWindow(window.left, window.top, window.width, window.height)
        how = Resampling.average if shape != (window.height, window.width) else Resampling.nearest
        form = {"window": source, "out_shape": (len(self._indexes), *shape), "resampling": how}
        pixels = self.fetch(lambda: self._shown.read(self._indexes, **form))
        valid = self.fetch(lambda: self._shown.dataset_mask(window=source, out_shape=shape)) > 0
        if np.issubdtype(pixels.dtype, np.floating):
            valid = valid & np.isfinite(pixels).all(axis=0)
        return pixels, valid


@contextmanager
def opened_confidence(path: str, mask: ClassRaster) -> Iterator[OpenRaster]:
    """Open a raster of percentages on the grid of a map.

    Raises:
        SceneError: it holds no percentages, or lies on another grid.
    """
    with OpenRaster(path) as raster:
        if tuple(raster.dataset.dtypes) != ("uint8",) or grid_of(mask).mismatch(grid_of(raster)) is not None:
            raise SceneError(
                f"{raster.path}: is no confidence of {mask.path}; give what 'segment --confidence' wrote with it"
            )
        yield raster


def confidence_overview(raster: OpenRaster, side: int) -> UInt8Array:
    """Percentages, shrunk to `side` pixels at most; 255 for none."""
    shape = shrunk(raster.extent, side)
    return raster.read_bands(1, out_shape=shape, resampling=Resampling.average)


def confidence_counts(raster: OpenRaster, mask: ClassRaster) -> npt.NDArray[np.int64]:
    """Count the pixels of every class id and percentage, (256, 101). Memory: one block."""
    counts = np.zeros((256, 101), np.int64)
    for window, ids in mask.blocks():
        source = RasterioWindow(window.left, window.top, window.width, window.height)
        percent = raster.read_bands(1, window=source)
        valid = percent <= 100
        pairs = ids[valid].astype(np.int64) * 101 + percent[valid]
        counts += np.bincount(pairs, minlength=256 * 101).reshape(256, 101)
    return counts


def sampled(read: Callable[[Window], UInt8Array], extent: Window, side: int) -> UInt8Array:
    """Every n-th pixel of an image that is read window by window, `side` pixels at most: no class is favoured."""
    height, width = shrunk(extent, side)
    rows, columns = (_middles(*sides) for sides in ((height, extent.height), (width, extent.width)))
    sample = np.zeros((height, width), np.uint8)
    for window in extent.blocks(512, 2048):
        inside = [
            np.flatnonzero((places >= start) & (places < start + length))
            for places, start, length in ((rows, window.top, window.height), (columns, window.left, window.width))
        ]
        if inside[0].size and inside[1].size:
            block = read(window)
            sample[np.ix_(*inside)] = block[np.ix_(rows[inside[0]] - window.top, columns[inside[1]] - window.left)]
    return sample


def shrunk(window: Window, side: int) -> tuple[int, int]:
    """Height and width of a window after shrinking it to `side` pixels at most."""
    factor = max(1.0, max(window.height, window.width) / side)
    return max(1, round(window.height / factor)), max(1, round(window.width / factor))


def _middles(count: int, length: int) -> npt.NDArray[np.int64]:
    return np.minimum(((np.arange(count) + 0.5) * length / count).astype(np.int64), length - 1)
