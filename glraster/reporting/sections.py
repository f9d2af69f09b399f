"""What the templates show beside the records of a page: headline figures, the map's controls, charts, remarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glraster.metrics.bootstrap import Interval
from glraster.metrics.records import Evaluation, PointEvaluation
from glraster.reporting.charts import Column, HeatCell, Line, LineChart, confidence_columns, heat_map, line_chart
from glraster.reporting.formatting import area, css_color, grouped, percent, score
from glraster.reporting.pictures import Color, distinct
from glraster.reporting.records import LayerKind, MapView, Page, Training

_STAGE_COLORS = ("#0f626a", "#c2572b", "#5b4a9e", "#8a6d00", "#2f7d32", "#a3315f", "#4a5560")
_MEAN_COLOR = "#1b2327"


@dataclass(frozen=True)
class Card:
    """A headline figure with its name and a note."""

    name: str
    value: str
    note: str


def cards(page: Page) -> list[Card]:
    """The figures that matter most."""
    headline = [*_area_cards(page), *_score_cards(page.evaluation), *_training_cards(page.training)]
    if page.confidence is not None:
        mean = f"{page.confidence.mean:.0f} %"
        headline.append(Card("Mean confidence", mean, "of the network in its own answer"))
    return headline


def _area_cards(page: Page) -> list[Card]:
    if not page.areas:
        return []
    total = sum(row.pixels for row in page.areas)
    areas_m2 = [row.area_m2 for row in page.areas if row.area_m2 is not None]
    mapped = area(sum(areas_m2)) if len(areas_m2) == len(page.areas) else f"{total / 1e6:.1f} MPx"
    largest = max(page.areas, key=lambda row: row.pixels)
    share = percent(largest.pixels / total if total else None, 0)
    return [
        Card("Mapped", mapped, f"{grouped(total)} pixels with a class"),
        Card("Largest class", share, largest.land.name),
    ]


def _score_cards(evaluation: Evaluation | PointEvaluation | None) -> list[Card]:
    if evaluation is None:
        return []
    accuracy = percent(evaluation.accuracy)
    if isinstance(evaluation, PointEvaluation):
        note = f"± {percent(evaluation.accuracy_margin)}, {evaluation.points} points"
        return [Card("Overall accuracy", accuracy, note)]
    spread = interval(evaluation.miou_interval) or f"mean of {len(evaluation.classes)} classes"
    return [
        Card("mIoU", score(evaluation.miou), spread),
        Card("Overall accuracy", accuracy, f"of {grouped(evaluation.pixels)} pixels with a truth"),
    ]


def _training_cards(training: Training | None) -> list[Card]:
    best = training.best if training else None
    if training is None or best is None:
        return []
    steps = sum(stage.losses[-1][0] for stage in training.stages if stage.losses)
    stages = f"in {len(training.stages)} stage{'s' if len(training.stages) > 1 else ''}"
    return [
        Card("Best mIoU", score(best.miou), f"on the val split, {best.stage} stage, step {grouped(best.step)}"),
        Card("Steps", grouped(steps), stages),
    ]


def interval(bounds: Interval | None) -> str:
    """A confidence interval in words; empty for None."""
    return "" if bounds is None else f"{bounds.low:.3f} – {bounds.high:.3f}"


@dataclass(frozen=True)
class MapControls:
    """What the map shows at first, and what its script needs.

    Attributes:
        left: the layer at the left of the handle; the map is at the right.
        opacity: of the map, in per cent.
        colors: of the classes, no two equal, as in the pictures.
        shares: of the mapped pixels, by class id.
        script: values that the page's script reads, as JSON values.
    """

    left: LayerKind
    opacity: int
    colors: tuple[Color, ...]
    shares: dict[int, float]
    script: dict[str, object]


def map_controls(page: Page) -> MapControls | None:
    """The controls of the page's map; None if it shows none."""
    view = page.view
    if view is None:
        return None
    kinds = {layer.kind for layer in view.layers}
    preferred: tuple[LayerKind, ...] = ("scene", "truth", "confidence", "map")
    left = next(kind for kind in preferred if kind in kinds)
    total = sum(row.pixels for row in page.areas)
    colors = distinct([c.color for c in view.classes])
    return MapControls(
        left=left,
        opacity=85 if left == "scene" else 100,
        colors=colors,
        shares={row.land.id: row.pixels / total for row in page.areas} if total else {},
        script=_script_values(view, colors),
    )


def _script_values(view: MapView, colors: tuple[Color, ...]) -> dict[str, object]:
    return {
        "classes": [{"name": c.name, "color": list(color)} for c, color in zip(view.classes, colors, strict=True)],
        "classed": [layer.kind for layer in view.layers if layer.kind in ("map", "truth")],
        "titles": {layer.kind: layer.title for layer in view.layers},
        "height": view.height,
        "width": view.width,
        "crs": view.crs,
        "transform": list(view.transform),
        "metresPerPx": view.metres_per_px,
    }


def training_charts(training: Training | None) -> list[LineChart]:
    """The loss of all stages in one chart, then the scores of each stage in one."""
    if training is None:
        return []
    losses = [
        Line(stage.name, _STAGE_COLORS[i % len(_STAGE_COLORS)], tuple((float(x), y) for x, y in stage.losses))
        for i, stage in enumerate(training.stages)
    ]
    charts = [line_chart("Loss, smoothed", losses, "step"), *(_scores(training, i) for i in range(len(losses)))]
    return [chart for chart in charts if chart is not None]


def _scores(training: Training, number: int) -> LineChart | None:
    stage = training.stages[number]
    scored = [v for v in stage.validations if v.miou is not None]
    lines = [Line("mIoU", _MEAN_COLOR, tuple((float(v.step), v.miou or 0.0) for v in scored), strong=True)]
    for i, c in enumerate(training.classes):
        points = tuple((float(v.step), iou) for v in scored if i < len(v.iou) and (iou := v.iou[i]) is not None)
        lines.append(Line(c.name, css_color(c.color), points))
    return line_chart(f"IoU on the val split, {stage.name} stage", lines, "step", top=1.0)


def confusion_cells(evaluation: Evaluation | PointEvaluation | None) -> tuple[tuple[HeatCell, ...], ...]:
    """The confusion matrix as cells; of points, shares are those of the area that they stand for."""
    if evaluation is None:
        return ()
    if isinstance(evaluation, Evaluation):
        return heat_map(evaluation.confusion, evaluation.confusion.astype(np.float64))
    return heat_map(evaluation.confusion, evaluation.proportions)


def remarks(evaluation: Evaluation | PointEvaluation | None) -> str:
    """Sentences on what the scores leave out, and the evaluation's own notes."""
    if evaluation is None:
        return ""
    lines: list[str] = []
    if isinstance(evaluation, PointEvaluation):
        lines += evaluation.notes
        if evaluation.points_left_out:
            lines.append(f"{evaluation.points_left_out} points lie where the map has no class, or are not judged")
    else:
        if evaluation.ignored_pixels:
            lines.append(f"{grouped(evaluation.ignored_pixels)} pixels have no truth and are not judged")
        if evaluation.boundary_tolerance is not None:
            lines.append(f"Boundary F1 counts outlines as met within {evaluation.boundary_tolerance}")
        lines += evaluation.notes
    return " ".join(line[:1].upper() + line[1:].rstrip(".") + "." for line in lines)


def histogram(page: Page) -> tuple[Column, ...]:
    """The pixels by confidence; empty without a confidence."""
    return () if page.confidence is None else confidence_columns(page.confidence.histogram)
