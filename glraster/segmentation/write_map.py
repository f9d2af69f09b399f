"""Write the map from scores: the best class of every pixel, block by block, while windows are still computed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import rasterio

from glraster._version import __version__
from glraster.config import NODATA
from glraster.errors import OutputError
from glraster.raster.georef import pixel_area_m2
from glraster.raster.grid import FloatArray, Window, WorkingGrid
from glraster.raster.source import gdal_session
from glraster.raster.writer import CogWriter, RasterForm
from glraster.segmentation.assemble import Assembly, best_class, softmax
from glraster.segmentation.job import SegmentJob
from glraster.segmentation.journal import Journal
from glraster.segmentation.parts import Parts
from glraster.segmentation.plan import WindowPlace

BLOCK = (512, 2048)
"""Height and width of an output block, in scene pixels, or in working pixels if those are fewer."""


@dataclass(frozen=True)
class ClassArea:
    """How much of the map one class covers; `area_m2` is None if the scene's CRS has no metres."""

    id: int
    name: str
    pixels: int
    area_m2: float | None


@dataclass(frozen=True)
class Progress:
    """How far a run is: `done` of `total` scene pixels in its current `phase`."""

    phase: Literal["windows", "writing"]
    done: int
    total: int


ReportProgress = Callable[[Progress], None]


class ScoreSource(Protocol):
    """Where scores come from: an `Assembly`, or a `ScoreArray`."""

    def scores(self, block: Window) -> tuple[FloatArray, npt.NDArray[np.bool_]]: ...


@dataclass(frozen=True)
class MapContent:
    """What a map shows: its classes, and pixels without data."""

    classes: tuple[ClassArea, ...]
    nodata_pixels: int


def write_map(job: SegmentJob, journal: Journal, source: ScoreSource, report: ReportProgress) -> MapContent:
    """Assemble the map block by block, write every output, and move all to their places at the end.

    `report` is called after every block, and before anything is moved; what it raises ends the writing.

    Memory: a block of scores.
    """
    region, scene, areas, done = job.plan.region, job.scene, _Areas(job), 0
    with ExitStack() as stack:
        writers = [(stack.enter_context(CogWriter(*output)), values) for output, values in _outputs(job)]
        for block in region.blocks(*_block_sides(scene.grid)):
            valid = np.ones((block.height, block.width), bool) if scene.all_valid else scene.read_valid(block)
            scores, covered = source.scores(block)
            valid &= covered
            target = Window(block.top - region.top, block.left - region.left, block.height, block.width)
            labels = np.where(valid, areas.ids[best_class(scores)], np.uint8(NODATA))
            for writer, values in writers:
                writer.write(target, labels if values is None else _percent(values(softmax(scores)), valid))
            areas.add(block, labels)
            done += block.size
            report(Progress("writing", done, region.size))
        for writer, _ in writers:
            writer.finish()
        report(Progress("writing", done, region.size))
        journal.publishing(writer.path for writer, _ in writers)
        for writer, _ in reversed(writers):
            writer.publish()
    return areas.content()


class _Areas:
    """Pixels and areas of the classes of the blocks written so far."""

    def __init__(self, job: SegmentJob) -> None:
        self._scene, self._classes = job.scene, job.spec.classes
        self.ids = np.array([c.id for c in self._classes], np.uint8)
        self._pixels, self._area_m2, self._known = np.zeros(256, np.int64), np.zeros(256), True

    def add(self, block: Window, labels: npt.NDArray[np.uint8]) -> None:
        counts = np.bincount(labels.ravel(), minlength=256)
        centre = (block.top + block.height / 2, block.left + block.width / 2)
        pixel_m2 = pixel_area_m2(self._scene.crs, self._scene.transform, *centre)
        self._known &= pixel_m2 is not None
        self._pixels += counts
        self._area_m2 += counts * (pixel_m2 or 0.0)

    def content(self) -> MapContent:
        pixels, areas = self._pixels, self._area_m2
        classes = (
            ClassArea(c.id, c.name, int(pixels[c.id]), float(areas[c.id]) if self._known else None)
            for c in self._classes
        )
        return MapContent(tuple(classes), int(pixels[NODATA]))


def _block_sides(grid: WorkingGrid) -> tuple[int, int]:
    """A scene coarser than the working grid has many cells in a pixel: blocks shrink so that memory does not grow."""
    rows, columns = (
        max(1, int(side * min(1.0, axis.scale))) for side, axis in zip(BLOCK, (grid.rows, grid.columns), strict=True)
    )
    return rows, columns


_Values = Callable[[FloatArray], FloatArray] | None


def _outputs(job: SegmentJob) -> Iterator[tuple[tuple[Path, RasterForm, tuple[tuple[str, str], ...]], _Values]]:
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


class ProducerFailedError(Exception):
    """The computation of the windows failed; no more parts will arrive."""


class Arrivals:
    """Which of the parts of some windows are there: those that `finished` names, which is called after every `look`.

    `store` is the name of their place, for an error.
    """

    def __init__(
        self,
        places: Iterable[WindowPlace],
        finished: Callable[[Iterable[WindowPlace]], Iterable[WindowPlace]],
        store: str,
    ) -> None:
        self._missing, self._finished, self._store = set(places), finished, store
        self._changed = threading.Condition()
        self._looks, self._ended, self._failed = 0, False, False

    def look(self) -> None:
        """Say that parts may have arrived."""
        with self._changed:
            self._looks += 1
            self._changed.notify_all()

    def end(self) -> None:
        """Say that all parts have arrived."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self) -> None:
        """Say that no more parts will arrive."""
        with self._changed:
            self._failed = True
            self._changed.notify_all()

    def wait(self, places: Iterable[WindowPlace]) -> None:
        """Block until the parts of those of `places` that are computed at all are there.

        Raises:
            ProducerFailedError: if they will not arrive.
            OutputError: if all have arrived, but these are not there.
        """
        places = set(places)
        while True:
            with self._changed:
                if self._failed:
                    raise ProducerFailedError
                looks, ended = self._looks, self._ended
            absent = places & self._missing
            self._missing.difference_update(self._finished(absent) if absent else ())
            if not places & self._missing:
                return
            if ended:
                raise OutputError(f"{self._store}: finished parts are gone or damaged; let no other process work there")
            with self._changed:
                while self._looks == looks and not (self._ended or self._failed):
                    self._changed.wait()


class MapBehindWindows:
    """A map that a thread of its own writes while its windows are computed: a block as soon as its parts are there.

    Use as a context manager around the computation. An error in there, or an interrupt, ends the writing at its next
    block, and nothing is published; an error of the writing is raised by `report` or `content`.

    Args:
        job: what is mapped.
        journal: notes the outputs before they get their names.
        parts: of the windows.
        progress: called for windows and, once all are computed, for blocks.
    """

    def __init__(self, job: SegmentJob, journal: Journal, parts: Parts, progress: ReportProgress) -> None:
        self._job, self._journal, self._parts, self._progress = job, journal, parts, progress
        self._arrivals = Arrivals(
            job.plan.places, lambda places: parts.finished(places, job.plan.window_cells), parts.store.name
        )
        self._computed = False
        self._pool = ThreadPoolExecutor(1, "glraster map")
        self._writing: Future[MapContent]

    def __enter__(self) -> MapBehindWindows:
        self._writing = self._pool.submit(self._write)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._arrivals.fail()
        self._pool.shutdown()

    def report(self, done: int, total: int) -> None:
        """Say how many of the windows that were missing are done."""
        self._arrivals.look()
        if self._writing.done():
            self._writing.result()
        pixels = self._job.plan.region.size
        self._progress(Progress("windows", pixels * done // total, pixels))

    def content(self) -> MapContent:
        """Say that all windows are computed, and wait for the end of the writing."""
        self._computed = True
        self._arrivals.end()
        return self._writing.result()

    def _write(self) -> MapContent:
        assembly = Assembly(self._job.scene.grid, self._job.plan.windows, self._parts, self._arrivals.wait)
        with gdal_session():  # GDAL's settings are those of a thread
            return write_map(self._job, self._journal, assembly, self._written)

    def _written(self, progress: Progress) -> None:
        self._arrivals.wait(())  # nothing is published behind an interrupt
        if self._computed:
            self._progress(progress)
