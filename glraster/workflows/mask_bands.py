"""The bands of a mask, read by one thread and traced by others, in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from glraster.raster.grid import Window
from glraster.vector.ground import NoGround, Plane
from glraster.vector.sieve import RowMetrics, new_values, with_new_values
from glraster.vector.simplify import simplify_band
from glraster.vector.trace import Band, trace
from glraster.workflows.mask_job import VectorizeJob

_Pixels = tuple[int, npt.NDArray[Any], npt.NDArray[np.float32] | None]


def traced_bands(job: VectorizeJob) -> Generator[Band, None, None]:
    """Trace every band of the mask, from top to bottom.

    Memory: as many bands as there are workers, and two more.
    """
    waiting: queue.Queue[Future[Band] | BaseException | None] = queue.Queue(maxsize=job.workers)
    stopped = threading.Event()

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
                put(pool.submit(_trace, job, item))
            put(None)
        except BaseException as error:
            put(error)

    with ThreadPoolExecutor(job.workers) as pool:
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


def _pixels(job: VectorizeJob) -> Iterator[_Pixels]:
    """First row, class values with the row above, and measured values of every band."""
    region = job.mask.region
    for top, pixels in _class_values(job):
        measured = None
        if job.confidence is not None:
            height = min(len(pixels) - 1, region.bottom - top)
            measured = np.full(pixels.shape, np.nan, np.float32)
            window = Window(top, region.left, height, region.width)
            measured[1 : 1 + height, 1 : 1 + region.width] = job.confidence.read_measured(window)
        yield top, pixels, measured


def _trace(job: VectorizeJob, item: _Pixels) -> Band:
    top, pixels, measured = item
    band = trace(pixels, top, job.mask.region.left - 1, job.options.connectivity == 8, measured)
    return band if job.simplification is None else simplify_band(band, job.mask.blank, job.simplification)


def _class_values(job: VectorizeJob) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """The mask's bands, with small parts merged where that was asked for."""
    mask, least = job.mask, job.options.min_area_m2
    if least is None:
        return mask.bands(mask.band_rows)
    diagonal = job.options.connectivity == 8
    rows = max(1, mask.band_rows // 2)
    values = new_values(mask.bands(rows), mask.blank, row_metrics(job), least, diagonal)
    return with_new_values(mask.bands(rows), values, diagonal)


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
