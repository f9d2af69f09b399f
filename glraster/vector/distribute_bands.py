"""Spread the bands of a mask over the workers of a Dask cluster; they come back in order, as they are traced here."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from glraster.cluster.client import Cluster
from glraster.vector.bands import Tracing, row_metrics
from glraster.vector.distributed import BandTask, call_of, describe, fingerprint, measure, trace
from glraster.vector.job import VectorizeJob
from glraster.vector.patches import RowMetrics
from glraster.vector.sieve import new_values
from glraster.vector.trace import Band

_ADVICE = "give its process more, or make a tiled copy of the mask with 'rio cogeo create'"


def far_bands(job: VectorizeJob, cluster: Cluster) -> Generator[Band, None, None]:
    """Have every band of a mask traced by workers; see `mask_bands.traced_bands`.

    Args:
        job: with a mask, and a confidence, that all workers see under their absolute names.
        cluster: the workers.

    Raises:
        ClusterError: where workers are of another version, do not see the mask or another one, or are all lost.
        SceneError: where the mask cannot be read.

    Memory: two traced bands; with `min_area_m2` also what `sieve.new_values` needs.
    """
    call, here = call_of(job), fingerprint(job.mask, job.confidence)
    cluster.agreed(call, (describe, call), lambda _: here)
    tasks = _tasks(job, BandTask(call, here, Tracing.of(job), job.mask.region.top))
    if job.options.min_area_m2 is not None:
        tasks = _with_values(job, list(tasks), cluster)
    with closing(cluster.in_order(trace, tasks, "a band of the mask", _ADVICE)) as bands:
        yield from bands


def _tasks(job: VectorizeJob, first: BandTask) -> Iterator[BandTask]:
    region = job.mask.region
    return (replace(first, top=top) for top in range(region.top, region.bottom, first.tracing.rows))


def _with_values(job: VectorizeJob, tasks: list[BandTask], cluster: Cluster) -> Iterator[BandTask]:
    """The tasks with the values that the bands' parts have when small ones are merged."""
    sizes, top, rows = row_metrics(job), job.mask.region.top, tasks[0].tracing.rows

    def of_rows(task: BandTask) -> RowMetrics:
        band = slice(task.top - top, task.top - top + rows)
        return RowMetrics(task.top, sizes.area[band], sizes.width[band], sizes.height[band])

    measuring = (replace(task, metrics=of_rows(task)) for task in tasks)
    with closing(cluster.in_order(measure, measuring, "a band of the mask", _ADVICE)) as parts:
        values: list[Any] = new_values(parts, job.mask.blank, job.options.min_area_m2 or 0.0)
    for i, task in enumerate(tasks):
        new, values[i] = values[i].astype(job.mask.pixel), None
        yield replace(task, values=new)
