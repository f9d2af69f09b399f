"""Segment a scene: windows through the network, parts on disk, a land-cover mask at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import rasterio

from glraster._version import __version__
from glraster.config import NODATA
from glraster.errors import GlrasterError, OutputError
from glraster.infer.journal import Journal
from glraster.infer.plan import Estimate, estimate
from glraster.model.default import model_path
from glraster.raster.assemble import Assembly, ScoreArray, best_class, softmax
from glraster.raster.georef import pixel_area_m2
from glraster.raster.grid import FloatArray, Window, WorkingGrid
from glraster.raster.opening import gdal_session
from glraster.raster.parts import PartFolder
from glraster.raster.writer import CogWriter, RasterForm, check_space, staging_folder
from glraster.workflows.distribute import Cluster
from glraster.workflows.prepare import Job, SegmentOptions, prepared
from glraster.workflows.windows import ThisProcess, WindowCounts

__all__ = ["ClassArea", "Progress", "SegmentOptions", "SegmentResult", "plan_segment", "segment"]

_BLOCK = (512, 2048)
"""Height and width of an output block, in scene pixels or, where those are fewer, working pixels."""


@dataclass(frozen=True)
class ClassArea:
    """How much of the map one class covers; `area_m2` is None where the scene's CRS tells no metres."""

    id: int
    name: str
    pixels: int
    area_m2: float | None


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
class Progress:
    """How far a run is: `done` of `total` scene pixels in its current `phase`."""

    phase: Literal["windows", "writing"]
    done: int
    total: int


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class _Cost:
    seconds: float
    peak_memory_bytes: int
    device: str
    precision: str


class _Scores(Protocol):
    def scores(self, block: Window) -> tuple[FloatArray, npt.NDArray[np.bool_]]: ...


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
        cluster: workers that compute the windows, see `distribute.connected`; this process where None.

    Raises:
        GlrasterError: for all a user can put right. Finished parts stay beside the output, for `resume`.

    Memory depends on the context window, the tile and the network, not on the scene.
    """
    started = time.perf_counter()
    crew = cluster or ThisProcess()
    with gdal_session(), prepared(os.fspath(scene), Path(output), model_path(model), options, role=crew.role) as job:
        report = progress or (lambda _: None)
        if job.options.merge == "smooth" and not job.options.resume:
            parts_bytes = job.plan.parts_bytes(job.spec.architecture.classes)
            check_space(job.output, parts_bytes, certain=job.scene.all_valid)
        staging = staging_folder(job.output)
        resume, overwrite = job.options.resume, job.options.overwrite
        fingerprint = crew.fingerprint(job)
        with Journal(staging, fingerprint, resume=resume, overwrite=overwrite) as journal:
            if job.options.merge == "paper":
                windows, scores = _paper_scores(job)
                areas, nodata_pixels = _write(job, journal, scores, report)
            else:
                parts = PartFolder(journal.folder, job.spec.architecture.classes)
                with _kept_parts(parts, job):
                    tell = partial(_report_windows, report, job.plan.region.size)
                    windows = crew.compute(job, parts, fingerprint, tell)
                    assembly = Assembly(job.scene.grid, job.plan.windows, parts)
                    areas, nodata_pixels = _write(job, journal, assembly, report)
            journal.discard()
        cost = _Cost(
            time.perf_counter() - started,
            crew.peak_memory_bytes,
            crew.describe(fingerprint),
            str(fingerprint["precision"]),
        )
        return _result(job, windows, areas, nodata_pixels, cost)


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


def _paper_scores(job: Job) -> tuple[WindowCounts, ScoreArray]:
    predictor = job.predictor()
    started = time.perf_counter()
    image, _ = job.scene.read(job.scene.extent)
    began = time.perf_counter()
    scores = ScoreArray(predictor.paper_scores(image))
    ended = time.perf_counter()
    return WindowCounts(done=1, seconds=ended - started, busy_s=ended - began), scores


def _report_windows(report: ProgressCallback, pixels: int, done: int, total: int) -> None:
    report(Progress("windows", pixels * done // total, pixels))


@contextmanager
def _kept_parts(parts: PartFolder, job: Job) -> Iterator[None]:
    """Tell whoever is interrupted how much is kept and how to go on."""
    try:
        yield
    except (GlrasterError, OSError, KeyboardInterrupt) as error:
        kept = sum(parts.shape(*place) is not None for place in job.plan.wanted)
        if kept:
            error.add_note(
                f"{kept} of {len(job.plan.wanted)} windows are kept in {parts.path}; repeat the call with --resume "
                "to go on"
            )
        if isinstance(error, OSError):
            told = OutputError(f"{parts.path}: cannot be written: {os.strerror(error.errno or 0)}")
            told.__notes__ = error.__notes__ if kept else []
            raise told from error
        raise


def _write(job: Job, journal: Journal, source: _Scores, report: ProgressCallback) -> tuple[tuple[ClassArea, ...], int]:
    """Assemble the map block by block, write every output, and move all to their places at the end."""
    region, scene = job.plan.region, job.scene
    ids = np.array([c.id for c in job.spec.classes], np.uint8)
    pixels, area, areas_known = np.zeros(256, np.int64), np.zeros(256), True
    done = 0
    with ExitStack() as stack:
        writers = [(stack.enter_context(CogWriter(*output)), values) for output, values in _outputs(job)]
        for block in region.blocks(*_block_sides(scene.grid)):
            valid = np.ones((block.height, block.width), bool) if scene.all_valid else scene.read_valid(block)
            scores, covered = source.scores(block)
            valid &= covered
            target = Window(block.top - region.top, block.left - region.left, block.height, block.width)
            labels = np.where(valid, ids[best_class(scores)], np.uint8(NODATA))
            for writer, values in writers:
                writer.write(target, labels if values is None else _percent(values(softmax(scores)), valid))
            counted = np.bincount(labels.ravel(), minlength=256)
            pixels += counted
            centre = (block.top + block.height / 2, block.left + block.width / 2)
            pixel_m2 = pixel_area_m2(scene.crs, scene.transform, *centre)
            areas_known &= pixel_m2 is not None
            area += counted * (pixel_m2 or 0.0)
            done += block.size
            report(Progress("writing", done, region.size))
        for writer, _ in writers:
            writer.finish()
        journal.publishing(writer.path for writer, _ in writers)
        for writer, _ in reversed(writers):
            writer.publish()
    found = tuple(
        ClassArea(c.id, c.name, int(pixels[c.id]), float(area[c.id]) if areas_known else None) for c in job.spec.classes
    )
    return found, int(pixels[NODATA])


def _block_sides(grid: WorkingGrid) -> tuple[int, int]:
    """A scene coarser than the working grid has many cells in a pixel: blocks shrink so that memory does not grow."""
    rows, columns = (
        max(1, int(side * min(1.0, axis.scale))) for side, axis in zip(_BLOCK, (grid.rows, grid.columns), strict=True)
    )
    return rows, columns


_Values = Callable[[FloatArray], FloatArray] | None


def _outputs(job: Job) -> Iterator[tuple[tuple[Path, RasterForm, tuple[tuple[str, str], ...]], _Values]]:
    """Path, form and creation options of every output, and how its values follow from the probabilities."""
    region, scene, spec, options = job.plan.region, job.scene, job.spec, job.options
    shared: dict[str, Any] = {
        "height": region.height,
        "width": region.width,
        "crs": scene.crs,
        "transform": scene.transform @ rasterio.Affine.translation(region.left, region.top),
        "tags": {
            "GLRASTER_MODEL": job.model,
            "GLRASTER_VERSION": __version__,
            "TIFFTAG_SOFTWARE": f"glraster {__version__}",
        },
    }
    mask = RasterForm(classes=spec.classes, band_names=("land cover",), overviews="MODE", **shared)
    yield (job.output, mask, options.creation_options), None
    if options.confidence is not None:
        form = RasterForm(band_names=("confidence in per cent",), overviews="AVERAGE", **shared)
        yield (options.confidence, form, options.creation_options), lambda p: p.max(axis=0)
    if options.probabilities is not None:
        names = tuple(f"{c.name} in per cent" for c in spec.classes)
        form = RasterForm(band_names=names, overviews="AVERAGE", **shared)
        yield (options.probabilities, form, options.creation_options), lambda p: p


def _percent(probability: FloatArray, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    return np.where(valid, np.rint(probability * 100).astype(np.uint8), np.uint8(NODATA))


def _result(
    job: Job, windows: WindowCounts, areas: tuple[ClassArea, ...], nodata_pixels: int, cost: _Cost
) -> SegmentResult:
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
        classes=areas,
        nodata_pixels=nodata_pixels,
        **asdict(cost),
        mpx_per_s=region.size / 1e6 / cost.seconds,
        device_wait_share=windows.wait_share,
        windows_seconds=windows.seconds,
        model=job.model,
    )
