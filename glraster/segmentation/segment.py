"""Segment a scene: windows through the network, parts on disk, a land-cover mask at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from glraster.cluster.client import Cluster
from glraster.errors import GlrasterError, OutputError
from glraster.files import check_space, held, staging_folder
from glraster.model.checkpoint import model_path
from glraster.raster.source import gdal_session
from glraster.segmentation.assemble import Assembly, ScoreArray
from glraster.segmentation.behind import Arrivals, written_behind
from glraster.segmentation.distributed import WindowCrew
from glraster.segmentation.job import Job, SegmentOptions, prepared
from glraster.segmentation.journal import Journal
from glraster.segmentation.parts import Parts, parts_in, parts_store
from glraster.segmentation.plan import Estimate, estimate
from glraster.segmentation.stores import FolderStore
from glraster.segmentation.windows import ThisProcess, WindowCounts, finished_places
from glraster.segmentation.write_map import ClassArea, MapContent, Progress, ProgressCallback, write_map

__all__ = ["ClassArea", "Progress", "SegmentOptions", "SegmentResult", "plan_segment", "segment"]


@dataclass(frozen=True)
class SegmentResult:
    """What a segmentation made: paths, sizes in pixels, windows by fate, areas, and what it cost.

    `tiles` are those of the windows done, in every view; `tiles_skipped` of them were left to the guide (coarse to
    fine). With `merge="paper"` and for the global branch both are 0.
    `device_wait_share` is the share of `windows_seconds`, the time that the windows took, in which the device waited
    for reading or writing.
    """

    output: str
    confidence: str | None
    probabilities: str | None
    height: int
    width: int
    windows_done: int
    windows_skipped: int
    windows_reused: int
    tiles: int
    tiles_skipped: int
    classes: tuple[ClassArea, ...]
    nodata_pixels: int
    seconds: float
    mpx_per_s: float
    peak_memory_bytes: int
    device: str
    precision: str
    device_wait_share: float
    windows_seconds: float
    model: str

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Cost:
    seconds: float
    peak_memory_bytes: int
    device: str
    precision: str


def segment(
    scene: str | os.PathLike[str],
    output: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    options: SegmentOptions | None = None,
    progress: ProgressCallback | None = None,
    cluster: Cluster | None = None,
) -> SegmentResult:
    """Map the land cover of a scene with a model and write the mask as a Cloud-Optimized GeoTIFF.

    Args:
        scene: anything GDAL opens.
        output: the mask: uint8, class ids, nodata 255, on the scene's grid.
        model: a `.safetensors` model file; the one that comes with glraster where None.
        options: see `SegmentOptions`.
        progress: called after every window and block.
        cluster: workers that compute the windows, see `cluster.connected`; this process where None.

    Raises:
        GlrasterError: for all a user can put right. Finished parts stay beside the output, for `resume`.

    Memory depends on the context window, the tile and the network, not on the scene.
    """
    started = time.perf_counter()
    crew = ThisProcess() if cluster is None else WindowCrew(cluster)
    with gdal_session(), prepared(os.fspath(scene), Path(output), model_path(model), options, role=crew.role) as job:
        report = progress or (lambda _: None)
        store = parts_store(job.output, job.options.parts)
        if job.options.merge == "smooth" and not job.options.resume:
            parts_bytes = job.plan.parts_bytes(job.spec.architecture.classes)
            if isinstance(store, FolderStore):
                check_space(store.path if job.options.parts else job.output, parts_bytes, certain=job.scene.all_valid)
        fingerprint = crew.fingerprint(job)
        resume, overwrite = job.options.resume, job.options.overwrite
        with Journal(
            staging_folder(job.output), fingerprint, resume=resume, overwrite=overwrite, store=store
        ) as journal:
            windows, content = _map(
                job, journal, lambda parts, tell: crew.compute(job, parts, fingerprint, tell), report
            )
            journal.discard()
        cost = _Cost(
            time.perf_counter() - started,
            crew.peak_memory_bytes,
            crew.describe(fingerprint),
            str(fingerprint["precision"]),
        )
        return _result(job, windows, content, cost)


def plan_segment(
    scene: str | os.PathLike[str],
    output: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    options: SegmentOptions | None = None,
) -> Estimate:
    """Check everything `segment` would check and estimate its cost; compute and write nothing."""
    with gdal_session(), prepared(os.fspath(scene), Path(output), model_path(model), options) as job:
        views = 8 if job.options.tta else 1
        return estimate(job.plan, job.spec, job.branch, job.batch, job.device, views)


_Tell = Callable[[int, int], None]


def _map(
    job: Job, journal: Journal, compute: Callable[[Parts, _Tell], WindowCounts], report: ProgressCallback
) -> tuple[WindowCounts, MapContent]:
    """Compute and write the map; no other process touches its outputs meanwhile."""
    with held(path for path in (job.options.confidence, job.options.probabilities) if path is not None):
        if job.options.merge == "paper":
            windows, scores = _paper_scores(job)
            return windows, write_map(job, journal, scores, report)
        parts = parts_in(journal.store, job.spec.architecture.classes, journal.folder)
        with _kept_parts(parts, job):
            return _follow(job, journal, parts, partial(compute, parts), report)


def _paper_scores(job: Job) -> tuple[WindowCounts, ScoreArray]:
    predictor = job.predictor()
    started = time.perf_counter()
    image, _ = job.scene.read(job.scene.extent)
    began = time.perf_counter()
    scores = ScoreArray(predictor.paper_scores(image))
    ended = time.perf_counter()
    return WindowCounts(done=1, seconds=ended - started, busy_s=ended - began), scores


def _follow(
    job: Job,
    journal: Journal,
    parts: Parts,
    compute: Callable[[_Tell], WindowCounts],
    report: ProgressCallback,
) -> tuple[WindowCounts, MapContent]:
    """Compute the windows, and write the map behind them."""
    arrivals = Arrivals(job.plan.wanted, partial(finished_places, job, parts), parts.store.name)
    assembly = Assembly(job.scene.grid, job.plan.windows, parts, arrivals.wait)
    computed = False

    def tell_written(progress: Progress) -> None:
        arrivals.wait(())  # nothing is published behind an interrupt
        if computed:
            report(progress)

    def write() -> MapContent:
        with gdal_session():  # GDAL's settings are those of a thread
            return write_map(job, journal, assembly, tell_written)

    with written_behind(write, arrivals) as writing:

        def tell(done: int, total: int) -> None:
            arrivals.look()
            writing.check()
            report(Progress("windows", job.plan.region.size * done // total, job.plan.region.size))

        windows = compute(tell)
        computed = True
        arrivals.end()
        return windows, writing.result()


@contextmanager
def _kept_parts(parts: Parts, job: Job) -> Iterator[None]:
    """Tell whoever is interrupted how much is kept and how to go on."""
    try:
        yield
    except (GlrasterError, OSError, KeyboardInterrupt) as error:
        kept = 0
        with suppress(GlrasterError, OSError):  # a store that fails must not hide why the run ended
            kept = len(finished_places(job, parts, job.plan.wanted))
        if kept:
            error.add_note(
                f"{kept} of {len(job.plan.wanted)} windows are kept in {parts.store.name}; repeat the call with "
                "--resume to go on"
            )
        if isinstance(error, OSError):
            told = OutputError(
                f"{parts.store.name}: cannot be written: {os.strerror(error.errno) if error.errno else error}"
            )
            told.__notes__ = error.__notes__ if kept else []
            raise told from error
        raise


def _result(job: Job, windows: WindowCounts, content: MapContent, cost: _Cost) -> SegmentResult:
    options, region = job.options, job.plan.region
    return SegmentResult(
        output=str(job.output),
        confidence=None if options.confidence is None else str(options.confidence),
        probabilities=None if options.probabilities is None else str(options.probabilities),
        height=region.height,
        width=region.width,
        windows_done=windows.done,
        windows_skipped=windows.skipped,
        windows_reused=windows.reused,
        tiles=windows.tiles,
        tiles_skipped=windows.tiles_skipped,
        classes=content.classes,
        nodata_pixels=content.nodata_pixels,
        **asdict(cost),
        mpx_per_s=region.size / 1e6 / cost.seconds,
        device_wait_share=windows.wait_share,
        windows_seconds=windows.seconds,
        model=job.model,
    )
