"""Segment a scene: windows through the network, parts on disk, a land-cover mask at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glraster.cluster.client import Cluster
from glraster.errors import GlrasterError, OutputError
from glraster.files import check_space, held, staging_folder
from glraster.model.checkpoint import model_path
from glraster.raster.source import gdal_session
from glraster.segmentation.assemble import ScoreArray
from glraster.segmentation.distributed import ClusterWindows
from glraster.segmentation.job import SegmentJob, SegmentOptions, segment_job
from glraster.segmentation.journal import Journal
from glraster.segmentation.parts import Parts, parts_in, parts_store
from glraster.segmentation.plan import Estimate, estimate
from glraster.segmentation.stores import FolderStore, Store
from glraster.segmentation.windows import LocalWindows, WindowCounts
from glraster.segmentation.write_map import (
    ClassArea,
    MapBehindWindows,
    MapContent,
    Progress,
    ReportProgress,
    write_map,
)

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
    progress: ReportProgress | None = None,
    cluster: Cluster | None = None,
) -> SegmentResult:
    """Map the land cover of a scene with a model and write the mask as a Cloud-Optimized GeoTIFF.

    Args:
        scene: anything GDAL opens.
        output: the mask: uint8, class ids, nodata 255, on the scene's grid.
        model: a `.safetensors` model file; the one that comes with glraster if None.
        options: see `SegmentOptions`.
        progress: called after every window and block.
        cluster: workers that compute the windows, see `distributed.connect`; this process if None.

    Raises:
        GlrasterError: for all a user can put right. Finished parts stay beside the output, for `resume`.

    Memory depends on the context window, the tile and the network, not on the scene.
    """
    started = time.perf_counter()
    call = (os.fspath(scene), Path(output), model_path(model), options)
    with gdal_session(), segment_job(*call, on_cluster=cluster is not None) as job:
        windows = LocalWindows(job) if cluster is None else ClusterWindows(job, cluster)
        store = parts_store(job.output, job.options.parts)
        _check_space(job, store)
        resume, overwrite = job.options.resume, job.options.overwrite
        with (
            Journal(
                staging_folder(job.output), windows.fingerprint, resume=resume, overwrite=overwrite, store=store
            ) as journal,
            held(path for path in (job.options.confidence, job.options.probabilities) if path is not None),
        ):
            report = progress or (lambda _: None)
            if job.options.merge == "paper":
                counts, content = _compute_paper(job, journal, report)
            else:
                counts, content = _compute(job, windows, journal, report)
            journal.discard()
        cost = _Cost(
            time.perf_counter() - started,
            windows.peak_memory_bytes,
            windows.device,
            str(windows.fingerprint["precision"]),
        )
        return _result(job, counts, content, cost)


def plan_segment(
    scene: str | os.PathLike[str],
    output: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    options: SegmentOptions | None = None,
) -> Estimate:
    """Check everything `segment` would check and estimate its cost; compute and write nothing."""
    with gdal_session(), segment_job(os.fspath(scene), Path(output), model_path(model), options) as job:
        views = 8 if job.options.tta else 1
        return estimate(job.plan, job.spec, job.branch, job.batch, job.device, views)


def _check_space(job: SegmentJob, store: Store) -> None:
    if job.options.merge == "smooth" and not job.options.resume and isinstance(store, FolderStore):
        needed_bytes = job.plan.parts_bytes(job.spec.architecture.classes)
        check_space(store.path if job.options.parts else job.output, needed_bytes, certain=job.scene.all_valid)


def _compute(
    job: SegmentJob, windows: LocalWindows | ClusterWindows, journal: Journal, progress: ReportProgress
) -> tuple[WindowCounts, MapContent]:
    """Compute the windows, and write the map behind them."""
    parts = parts_in(journal.store, job.spec.architecture.classes, journal.folder)
    with _noting_parts(parts, job), MapBehindWindows(job, journal, parts, progress) as behind:
        counts = windows.compute(parts, behind.report)
        return counts, behind.content()


def _compute_paper(job: SegmentJob, journal: Journal, progress: ReportProgress) -> tuple[WindowCounts, MapContent]:
    """Compute a scene of one context as the authors' released evaluation does, without parts."""
    predictor = job.predictor()
    started = time.perf_counter()
    image, _valid = job.scene.read(job.scene.extent)
    began = time.perf_counter()
    scores = ScoreArray(predictor.paper_scores(image))
    ended = time.perf_counter()
    counts = WindowCounts(done=1, seconds=ended - started, busy_s=ended - began)
    return counts, write_map(job, journal, scores, progress)


@contextmanager
def _noting_parts(parts: Parts, job: SegmentJob) -> Iterator[None]:
    """Say with an error or an interrupt how many windows are kept and how to go on."""
    try:
        yield
    except (GlrasterError, OSError, KeyboardInterrupt) as error:
        finished, places = 0, job.plan.places
        with suppress(GlrasterError, OSError):  # a store that fails must not hide why the run ended
            finished = len(parts.finished(places, job.plan.window_cells))
        if finished:
            error.add_note(
                f"{finished} of {len(places)} windows are kept in {parts.store.name}; repeat the call with "
                "--resume to go on"
            )
        if isinstance(error, OSError):
            reason = os.strerror(error.errno) if error.errno else error
            output_error = OutputError(f"{parts.store.name}: cannot be written: {reason}")
            output_error.__notes__ = getattr(error, "__notes__", [])
            raise output_error from error
        raise


def _result(job: SegmentJob, counts: WindowCounts, content: MapContent, cost: _Cost) -> SegmentResult:
    options, region = job.options, job.plan.region
    return SegmentResult(
        output=str(job.output),
        confidence=None if options.confidence is None else str(options.confidence),
        probabilities=None if options.probabilities is None else str(options.probabilities),
        height=region.height,
        width=region.width,
        windows_done=counts.done,
        windows_skipped=counts.skipped,
        windows_reused=counts.reused,
        tiles=counts.tiles,
        tiles_skipped=counts.tiles_skipped,
        classes=content.classes,
        nodata_pixels=content.nodata_pixels,
        **asdict(cost),
        mpx_per_s=region.size / 1e6 / cost.seconds,
        device_wait_share=counts.wait_share,
        windows_seconds=counts.seconds,
        model=job.model,
    )
