"""Compute the parts of a map: windows are read ahead and parts written behind while the device computes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy.typing as npt

from glraster.process import peak_memory_bytes
from glraster.raster.grid import STRIDE, FloatArray
from glraster.raster.source import gdal_session
from glraster.segmentation.backoff import with_back_off
from glraster.segmentation.job import Job, Role
from glraster.segmentation.parts import Parts
from glraster.segmentation.predict import Predictor, WindowScores
from glraster.segmentation.stream import read_ahead, write_behind

log = logging.getLogger(__name__)

Place = tuple[int, int]
Image = npt.NDArray[Any]


@dataclass(frozen=True)
class WindowCounts:
    """Windows by fate, and how long the device worked: `busy_s` of `seconds` from the first read to the last write.

    `tiles` are those of the windows done, in every view; of them `tiles_skipped` were left to the guide.
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
        """The share of the time that the device waited; 0 where it had nothing to do."""
        return max(0.0, 1 - self.busy_s / self.seconds) if self.done else 0.0

    def plus(self, other: WindowCounts) -> WindowCounts:
        """The sums of two counts."""
        mine, theirs = asdict(self), asdict(other)
        return WindowCounts(**{name: mine[name] + theirs[name] for name in mine})

    def with_window(self, scores: WindowScores) -> WindowCounts:
        """These counts and one more window that was computed."""
        tiles, skipped = self.tiles + scores.tiles, self.tiles_skipped + scores.tiles_skipped
        return replace(self, done=self.done + 1, tiles=tiles, tiles_skipped=skipped)


class ThisProcess:
    """Computes windows here, one after another; `distribute.WindowCrew` does it elsewhere."""

    role: Role = "alone"

    @property
    def peak_memory_bytes(self) -> int:
        """The most memory that this process has held so far."""
        return peak_memory_bytes()

    def describe(self, fingerprint: Mapping[str, object]) -> str:
        """What computes, for a report."""
        return str(fingerprint["device"])

    def fingerprint(self, job: Job) -> Mapping[str, object]:
        """All that decides the bytes of the map."""
        return job.fingerprint()

    def compute(
        self,
        job: Job,
        parts: Parts,
        fingerprint: Mapping[str, object],  # noqa: ARG002
        report: Callable[[int, int], None],
    ) -> WindowCounts:
        """See `compute_parts`."""
        return compute_parts(job, parts, report)


@dataclass(frozen=True)
class _Seen:
    """A window as it was read; without pixels where none is valid."""

    place: Place
    image: Image | None
    small: Image | None


def finished_places(job: Job, parts: Parts, places: Iterable[Place]) -> dict[Place, bool]:
    """The windows at `places` of which there is a finished part, and whether it was skipped."""
    height, width = job.plan.window_px
    return parts.finished(places, (height // STRIDE, width // STRIDE))


def missing_places(job: Job, parts: Parts, places: Sequence[Place]) -> list[Place]:
    """The windows at `places` of which there is no finished part, in their order."""
    finished = finished_places(job, parts, places)
    return [place for place in places if place not in finished]


def compute_parts(job: Job, parts: Parts, report: Callable[[int, int], None]) -> WindowCounts:
    """Compute every part that is missing.

    Args:
        job: what is to be computed.
        parts: where parts are, and go.
        report: called after every window with the number of windows done so far and the number of all missing ones.

    Returns:
        How many windows were computed, skipped and found done.

    Memory: the network, three windows (one computed, one read, one part written).
    """
    missing = missing_places(job, parts, job.plan.wanted)
    counts = WindowCounts(reused=len(job.plan.wanted) - len(missing))
    if not missing:
        return counts
    return replace(compute_windows(job, job.predictor(), parts, missing, report), reused=counts.reused)


def compute_windows(
    job: Job, predictor: Predictor, parts: Parts, missing: list[Place], report: Callable[[int, int], None]
) -> WindowCounts:
    """Compute the parts of some windows, in order, with a model that is loaded.

    Args:
        job: what is to be computed.
        predictor: `job.predictor()`, or one of a job with the same model and settings.
        parts: where parts go.
        missing: (row, column) of the windows.
        report: see `compute_parts`.

    Returns:
        How many windows were computed and skipped.
    """
    counts = WindowCounts()
    started, busy = time.perf_counter(), 0.0

    def write(item: tuple[Place, FloatArray | None]) -> None:
        place, scores = item
        if scores is None:
            parts.skip(*place)
        else:
            parts.write(*place, scores)

    with read_ahead(_windows(job, predictor, missing)) as windows, write_behind(write) as put:
        for seen in windows:
            scores = None
            if seen.image is None:
                counts = replace(counts, skipped=counts.skipped + 1)
            else:
                began = time.perf_counter()
                scores, predictor = _scores(job, predictor, seen.image, seen.small)
                busy += time.perf_counter() - began
                counts = counts.with_window(scores)
            put((seen.place, None if scores is None else scores.cells))
            del seen, scores  # not held while the next window is waited for
            report(counts.done + counts.skipped, len(missing))
    counts = replace(counts, seconds=time.perf_counter() - started, busy_s=busy)
    log.info("%s waited %.1f %% of %.1f s", job.device, 100 * counts.wait_share, counts.seconds)
    return counts


def _windows(job: Job, predictor: Predictor, places: list[Place]) -> Iterator[_Seen]:
    """Read windows and shrink them to their thumbnails: what can be done without the device."""
    with gdal_session():  # GDAL's settings are those of a thread
        for place in places:
            image, valid = job.scene.read(job.plan.windows.window(*place))
            if valid.any():
                yield _Seen(place, image, predictor.thumbnail(image))
            else:
                yield _Seen(place, None, None)
            del image, valid


def _scores(job: Job, predictor: Predictor, image: Image, small: Image | None) -> tuple[WindowScores, Predictor]:
    if job.options.batch is not None:  # what was asked for, or an error that says so
        return predictor.window_scores(image, small), predictor
    return with_back_off(predictor, lambda current: current.window_scores(image, small))
