"""Turn a class mask into polygons: bands traced by threads or a cluster, faces written as soon as they are closed."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from glraster.cluster.client import Cluster
from glraster.errors import OutputError
from glraster.files import cannot_write, staged
from glraster.process import peak_memory_bytes
from glraster.raster.source import gdal_session
from glraster.vector.bands import traced_bands
from glraster.vector.distributed import band_runner
from glraster.vector.job import VectorizeJob, VectorizeOptions, open_job
from glraster.vector.output import add_style, record_batch, write
from glraster.vector.polygons import Features, features
from glraster.vector.stitch import Coverage
from glraster.vector.trace import Band

__all__ = ["VectorizeOptions", "VectorizeResult", "vectorize"]


_LITTLE_SPACE = 32 * 2**20
"""Free bytes below which a driver's failure counts as a full disk: it has freed some when it reports."""


@dataclass(frozen=True)
class ClassPolygons:
    """Polygons of a class; `area_m2` is None if the mask's CRS has no metres."""

    id: int
    name: str
    polygons: int
    area_m2: float | None


@dataclass(frozen=True)
class VectorizeResult:
    """The outcome: path, layer, polygons by class, size of the mask in pixels, time and memory."""

    output: str
    layer: str
    polygons: int
    classes: tuple[ClassPolygons, ...]
    height: int
    width: int
    seconds: float
    peak_memory_bytes: int

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)


@dataclass
class _Tally:
    """Polygons and area written so far, by pixel value."""

    polygons: dict[int, int] = field(default_factory=dict)
    area_m2: dict[int, float] = field(default_factory=dict)

    def add(self, batch: Features) -> None:
        values, index = np.unique(batch.value, return_inverse=True)
        areas = np.bincount(index, batch.area_m2, len(values))
        for value, count, area in zip(values.tolist(), np.bincount(index).tolist(), areas.tolist(), strict=True):
            self.polygons[value] = self.polygons.get(value, 0) + count
            self.area_m2[value] = self.area_m2.get(value, 0.0) + area


ProgressCallback = Callable[[int, int], None]


def vectorize(
    mask: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: VectorizeOptions | None = None,
    progress: ProgressCallback | None = None,
    cluster: Cluster | None = None,
) -> VectorizeResult:
    """Write the areas of a class mask as polygons that share their borders.

    Args:
        mask: anything GDAL opens that has one band of whole numbers.
        output: .gpkg, .parquet, .fgb, .geojson or .geojsonl; `-` writes GeoJSON lines to standard output.
        options: see `VectorizeOptions`.
        progress: called with rows done and rows in all after every band.
        cluster: workers that trace the bands, see `cluster.connected`; default threads of this process.

    Raises:
        GlrasterError: for all a user can put right; no half-written file remains.

    Memory depends on a row of the mask's blocks and on the borders of the polygons that are open at one row; with
    `min_area_m2` also on the number of polygons, with `dissolve` on the largest class.
    """
    started = time.perf_counter()
    tally = _Tally()
    with gdal_session(), open_job(os.fspath(mask), os.fspath(output), options) as job:
        with (
            closing(traced_bands(job, band_runner(job, cluster))) as bands,
            closing(_batches(job, bands, tally, progress or (lambda _done, _total: None))) as batches,
        ):
            if job.to_stdout:
                _write_stream(job, batches)
            else:
                _write_file(job, batches, tally)
        return _result(job, tally, time.perf_counter() - started)


def _write_stream(job: VectorizeJob, batches: Iterator[pa.RecordBatch]) -> None:
    try:
        write(batches, "/vsistdout/", job.form)
    except OutputError as error:
        raise OutputError("standard output: cannot be written to its end; whoever read it has stopped") from error


def _write_file(job: VectorizeJob, batches: Iterator[pa.RecordBatch], tally: _Tally) -> None:
    output = Path(job.output)
    with staged(output) as unfinished:
        try:
            write(batches, str(unfinished), job.form)
            if job.form.ending == ".gpkg":
                add_style(unfinished, job.form.layer, job.classes_of(tally.polygons))
        except (OutputError, OSError, sqlite3.Error) as error:
            raise cannot_write(output, error, _LITTLE_SPACE) from error


def _batches(
    job: VectorizeJob, bands: Iterator[Band], tally: _Tally, progress: ProgressCallback
) -> Generator[pa.RecordBatch, None, None]:
    """Batches of features for the writer, as the bands come in."""
    region = job.mask.region
    with job.collector() as collect:
        for closed, means in _closed(job, bands, progress):
            batch, confidence = _of_classes(job.class_ids, closed, means)
            if not len(batch):
                continue
            tally.add(batch)
            if collect is None:
                yield record_batch(batch, job.form, confidence)
            else:
                collect.add(batch, confidence)
        if collect is not None:
            for whole, mean in collect.features():
                yield record_batch(whole, job.form, None if job.confidence is None else mean)
    progress(region.height, region.height)


def _closed(
    job: VectorizeJob, bands: Iterator[Band], progress: ProgressCallback
) -> Iterator[tuple[Features, npt.NDArray[np.float64] | None]]:
    """Features as they are closed, with their mean confidence."""
    region = job.mask.region
    coverage = Coverage(job.mask.columns, job.mask.blank, job.options.connectivity == 8)
    for band in bands:
        coverage.add(band)
        if job.simplification is not None:
            coverage.mend_seam(job.simplification)
        done = band.first_row + band.rows - region.top
        faces = coverage.closed_faces(last=done >= region.height)
        for batch in features(faces, coverage.borders(), job.placement):
            yield batch, coverage.means(batch.label) if job.confidence is not None else None
        coverage.forget()
        progress(min(done, region.height), region.height)


def _of_classes(
    class_ids: frozenset[int] | None, batch: Features, confidence: npt.NDArray[np.float64] | None
) -> tuple[Features, npt.NDArray[np.float64] | None]:
    """The features of these classes; all if None."""
    if class_ids is None:
        return batch, confidence
    rows = np.flatnonzero(np.isin(batch.value, list(class_ids)))
    return batch.take(rows), None if confidence is None else confidence[rows]


def _result(job: VectorizeJob, tally: _Tally, seconds: float) -> VectorizeResult:
    measured = not any(np.isnan(area) for area in tally.area_m2.values())
    classes = tuple(
        ClassPolygons(c.id, c.name, tally.polygons[c.id], tally.area_m2[c.id] if measured else None)
        for c in job.classes_of(tally.polygons)
    )
    return VectorizeResult(
        output=job.output,
        layer=job.form.layer,
        polygons=sum(tally.polygons.values()),
        classes=classes,
        height=job.mask.region.height,
        width=job.mask.region.width,
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes(),
    )
