"""Bands of a mask on the workers of a cluster: how these open the mask, and the fingerprint that shows another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numba
import rasterio

from glraster._version import __version__
from glraster.cluster.client import Cluster, Workers
from glraster.cluster.worker import Fingerprint, Opening, absolute, as_json
from glraster.raster.class_raster import Bounds, ClassRaster, ValueRaster
from glraster.raster.source import gdal_session
from glraster.runner import Runner, Threads
from glraster.vector.bands import MaskRasters
from glraster.vector.job import VectorizeJob

_ADVICE = "give its process more, or make a tiled copy of the mask with 'rio cogeo create'"


@dataclass(frozen=True)
class MaskCall:
    """What a worker needs to open a mask, and a raster of confidence: names that mean the same on every machine."""

    mask: str
    bounds: Bounds | None
    confidence: str | None


def band_runner(job: VectorizeJob, cluster: Cluster | None) -> Runner[MaskRasters]:
    """Who measures and traces the bands of a job: threads of this process, or the workers of a cluster.

    One thread more than the job has reads while the others trace.

    Raises:
        ClusterError: if workers are of another version, or do not see the mask or see another one.
    """
    if cluster is None:
        return Threads(MaskRasters(job.mask, job.confidence), job.threads + 1, "glraster bands")
    opening = Opening(open_mask, mask_call(job))
    fingerprint = cluster.agreed(opening, mask_fingerprint(job.mask, job.confidence))
    return Workers(cluster, opening, fingerprint, "a band of the mask", _ADVICE)


def mask_call(job: VectorizeJob) -> MaskCall:
    """How to open a job's rasters elsewhere."""
    confidence = job.options.confidence
    return MaskCall(
        absolute(job.mask.name), job.options.bounds, None if confidence is None else absolute(str(confidence))
    )


def open_mask(call: MaskCall) -> tuple[MaskRasters, Fingerprint]:
    """Open the rasters of a call, see `cluster.worker.Opening`.

    Raises:
        SceneError: if they cannot be opened.
    """
    with gdal_session():
        mask = ClassRaster(call.mask, call.bounds)
        confidence = None if call.confidence is None else ValueRaster(call.confidence)
        return MaskRasters(mask, confidence), mask_fingerprint(mask, confidence)


def mask_fingerprint(mask: ClassRaster, confidence: ValueRaster | None) -> Fingerprint:
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
