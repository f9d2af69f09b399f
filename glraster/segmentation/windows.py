"""Compute the windows of a map in this process: read the next and write the last while the device is at work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace

from glraster.process import peak_memory_bytes
from glraster.raster.source import gdal_session
from glraster.runner import Threads
from glraster.segmentation.job import SegmentJob
from glraster.segmentation.parts import Parts
from glraster.segmentation.plan import WindowPlace
from glraster.segmentation.predict import Image, Predictor, WindowScores, fitting_scores

log = logging.getLogger(__name__)

ReportWindows = Callable[[int, int], None]
"""Called with the number of windows done so far and the number of all that were missing."""


@dataclass(frozen=True)
class WindowCounts:
    """Windows by fate, and how long the device worked: `busy_s` of `seconds` from the first read to the last write.

    `tiles` are those of the windows done, in every view; the global branch alone classified `tiles_skipped` of them.
    """

    done: int = 0
    skipped: int = 0
    reused: int = 0
    tiles: int = 0
    tiles_skipped: int = 0
    seconds: float = 0.0
    busy_s: float = 0.0

    @property
    def wait_share(self) -> float:
        """The share of the time that the device waited; 0 if it had nothing to do."""
        return max(0.0, 1 - self.busy_s / self.seconds) if self.done and self.seconds else 0.0

    def plus(self, other: WindowCounts) -> WindowCounts:
        """The sums of two counts."""
        mine, theirs = asdict(self), asdict(other)
        return WindowCounts(**{name: mine[name] + theirs[name] for name in mine})

    def with_window(self, scores: WindowScores | None) -> WindowCounts:
        """These counts and one more window: its scores, or None if it has no valid pixel."""
        if scores is None:
            return replace(self, skipped=self.skipped + 1)
        tiles, skipped = self.tiles + scores.tiles, self.tiles_skipped + scores.tiles_skipped
        return replace(self, done=self.done + 1, tiles=tiles, tiles_skipped=skipped)


class LocalWindows:
    """The windows of a job, computed in this process; `distributed.ClusterWindows` has workers compute them."""

    def __init__(self, job: SegmentJob) -> None:
        self._job = job
        self.fingerprint = job.fingerprint()
        self.device = str(self.fingerprint["device"])

    @property
    def peak_memory_bytes(self) -> int:
        """The most memory that this process has held so far."""
        return peak_memory_bytes()

    def compute(self, parts: Parts, report: ReportWindows) -> WindowCounts:
        """Compute every part that is missing.

        Args:
            parts: of the windows, finished and new ones.
            report: called after every window.

        Returns:
            How many windows were computed, skipped and reused.

        Memory: the network, three windows (one computed, one read, one part written).
        """
        job = self._job
        missing = missing_places(job, parts, job.plan.places)
        reused = len(job.plan.places) - len(missing)
        if not missing:
            return WindowCounts(reused=reused)
        return replace(compute_windows(job, job.predictor(), parts, missing, report), reused=reused)


@dataclass(frozen=True)
class _ReadWindow:
    """A window and its thumbnail as they were read; no pixels if none is valid."""

    place: WindowPlace
    image: Image | None = None
    small: Image | None = None


def missing_places(job: SegmentJob, parts: Parts, places: Sequence[WindowPlace]) -> list[WindowPlace]:
    """The windows at `places` that have no finished part, in their order."""
    finished = parts.finished(places, job.plan.window_cells)
    return [place for place in places if place not in finished]


def compute_windows(
    job: SegmentJob, predictor: Predictor, parts: Parts, places: Sequence[WindowPlace], report: ReportWindows
) -> WindowCounts:
    """Compute the parts of some windows, in order, with a model that is loaded.

    Args:
        job: what is to be computed.
        predictor: `job.predictor()`, or one of a job with the same model and settings.
        parts: that are written.
        places: of the windows.
        report: called after every window.

    Returns:
        How many windows were computed and skipped.
    """
    counts = WindowCounts()
    started, busy = time.perf_counter(), 0.0
    reader = Threads((job, predictor), name="glraster reader")
    written: Future[None] | None = None
    with closing(reader.map(_read, places)) as windows, ThreadPoolExecutor(1, "glraster writer") as writer:
        for window in windows:
            scores = None
            if window.image is not None:
                began = time.perf_counter()
                scores, predictor = _scores(job, predictor, window)
                busy += time.perf_counter() - began
            counts = counts.with_window(scores)
            if written is not None:
                written.result()
            written = writer.submit(_write, parts, window.place, scores)
            del window, scores  # not held while the next window is awaited
            report(counts.done + counts.skipped, len(places))
        if written is not None:
            written.result()
    counts = replace(counts, seconds=time.perf_counter() - started, busy_s=busy)
    log.info("%s waited %.1f %% of %.1f s", job.device, 100 * counts.wait_share, counts.seconds)
    return counts


def _read(source: tuple[SegmentJob, Predictor], place: WindowPlace) -> _ReadWindow:
    """Read a window and shrink it to its thumbnail: what can be done without the device."""
    job, predictor = source
    with gdal_session():  # GDAL's settings are those of a thread
        image, valid = job.scene.read(job.plan.windows.window(*place))
    return _ReadWindow(place, image, predictor.thumbnail(image)) if valid.any() else _ReadWindow(place)


def _scores(job: SegmentJob, predictor: Predictor, window: _ReadWindow) -> tuple[WindowScores, Predictor]:
    assert window.image is not None
    if job.options.batch is not None:  # the user's own: an error says that it is too large
        return predictor.window_scores(window.image, window.small), predictor
    return fitting_scores(predictor, window.image, window.small)


def _write(parts: Parts, place: WindowPlace, scores: WindowScores | None) -> None:
    if scores is None:
        parts.skip(*place)
    else:
        parts.write(*place, scores.cells)
