"""What a worker of a cluster does with a class mask: open it once, measure and trace the bands it is given."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import rasterio

from glraster._version import __version__
from glraster.cluster.worker import Fingerprint, OpenCalls, absolute, as_json, plain_errors
from glraster.raster.class_raster import Bounds, ClassRaster, ValueRaster
from glraster.raster.source import gdal_session
from glraster.vector.bands import Tracing, measured_values, trace_band
from glraster.vector.job import VectorizeJob
from glraster.vector.patches import BandParts, RowMetrics, band_parts, with_new_values
from glraster.vector.trace import Band


@dataclass(frozen=True)
class MaskCall:
    """What a worker needs to open a mask, and a raster to measure: names that mean the same on every machine."""

    mask: str
    bounds: Bounds | None
    confidence: str | None


@dataclass(frozen=True)
class BandTask:
    """A band that begins at row `top`: of which mask, how to trace it, the new values of its parts where it has some.

    `metrics` are the sizes of the band's rows, for `measure`.
    """

    call: MaskCall
    fingerprint: Fingerprint
    tracing: Tracing
    top: int
    metrics: RowMetrics | None = None
    values: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class _Rasters:
    mask: ClassRaster
    confidence: ValueRaster | None


def call_of(job: VectorizeJob) -> MaskCall:
    """How to open a job's rasters elsewhere."""
    confidence = job.options.confidence
    return MaskCall(
        absolute(job.mask.name), job.options.bounds, None if confidence is None else absolute(str(confidence))
    )


def fingerprint(mask: ClassRaster, confidence: ValueRaster | None) -> dict[str, object]:
    """All that decides the borders of a band, as JSON values."""
    return as_json(
        {
            "mask": {
                **_state(mask),
                "region": str(mask.region),
                "pixels": [str(mask.pixel), mask.blank, mask.columns],
            },
            "confidence": None if confidence is None else _state(confidence),
            "versions": [__version__, numba.__version__, rasterio.__gdal_version__],
        }
    )


def describe(call: MaskCall) -> dict[str, object]:
    """The fingerprint of a mask as this worker sees it.

    Raises:
        ClusterError: where it does not see the mask.
    """
    with plain_errors(), _reading, gdal_session():
        return dict(_masks.get(call, None).fingerprint)


def measure(task: BandTask) -> BandParts:
    """Number and measure the parts of a band.

    Raises:
        ClusterError: where the worker does not see the mask, or another one.
        SceneError: where the mask cannot be read.

    Memory: 10 bytes per pixel of the band.
    """
    assert task.metrics is not None
    with plain_errors():
        rasters, pixels, _ = _read(task, measured=False)
        return band_parts(pixels, rasters.mask.blank, task.metrics, task.top, task.tracing.diagonal)


def trace(task: BandTask) -> Band:
    """Trace a band; see `measure`.

    Memory: the band, its borders, and 60 bytes for each of their vertices where they are simplified.
    """
    with plain_errors():
        rasters, pixels, measured = _read(task, measured=True)
        if task.values is not None:
            pixels = with_new_values(pixels, task.values, task.tracing.diagonal)
        return trace_band(rasters.mask, task.tracing, task.top, pixels, measured)


def _read(task: BandTask, *, measured: bool) -> tuple[_Rasters, npt.NDArray[Any], npt.NDArray[np.float32] | None]:
    with _reading, gdal_session():
        rasters = _masks.get(task.call, task.fingerprint).work
        pixels = rasters.mask.band(task.top, task.tracing.rows)
        confidence = rasters.confidence if measured else None
        return rasters, pixels, measured_values(rasters.mask, confidence, task.top, pixels)


def _state(raster: ValueRaster) -> dict[str, object]:
    path = Path(raster.path)
    stat = path.stat() if path.is_file() else None
    return {
        "path": raster.path if stat is None else path.name,
        "file": None if stat is None else [stat.st_size, stat.st_mtime_ns],
        "shape": raster.shape,
        "transform": list(raster.transform)[:6],
        "dtype": raster.dtype,
    }


def _opened(call: MaskCall, stack: ExitStack) -> tuple[_Rasters, dict[str, object]]:
    mask = stack.enter_context(ClassRaster(call.mask, call.bounds))
    confidence = None
    if call.confidence is not None:
        confidence = stack.enter_context(ValueRaster(call.confidence))
    return _Rasters(mask, confidence), fingerprint(mask, confidence)


_reading = threading.Lock()
"""One thread reads at a time: datasets are not shared. Bands are traced side by side."""
_masks: OpenCalls[MaskCall, _Rasters] = OpenCalls(_opened)
