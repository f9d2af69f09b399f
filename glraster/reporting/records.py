"""The content of a page, as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from glraster.config import LandClass
from glraster.metrics.records import Evaluation, PointEvaluation, TileScore
from glraster.reporting.pictures import Picture
from glraster.reporting.spots import Spot

LayerKind = Literal["scene", "map", "truth", "confidence", "errors"]


@dataclass(frozen=True)
class MapLayer:
    """A picture of the whole map; all layers of a page cover the same ground."""

    kind: LayerKind
    title: str
    picture: Picture


@dataclass(frozen=True)
class MapView:
    """A map to look at: its layers, its classes and its georeference.

    `height` and `width` are the map's in pixels; `transform` (a, b, c, d, e, f) turns column and row into
    coordinates of `crs`. `spots` are places for class numbers.
    """

    layers: tuple[MapLayer, ...]
    classes: tuple[LandClass, ...]
    height: int
    width: int
    crs: str | None
    transform: tuple[float, ...]
    metres_per_px: float | None
    spots: tuple[Spot, ...] = ()


@dataclass(frozen=True)
class AreaRow:
    """The area of one class; `area_m2` is None if the map has no CRS with metres."""

    land: LandClass
    pixels: int
    area_m2: float | None


@dataclass(frozen=True)
class Confidence:
    """The network's confidence: pixels for each percentage 0 to 100, and the mean of each class (None: absent)."""

    histogram: tuple[int, ...]
    class_means: tuple[float | None, ...]

    @property
    def mean(self) -> float:
        """Mean percentage of all pixels."""
        return sum(i * n for i, n in enumerate(self.histogram)) / max(1, sum(self.histogram))

    def share_below(self, percent: int) -> float:
        """Share of the pixels with a lower confidence."""
        return sum(self.histogram[:percent]) / max(1, sum(self.histogram))


@dataclass(frozen=True)
class TilePictures:
    """A tile of the map as scene (if known), truth and map."""

    score: TileScore
    scene: Picture | None
    truth: Picture
    prediction: Picture


@dataclass(frozen=True)
class Validation:
    """Scores after a step of a training stage; a class without a score has None."""

    stage: str
    step: int
    miou: float | None
    iou: tuple[float | None, ...]


@dataclass(frozen=True)
class TrainingStage:
    """The course of one stage: (step, loss) pairs, smoothed, and validations."""

    name: str
    losses: tuple[tuple[int, float], ...]
    validations: tuple[Validation, ...]


@dataclass(frozen=True)
class Training:
    """A training: its stages, its classes, and pictures of scenes that were validated (title, picture)."""

    stages: tuple[TrainingStage, ...]
    classes: tuple[LandClass, ...]
    pictures: tuple[tuple[str, Picture], ...] = ()

    @property
    def best(self) -> Validation | None:
        """The validation of the model that the training leaves: the best of the last stage with a score."""
        scored = [[v for v in stage.validations if v.miou is not None] for stage in self.stages]
        last = next((validations for validations in reversed(scored) if validations), [])
        return max(last, key=lambda v: v.miou or 0.0, default=None)


@dataclass(frozen=True)
class Page:
    """The content of a report. Parts that are None or empty are left out."""

    title: str
    subtitle: str
    view: MapView | None = None
    areas: tuple[AreaRow, ...] = ()
    confidence: Confidence | None = None
    evaluation: Evaluation | PointEvaluation | None = None
    worst: tuple[TilePictures, ...] = ()
    training: Training | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
