"""The bands of a mask: read one at a time, measured and traced side by side, and taken in order."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from glraster.raster.class_raster import ClassRaster, ValueRaster
from glraster.raster.grid import Window
from glraster.raster.source import gdal_session
from glraster.runner import Runner
from glraster.vector.ground import NoGround, Plane
from glraster.vector.job import VectorizeJob
from glraster.vector.patches import BandPatches, RowMetrics, band_patches, with_new_values
from glraster.vector.sieve import new_values
from glraster.vector.simplify import Simplification, simplify_band
from glraster.vector.trace import Band, trace

Pixels = npt.NDArray[Any]


class MaskRasters:
    """An open mask, and a raster of confidence on its grid, which threads share: one of them reads at a time."""

    def __init__(self, mask: ClassRaster, confidence: ValueRaster | None) -> None:
        self.mask, self.confidence = mask, confidence
        self._reading = threading.Lock()
        self._last_row: tuple[int, Pixels] | None = None

    def read(self, top: int, rows: int) -> Pixels:
        """The class numbers of a band, see `ClassRaster.band`."""
        with self._reading, gdal_session():
            number, row = self._last_row or (None, None)
            pixels = self.mask.band(top, rows, row if number == top - 1 else None)
            rows = min(rows, self.mask.region.bottom - top)
            self._last_row = top + rows - 1, pixels[rows].copy()
            return pixels

    def read_confidence(self, top: int, pixels: Pixels) -> npt.NDArray[np.float32] | None:
        """The confidence of a band whose class numbers are `pixels`, NaN if invalid; None without a raster of it."""
        if self.confidence is None:
            return None
        region = self.mask.region
        height = min(len(pixels) - 1, region.bottom - top)
        confidence = np.full(pixels.shape, np.nan, np.float32)
        with self._reading, gdal_session():
            values = self.confidence.read_measured(Window(top, region.left, height, region.width))
        confidence[1 : 1 + height, 1 : 1 + region.width] = values
        return confidence


@dataclass(frozen=True)
class BandTask:
    """A band of `rows` rows that begins at row `top`, and how it is traced.

    `diagonal` is whether patches that touch at a corner are one. `metrics`, for `measure_band`, are the sizes of the
    rows; `values`, for `trace_band`, the new values of the band's patches, if small ones are merged.
    """

    top: int
    rows: int
    diagonal: bool
    simplification: Simplification | None
    metrics: RowMetrics | None = None
    values: npt.NDArray[Any] | None = None


def band_tasks(job: VectorizeJob) -> Iterator[BandTask]:
    """The bands of a job, from top to bottom."""
    rows, region = job.mask.band_rows, job.mask.region
    if job.options.min_area_m2 is not None:  # a band has a label for every pixel
        rows = max(1, rows // 2)
    for top in range(region.top, region.bottom, rows):
        yield BandTask(top, rows, job.options.connectivity == 8, job.simplification)


def traced_bands(job: VectorizeJob, runner: Runner[MaskRasters]) -> Generator[Band, None, None]:
    """Trace every band of the mask, from top to bottom; merge small patches before if the options say so.

    Memory: two bands, and those that the runner has in hand; with `min_area_m2` also what `sieve.new_values` needs.
    """
    tasks = band_tasks(job)
    if job.options.min_area_m2 is not None:
        tasks = _tasks_with_values(job, list(tasks), runner)
    with closing(runner.map(trace_band, tasks)) as bands:
        yield from bands


def _tasks_with_values(job: VectorizeJob, tasks: list[BandTask], runner: Runner[MaskRasters]) -> Iterator[BandTask]:
    """The tasks with the values that the bands' patches have when small ones are merged."""
    sizes, first = row_metrics(job), job.mask.region.top

    def with_metrics(task: BandTask) -> BandTask:
        band = slice(task.top - first, task.top - first + task.rows)
        return replace(task, metrics=RowMetrics(task.top, sizes.area[band], sizes.width[band], sizes.height[band]))

    with closing(runner.map(measure_band, map(with_metrics, tasks))) as patches:
        values: list[Any] = new_values(patches, job.mask.blank, job.options.min_area_m2 or 0.0)
    for i, task in enumerate(tasks):
        new, values[i] = values[i].astype(job.mask.pixel), None
        yield replace(task, values=new)


def measure_band(rasters: MaskRasters, task: BandTask) -> BandPatches:
    """Number and measure the patches of a band.

    Raises:
        SceneError: if the mask cannot be read.

    Memory: 10 bytes per pixel of the band.
    """
    assert task.metrics is not None
    pixels = rasters.read(task.top, task.rows)
    return band_patches(pixels, rasters.mask.blank, task.metrics, task.top, task.diagonal)


def trace_band(rasters: MaskRasters, task: BandTask) -> Band:
    """Trace and simplify a band; see `measure_band`.

    Memory: the band, its borders, and 60 bytes for each of their vertices if they are simplified.
    """
    mask, pixels = rasters.mask, rasters.read(task.top, task.rows)
    confidence = rasters.read_confidence(task.top, pixels)
    if task.values is not None:
        pixels = with_new_values(pixels, task.values, task.diagonal)
    band = trace(pixels, task.top, mask.region.left - 1, task.diagonal, confidence)
    return band if task.simplification is None else simplify_band(band, mask.blank, task.simplification)


def row_metrics(job: VectorizeJob) -> RowMetrics:
    """Sizes of the pixels of every row, at the region's centre, in metres, or in map units if those are unknown."""
    region, transform = job.mask.region, job.mask.transform
    ground = job.placement.ground
    if isinstance(ground, NoGround):
        ground = Plane(1.0)
    column = region.left + region.width / 2
    corner = np.stack([np.full(region.height, column), np.arange(region.top, region.bottom, dtype=float)], axis=1)
    a, b, c, d, e, f = tuple(transform)[:6]

    def measured(*steps: tuple[int, int]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        columns, lines = (corner[:, None, axis] + [step[axis] for step in steps] for axis in (0, 1))
        xy = np.stack([a * columns + b * lines + c, d * columns + e * lines + f], axis=-1).reshape(-1, 2)
        return ground.measure(xy, np.arange(0, len(xy) + 1, len(steps)))

    area, _ = measured((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))
    _, along_row = measured((0, 0), (1, 0), (0, 0))
    _, along_column = measured((0, 0), (0, 1), (0, 0))
    return RowMetrics(region.top, np.abs(area), along_row / 2, along_column / 2)
