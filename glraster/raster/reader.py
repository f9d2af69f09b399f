"""Read context windows of a scene: anything GDAL opens, resampled to the model's ground sample distance."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio.dtypes import in_dtype_range
from rasterio.enums import MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from glraster.errors import SceneError
from glraster.raster.georef import gsd_m
from glraster.raster.grid import Window, working_grid
from glraster.raster.remote import remote_state
from glraster.raster.source import CACHE_BYTES, OpenRaster, local_files

log = logging.getLogger(__name__)

GSD_TOLERANCE = 0.1
"""A scene whose GSD differs from the model's by no more than this share is read in its own pixels."""

FINEST = 100
"""Most working pixels along one scene pixel: finer ones show nothing new and fill memory and disk."""

_STRIPS_READ, _LARGEST_STRIPS = 2048, 4 * CACHE_BYTES
"""Rows that a window reads, and the bytes of their strips above which decoding them for every window gets a warning."""

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Stretch:
    """A linear map of scene values to the model's: `low` becomes 0, `high` becomes `top`, the rest is clipped."""

    low: float
    high: float
    top: float

    def apply(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        with np.errstate(over="ignore", invalid="ignore"):  # invalid pixels can hold anything
            scaled = (image.astype(np.float32) - self.low) * (self.top / (self.high - self.low))
        return np.clip(scaled, 0, self.top, out=scaled)


class Scene(OpenRaster):
    """An open scene: its own grid, its working grid, and windows of its pixels.

    Use as a context manager. `files` are the local files it consists of; `indexes` are the 1-based bands that are read;
    `grid` maps to working pixels; `stretch` is applied to the values unless it is None. Memory: one window, and GDAL's
    block cache.
    """

    def __init__(self, path: str, indexes: Sequence[int] | None, bands: int, nodata: float | None = None) -> None:
        super().__init__(path)
        self._nodata = nodata
        with self.closed_on_error(), self.opening():
            self.files: tuple[Path, ...] = local_files(path, self.dataset)
            self.indexes = self._choose_bands(indexes, bands)
            self._check_dtype()
            self._replace_nodata()
        self.grid = working_grid(*self.shape, (1.0, 1.0))
        self.stretch: Stretch | None = None
        self._warn()

    def reopen(self) -> None:
        super().reopen()
        self._replace_nodata()

    def _replace_nodata(self) -> None:
        nodata = self._nodata
        if nodata is None:
            return
        if not all(in_dtype_range(nodata, dtype) for dtype in self.dataset.dtypes):
            raise SceneError(f"{self.path}: nodata {nodata:g} is no value of a scene of {self.dataset.dtypes[0]}")
        self.dataset = _with_nodata(self.dataset, nodata)

    def _warn(self) -> None:
        if self.crs is None and self.transform.is_identity:
            log.warning("%s: has no georeference; its map will have pixel coordinates", self.path)
        rows, columns = self.dataset.block_shapes[self.indexes[0] - 1]
        strip = columns * np.dtype(self.dtype).itemsize * self.dataset.count
        if columns == self.shape[1] and strip * min(self.shape[0], max(rows, _STRIPS_READ)) > _LARGEST_STRIPS:
            log.warning(
                "%s: is stored in strips across its whole width, which are decoded again for every window; "
                "'rio cogeo create' makes a tiled copy that is read many times faster",
                self.path,
            )

    def _choose_bands(self, indexes: Sequence[int] | None, bands: int) -> tuple[int, ...]:
        """The 1-based bands to read: `indexes`, or else the first that are not alpha; as many as the model needs."""
        count = self.dataset.count
        if count == 0:
            subdatasets = len(self.dataset.subdatasets)
            advice = f"; name one of its {subdatasets} subdatasets" if subdatasets else ""
            raise SceneError(f"{self.path}: holds no raster band{advice}")
        if indexes is None:
            if len(self.value_bands) < bands:
                raise SceneError(
                    f"{self.path}: has {len(self.value_bands)} bands without alpha, the model needs {bands}"
                )
            return self.value_bands[:bands]
        absent = [i for i in indexes if not 1 <= i <= count]
        if absent:
            raise SceneError(f"{self.path}: has no band {absent[0]}; its bands are 1 to {count}")
        if len(indexes) != bands:
            raise SceneError(f"--bidx names {len(indexes)} bands, the model needs {bands}")
        return tuple(indexes)

    def _check_dtype(self) -> None:
        all_dtypes = self.dataset.dtypes
        dtypes = {all_dtypes[i - 1] for i in self.indexes}
        if any("complex" in dtype for dtype in dtypes):
            raise SceneError(f"{self.path}: has complex pixels; convert them to amplitude first (gdal_calc, rio calc)")
        if len(dtypes) > 1:
            raise SceneError(f"{self.path}: bands {self.indexes} differ in dtype: {', '.join(sorted(dtypes))}")
        self.dtype: str = dtypes.pop()

    @property
    def gsd_m(self) -> tuple[float, float] | None:
        """Metres per scene pixel of rows and columns at the centre; None without a CRS."""
        return gsd_m(self.crs, self.transform, *self.shape)

    @property
    def all_valid(self) -> bool:
        """Whether every pixel is known to be valid without reading it."""
        flags = self._mask_flags
        return not np.issubdtype(self.dtype, np.floating) and all(f == [MaskFlags.all_valid] for f in flags)

    def resample_to(self, target_gsd_m: float) -> None:
        """Lay the working grid at `target_gsd_m`, unless the scene's GSD is within `GSD_TOLERANCE` of it.

        Raises:
            SceneError: if the scene has no CRS that tells metres, or pixels too coarse for it.
        """
        own = self.gsd_m
        if own is None:
            raise SceneError(
                f"{self.path}: has no CRS that tells metres, so it cannot be read at {target_gsd_m:g} m; assign one "
                "(rio edit-info --crs) or use --gsd native"
            )
        scale = (target_gsd_m / own[0], target_gsd_m / own[1])
        if min(scale) < 1 / FINEST:
            raise SceneError(
                f"{self.path}: its pixels of {max(own):g} m are too coarse to be read at {target_gsd_m:g} m; give a "
                "--gsd nearer to theirs, or --gsd native"
            )
        if any(abs(s - 1) > GSD_TOLERANCE for s in scale):
            self.grid = working_grid(*self.shape, scale)

    def identity(self) -> dict[str, object]:
        """What changes if the scene is another one or was edited, as JSON values."""
        stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in self.files]
        remote = {"remote": self.fetch(lambda: remote_state(self.name, self.dataset))} if self._remote else {}
        return {
            **remote,
            "path": Path(self.path).name if self.files else self.path,
            "files": [list(stat) for stat in stats],
            "shape": list(self.shape),
            "dtype": self.dtype,
            "bands": list(self.indexes),
            "crs": self.crs.to_wkt() if self.crs else None,
            "transform": list(self.transform)[:6],
            "nodata": str(self.dataset.nodata),
        }

    def read(self, window: Window) -> tuple[npt.NDArray[Any], BoolArray]:
        """Read a window of the working grid.

        Args:
            window: working pixels. It may reach beyond the scene, where no pixel is valid:

                scene +---------------------+
                      |        +------------|-----+
                      |        |   inside   |     | window
                      +--------|------------+     |
                               +------------------+

        Returns:
            image (bands, height, width) in the scene's dtype (float32 if stretched), invalid pixels filled with the
            mean of the window's valid ones; valid (height, width).

        Raises:
            SceneError: if the file cannot be read there.
        """
        inside = window.intersection(Window(0, 0, self.grid.rows.working, self.grid.columns.working))
        dtype = np.float32 if self.stretch else np.dtype(self.dtype)
        image = np.zeros((len(self.indexes), window.height, window.width), dtype)
        valid = np.zeros((window.height, window.width), bool)
        if inside is None:
            return image, valid
        target = (
            slice(inside.top - window.top, inside.bottom - window.top),
            slice(inside.left - window.left, inside.right - window.left),
        )
        pixels, valid[target] = self._read_inside(inside)
        image[:, *target] = self.stretch.apply(pixels) if self.stretch else pixels
        _fill_invalid(image, valid)
        return image, valid

    def _read_inside(self, window: Window) -> tuple[npt.NDArray[Any], BoolArray]:
        rows, columns = self.grid.rows, self.grid.columns
        source = RasterioWindow(
            window.left * columns.scale,
            window.top * rows.scale,
            window.width * columns.scale,
            window.height * rows.scale,
        )
        shape = (window.height, window.width)
        shrinks = rows.scale > 1 or columns.scale > 1
        resampling = Resampling.nearest if self.grid.native else Resampling.average if shrinks else Resampling.bilinear
        pixels = self.read_bands(
            self.indexes, window=source, out_shape=(len(self.indexes), *shape), resampling=resampling
        )
        return pixels, self._mask(source, shape) & _finite(pixels)

    def read_valid(self, window: Window) -> BoolArray:
        """Which pixels of a window of the scene's own grid are valid, (height, width)."""
        source = RasterioWindow(window.left, window.top, window.width, window.height)
        shape = (window.height, window.width)
        valid = self._mask(source, shape)
        if np.issubdtype(self.dtype, np.floating):
            valid &= _finite(self.read_bands(self.indexes, window=source))
        return valid

    def sample(self, side: int = 128, count: int = 8) -> npt.NDArray[Any]:
        """Valid values of every band from count x count small windows spread over the scene, (bands, n)."""
        height, width = min(side, self.shape[0]), min(side, self.shape[1])
        samples = []
        for row in np.unique(np.linspace(0, self.shape[0] - height, count).astype(int)):
            for column in np.unique(np.linspace(0, self.shape[1] - width, count).astype(int)):
                source = RasterioWindow(int(column), int(row), width, height)
                pixels = self.read_bands(self.indexes, window=source)
                valid = self._mask(source, (height, width)) & _finite(pixels)
                samples.append(pixels[:, valid])
        return np.concatenate(samples, axis=1)

    def overview(self, side: int = 2048) -> npt.NDArray[Any]:
        """Valid values of every band of the whole scene, shrunk to `side` pixels at most, (bands, n)."""
        factor = max(1.0, max(self.shape) / side)
        shape = (max(1, round(self.shape[0] / factor)), max(1, round(self.shape[1] / factor)))
        source = RasterioWindow(0, 0, self.shape[1], self.shape[0])
        pixels = self.read_bands(
            self.indexes, window=source, out_shape=(len(self.indexes), *shape), resampling=Resampling.nearest
        )
        valid_values: npt.NDArray[Any] = pixels[:, self._mask(source, shape) & _finite(pixels)]
        return valid_values

    @cached_property
    def _mask_flags(self) -> list[list[MaskFlags]]:
        flags = self.fetch(lambda: self.dataset.mask_flag_enums)  # of all bands, which can be thousands
        return [list(flags[i - 1]) for i in self.indexes]

    def _mask(self, source: RasterioWindow, shape: tuple[int, int]) -> BoolArray:
        """GDAL's dataset mask: the one for all bands, or valid if any of the bands is."""
        flags = self._mask_flags
        if all(f == [MaskFlags.all_valid] for f in flags):
            return np.ones(shape, bool)
        shared = MaskFlags.per_dataset in flags[0]
        indexes = self.indexes[:1] if shared else self.indexes
        # a pixel that covers valid and invalid ones is valid: GDAL averages over the valid ones
        shrinks = source.height > shape[0] or source.width > shape[1]
        resampling = Resampling.average if shrinks else Resampling.nearest
        masks = self.read_masks(indexes, window=source, out_shape=(len(indexes), *shape), resampling=resampling)
        return np.asarray((masks > 0).any(axis=0))


def _with_nodata(dataset: DatasetReader, nodata: float) -> DatasetReader:
    """The same dataset with another nodata value in place of its own, of its alpha band and of its mask."""
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder) / "overlay.vrt"
        with dataset:
            rasterio.shutil.copy(dataset, overlay, driver="VRT")
        with rasterio.open(overlay, "r+") as writable:
            writable.nodata = nodata
        description = re.sub(r"<MaskBand>.*?</MaskBand>", "", overlay.read_text(), flags=re.DOTALL)
    return rasterio.open(description)


def _finite(pixels: npt.NDArray[Any]) -> BoolArray:
    if not np.issubdtype(pixels.dtype, np.floating):
        return np.ones(pixels.shape[1:], bool)
    return np.asarray(np.isfinite(pixels).all(axis=0))


def _fill_invalid(image: npt.NDArray[Any], valid: BoolArray) -> None:
    if valid.all() or not valid.any():
        image[:, ~valid] = 0
        return
    for band in image:
        band[~valid] = np.asarray(band[valid].mean(dtype=np.float64)).astype(image.dtype)
