"""Compare a map with its truth tile by tile, and turn the counts into scores."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from glraster.errors import UsageError
from glraster.evaluation.truth import Legend
from glraster.labels.reader import LabelReader
from glraster.metrics.bootstrap import Interval, scene_intervals
from glraster.metrics.boundary import BoundaryCounts, Reach, boundary_counts, class_boundary_f1, reach
from glraster.metrics.counts import (
    Confusion,
    class_f1,
    class_iou,
    class_precision,
    class_recall,
    confusion,
    frequency_weighted_iou,
    mean_iou,
    overall_accuracy,
)
from glraster.metrics.records import ClassScores, Evaluation, SceneScores, TileScore, known
from glraster.raster.class_raster import ClassRaster
from glraster.raster.georef import gsd_m
from glraster.raster.grid import Window

TILE_PX = 512
_WIDEST_REACH_PX = 256
_LEAST_KNOWN = 0.25


@dataclass(frozen=True)
class Tolerance:
    """How far an outline may lie from the true one, in metres or in pixels."""

    value: float
    unit: Literal["m", "px"] = "m"

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit}"

    def reach(self, mask: ClassRaster) -> Reach | None:
        """The pixels of a map that are near enough; None if metres are given and the map's CRS tells none."""
        pixel = (1.0, 1.0) if self.unit == "px" else gsd_m(mask.crs, mask.transform, *mask.shape)
        if pixel is None:
            return None
        if self.value / min(pixel) > _WIDEST_REACH_PX:
            raise UsageError(f"--tolerance {self} is over {_WIDEST_REACH_PX} pixels of {mask.path}; give less")
        return reach(self.value, pixel)


@dataclass(frozen=True, eq=False)
class SceneCounts:
    """What was counted in one scene; `boundary` is None if no tolerance could be applied."""

    name: str
    confusion: Confusion
    boundary: BoundaryCounts | None
    ignored_pixels: int
    unmapped_pixels: int


@dataclass
class WorstTiles:
    """The `keep` tiles with the lowest accuracy so far; tiles with hardly any truth are left out."""

    keep: int = 12
    _heap: list[tuple[float, int, TileScore]] = field(default_factory=list)
    _seen: int = 0

    def add(self, scene: int, window: Window, counts: Confusion, names: Sequence[str]) -> None:
        """Take the counts of a tile into account."""
        pixels = int(counts.sum())
        if pixels < _LEAST_KNOWN * window.size or not self.keep:
            return
        wrong = counts.copy()
        np.fill_diagonal(wrong, 0)
        true, predicted = divmod(int(wrong.argmax()), len(wrong))
        score = TileScore(
            scene=scene,
            top=window.top,
            left=window.left,
            height=window.height,
            width=window.width,
            pixels=pixels,
            accuracy=overall_accuracy(counts),
            mistaken=(names[true], names[predicted]),
            mistaken_share=float(wrong.max() / pixels),
        )
        self._seen += 1
        push = heapq.heappush if len(self._heap) < self.keep else heapq.heappushpop
        push(self._heap, (-score.accuracy, -self._seen, score))

    def scores(self) -> tuple[TileScore, ...]:
        """The worst first, without tiles that are all right."""
        ordered = [score for _, _, score in sorted(self._heap, reverse=True, key=lambda entry: entry[:2])]
        return tuple(score for score in ordered if score.accuracy < 1)


@dataclass(frozen=True, eq=False)
class Comparison:
    """One map and its truth: `origin` is the map's first pixel (row, column) on the truth's grid."""

    name: str
    mask: ClassRaster
    reader: LabelReader
    legend: Legend
    tolerance: Tolerance | None = None
    origin: tuple[int, int] = (0, 0)

    def count(self, scene: int, worst: WorstTiles) -> SceneCounts:
        """Count all pixels, tile by tile.

        Memory: a tile with its surroundings, and GDAL's block cache.

        Raises:
            LabelError: if the truth cannot be read, or has a value that is no class.
        """
        near = self.tolerance.reach(self.mask) if self.tolerance else None
        classes = len(self.legend.classes)
        total = np.zeros((classes, classes), np.int64)
        outlines = BoundaryCounts(np.zeros((classes, 4), np.int64))
        ignored = unmapped = 0
        unknown_pixels: Counter[str] = Counter()
        for window in self.mask.extent.blocks(*map(_tile_side, self.mask.shape)):
            wide = self._with_surroundings(window, near)
            truth, unknown = self._truth(wide)
            if unknown and wide != window:
                _, unknown = self._truth(window)  # those of the surroundings are counted in their own tiles
            prediction = self.legend.table[self.mask.read(wide)]
            top, left = window.top - wide.top, window.left - wide.left
            inner = (slice(top, top + window.height), slice(left, left + window.width))
            counts = confusion(truth[inner], prediction[inner], classes)
            total += counts
            judged = truth[inner] < classes
            ignored += int(window.size - judged.sum())
            unmapped += int((judged & (prediction[inner] >= classes)).sum())
            worst.add(scene, window, counts, self.legend.names)
            if near is not None:
                outlines += boundary_counts(truth, prediction, classes, near, inner)
            unknown_pixels.update(unknown)
        if unknown_pixels:
            raise self.reader.unknown_values(unknown_pixels)
        return SceneCounts(self.name, total, None if near is None else outlines, ignored, unmapped)

    def _truth(self, wide: Window) -> tuple[npt.NDArray[np.uint8], dict[str, int]]:
        row, column = self.origin
        return self.reader.read_with_unknown(replace(wide, top=wide.top + row, left=wide.left + column))

    def _with_surroundings(self, window: Window, near: Reach | None) -> Window:
        margin = 0 if near is None else near.margin_px
        wide = Window(
            window.top - margin, window.left - margin, window.height + 2 * margin, window.width + 2 * margin
        ).intersection(self.mask.extent)
        assert wide is not None
        return wide


def _tile_side(length: int) -> int:
    """The side of equal tiles of about `TILE_PX`: none is a sliver."""
    return -(-length // max(1, round(length / TILE_PX)))


def evaluation(
    scenes: Sequence[SceneCounts],
    legend: Legend,
    worst: WorstTiles,
    about: tuple[str, str],
    tolerance: Tolerance | None,
) -> Evaluation:
    """Turn the counts of scenes into scores, with intervals from drawing scenes.

    Args:
        scenes: what was counted.
        legend: the classes.
        worst: the worst tiles.
        about: the map, or model, and the truth, in words.
        tolerance: of boundaries.
    """
    per_scene = np.stack([scene.confusion for scene in scenes])
    total: Confusion = per_scene.sum(axis=0)
    boundary_f1 = _boundary_f1(scenes)
    intervals = scene_intervals(
        per_scene, lambda c: np.array([mean_iou(c, legend.in_mean), overall_accuracy(c), *class_iou(c)])
    )
    return Evaluation(
        prediction=about[0],
        truth=about[1],
        classes=_class_scores(total, legend, boundary_f1, intervals[2:]),
        confusion=total,
        miou=known(mean_iou(total, legend.in_mean)),
        miou_interval=intervals[0],
        accuracy=known(overall_accuracy(total)),
        accuracy_interval=intervals[1],
        frequency_weighted_iou=known(frequency_weighted_iou(total)),
        boundary_f1=None if boundary_f1 is None or np.isnan(boundary_f1).all() else float(np.nanmean(boundary_f1)),
        boundary_tolerance=None if boundary_f1 is None else str(tolerance),
        pixels=int(total.sum()),
        ignored_pixels=sum(scene.ignored_pixels for scene in scenes),
        unmapped_pixels=sum(scene.unmapped_pixels for scene in scenes),
        scenes=tuple(scene_scores(scene, legend) for scene in scenes),
        worst=worst.scores(),
    )


def _boundary_f1(scenes: Sequence[SceneCounts]) -> npt.NDArray[np.float64] | None:
    """The boundary F1 of every class over all scenes; None if one of them has no boundary counts."""
    counts = [scene.boundary.counts for scene in scenes if scene.boundary is not None]
    if len(counts) < len(scenes):
        return None
    return class_boundary_f1(BoundaryCounts(np.sum(counts, axis=0)))


def scene_scores(scene: SceneCounts, legend: Legend) -> SceneScores:
    """The scores of one scene."""
    counts = scene.confusion
    return SceneScores(
        scene.name, int(counts.sum()), known(mean_iou(counts, legend.in_mean)), known(overall_accuracy(counts))
    )


def _class_scores(
    total: Confusion, legend: Legend, boundary_f1: npt.NDArray[np.float64] | None, intervals: Sequence[Interval | None]
) -> tuple[ClassScores, ...]:
    columns = {
        "iou": class_iou(total),
        "f1": class_f1(total),
        "precision": class_precision(total),
        "recall": class_recall(total),
        "boundary_f1": np.full(len(total), np.nan) if boundary_f1 is None else boundary_f1,
    }
    return tuple(
        ClassScores(
            id=c.id,
            name=c.name,
            color=c.color,
            iou_interval=intervals[i],
            true_pixels=int(total[i].sum()),
            predicted_pixels=int(total[:, i].sum()),
            **{name: known(column[i]) for name, column in columns.items()},
        )
        for i, c in enumerate(legend.classes)
    )
