"""The bands of a mask, read by one thread and traced by others, in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from glraster.raster.class_raster import ClassRaster, ValueRaster
from glraster.raster.grid import Window
from glraster.vector.ground import NoGround, Plane
from glraster.vector.job import VectorizeJob
from glraster.vector.patches import RowMetrics, band_parts, with_new_values
from glraster.vector.sieve import new_values
from glraster.vector.simplify import Simplification, simplify_band
from glraster.vector.trace import Band, trace

Pixels = npt.NDArray[Any]

_Measured = npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class Tracing:
    """How bands are traced: rows of a band, whether parts that touch at a corner are one, what is simplified."""

    rows: int
    diagonal: bool
    simplification: Simplification | None

    @staticmethod
    def of(job: VectorizeJob) -> Tracing:
        rows, options = job.mask.band_rows, job.options
        if options.min_area_m2 is not None:  # a band has a label for every pixel
            rows = max(1, rows // 2)
        return Tracing(rows, options.connectivity == 8, job.simplification)


def traced_bands(job: VectorizeJob) -> Generator[Band, None, None]:
    """Trace every band of the mask, from top to bottom.

    Memory: as many bands as there are threads, and two more.
    """
    waiting: queue.Queue[Future[Band] | BaseException | None] = queue.Queue(maxsize=job.threads)
    stopped, tracing = threading.Event(), Tracing.of(job)

    def put(item: Future[Band] | BaseException | None) -> None:
        placed = False
        while not (placed or stopped.is_set()):
            with suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                placed = True

    def read(pool: ThreadPoolExecutor) -> None:
        try:
            for item in _pixels(job):
                if stopped.is_set():
                    return
                put(pool.submit(trace_band, job.mask, tracing, *item))
            put(None)
        except BaseException as error:
            put(error)

    with ThreadPoolExecutor(job.threads) as pool:
        reader = threading.Thread(target=read, args=(pool,), name="mask reader", daemon=True)
        reader.start()
        try:
            while (item := waiting.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item.result()
        finally:
            stopped.set()
            reader.join()


def _pixels(job: VectorizeJob) -> Iterator[tuple[int, Pixels, _Measured]]:
    """First row, class values with the row above, and measured values of every band."""
    for top, pixels in _class_values(job):
        yield top, pixels, measured_values(job.mask, job.confidence, top, pixels)


def measured_values(mask: ClassRaster, confidence: ValueRaster | None, top: int, pixels: Pixels) -> _Measured:
    """What another raster measured on the pixels of a band of the mask, NaN where nothing; None without that raster."""
    if confidence is None:
        return None
    region = mask.region
    height = min(len(pixels) - 1, region.bottom - top)
    measured = np.full(pixels.shape, np.nan, np.float32)
    window = Window(top, region.left, height, region.width)
    measured[1 : 1 + height, 1 : 1 + region.width] = confidence.read_measured(window)
    return measured


def trace_band(mask: ClassRaster, tracing: Tracing, top: int, pixels: Pixels, measured: _Measured) -> Band:
    """Trace and simplify one band, whose first row is `top`."""
    band = trace(pixels, top, mask.region.left - 1, tracing.diagonal, measured)
    return band if tracing.simplification is None else simplify_band(band, mask.blank, tracing.simplification)


def _class_values(job: VectorizeJob) -> Iterator[tuple[int, Pixels]]:
    """The mask's bands, with small parts merged where that was asked for."""
    mask, least, tracing = job.mask, job.options.min_area_m2, Tracing.of(job)
    bands = mask.bands(tracing.rows)
    if least is None:
        yield from bands
        return
    metrics = row_metrics(job)
    parts = (band_parts(pixels, mask.blank, metrics, top, tracing.diagonal) for top, pixels in bands)
    values = new_values(parts, mask.blank, least)
    for (top, pixels), new in zip(mask.bands(tracing.rows), values, strict=True):
        yield top, with_new_values(pixels, new, tracing.diagonal)


def row_metrics(job: VectorizeJob) -> RowMetrics:
    """Sizes of the pixels of every row, at the region's centre, in metres, or in map units where those are unknown."""
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
