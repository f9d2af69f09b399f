"""The results of an evaluation, as frozen records that become JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from glraster.metrics.bootstrap import Interval
from glraster.metrics.counts import Confusion, Scores
from glraster.metrics.protocols import DeepGlobeScores, InriaScores


@dataclass(frozen=True)
class ClassScores:
    """How well one class is mapped; a score is None if it is undefined. Only judged pixels count."""

    id: int
    name: str
    color: tuple[int, int, int]
    iou: float | None
    iou_interval: Interval | None
    f1: float | None
    precision: float | None
    recall: float | None
    boundary_f1: float | None
    true_pixels: int
    predicted_pixels: int


@dataclass(frozen=True)
class SceneScores:
    """One scene: the pixels that were judged, its mIoU and its overall accuracy."""

    name: str
    pixels: int
    miou: float | None
    accuracy: float | None


@dataclass(frozen=True)
class TileScore:
    """A tile of a map: its place in pixels of scene number `scene`, and how much of it is right.

    `mistaken` is the pair (true, predicted) of class names that most wrong pixels have; `mistaken_share` of the judged
    pixels have it.
    """

    scene: int
    top: int
    left: int
    height: int
    width: int
    pixels: int
    accuracy: float
    mistaken: tuple[str, str]
    mistaken_share: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A map held against the truth of every pixel.

    `confusion` (classes, classes) has true classes as rows. `ignored_pixels` have no truth, `unmapped_pixels` have a
    truth but no class in the map; neither counts in a score. `boundary_tolerance` is in words. Intervals are None
    if there are fewer than two scenes. `worst` are the tiles with the lowest accuracy.
    """

    prediction: str
    truth: str
    classes: tuple[ClassScores, ...]
    confusion: Confusion
    miou: float | None
    miou_interval: Interval | None
    accuracy: float | None
    accuracy_interval: Interval | None
    frequency_weighted_iou: float | None
    boundary_f1: float | None
    boundary_tolerance: str | None
    pixels: int
    ignored_pixels: int
    unmapped_pixels: int
    scenes: tuple[SceneScores, ...]
    worst: tuple[TileScore, ...]
    deepglobe: DeepGlobeScores | None = None
    inria: tuple[InriaScores, ...] = ()
    notes: tuple[str, ...] = ()
    kind: Literal["pixels"] = "pixels"

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        fields = _plain(asdict(self))
        assert isinstance(fields, dict)
        return fields


@dataclass(frozen=True)
class ClassEstimate:
    """What a map and a sample of points say of a class: areas in m² or, without a CRS, in pixels.

    Every `..._margin` is half of a 95 % interval.
    """

    id: int
    name: str
    color: tuple[int, int, int]
    points: int
    mapped_area: float
    area: float
    area_margin: float
    users: float | None
    users_margin: float | None
    producers: float | None
    producers_margin: float | None


@dataclass(frozen=True, eq=False)
class PointEvaluation:
    """A map held against a sample of points.

    `confusion` counts points, `proportions` are the shares of the area that they stand for; true classes are rows.
    """

    prediction: str
    truth: str
    classes: tuple[ClassEstimate, ...]
    confusion: Confusion
    proportions: Scores
    unit: Literal["m2", "px"]
    points: int
    points_left_out: int
    accuracy: float
    accuracy_margin: float
    notes: tuple[str, ...] = ()
    kind: Literal["points"] = "points"

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        fields = _plain(asdict(self))
        assert isinstance(fields, dict)
        return fields


def known(score: float) -> float | None:
    """A score, or None in place of NaN, which JSON does not have."""
    return None if math.isnan(score) else float(score)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return known(value) if isinstance(value, float) else value
