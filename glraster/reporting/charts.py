"""The geometry of the charts; `templates/charts.html` draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glraster.reporting.formatting import css_color, grouped
from glraster.reporting.pictures import Color, confidence_colors

_LABEL_STEP = 15.0
_LABEL_LENGTH = 14
_INK: Color = (27, 35, 39)
_HEAT: Color = (15, 98, 106)


@dataclass(frozen=True)
class Line:
    """A line of a chart in data units; `strong` draws it thicker."""

    name: str
    color: str
    points: tuple[tuple[float, float], ...]
    strong: bool = False


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in pixels of the drawing."""

    place: float
    text: str


@dataclass(frozen=True)
class Label:
    """The name of a line and its place; a dot marks the line's end."""

    text: str
    x: float
    y: float
    dot_y: float
    color: str


@dataclass(frozen=True)
class Curve:
    """A line in pixels of the drawing."""

    color: str
    points: tuple[tuple[float, float], ...]
    strong: bool


@dataclass(frozen=True)
class LineChart:
    """A chart in pixels of its drawing: y grows downwards.

    left                right
    |  curves           | labels
    |                   |
    +-------------------+  bottom
       x ticks, x_name
    """

    title: str
    x_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    labels: tuple[Label, ...]
    width: int = 520
    height: int = 280
    left: int = 44
    right: int = 402
    top: int = 12
    bottom: int = 246


def line_chart(title: str, lines: Sequence[Line], x_name: str, top: float | None = None) -> LineChart | None:
    """Lay out lines over common axes. Each is labelled at its end, so that the chart does not rely on colour.

    Args:
        title: what the chart shows.
        lines: points that are not finite are left out, and so are lines without points.
        x_name: under the horizontal axis.
        top: the end of the vertical axis, which begins at 0; the highest value if None.

    Returns:
        The chart; None if no line has a point.
    """
    finite = [Line(n.name, n.color, tuple(filter(_finite, n.points)), n.strong) for n in lines]
    drawn = [line for line in finite if line.points]
    if not drawn:
        return None
    xs = [x for line in drawn for x, _ in line.points]
    highest = max(y for line in drawn for _, y in line.points)
    axes = _Axes(min(xs), max(xs), top or highest * 1.05 or 1.0)
    return LineChart(
        title=title,
        x_name=x_name,
        x_ticks=tuple(Tick(axes.x(value), grouped(value)) for value in ticks(axes.first, axes.last, 4)),
        y_ticks=tuple(Tick(axes.y(value), f"{value:g}") for value in ticks(0, axes.top)),
        curves=tuple(Curve(n.color, tuple((axes.x(x), axes.y(y)) for x, y in n.points), n.strong) for n in drawn),
        labels=_end_labels(drawn, axes),
    )


def _finite(point: tuple[float, float]) -> bool:
    return math.isfinite(point[1])


@dataclass(frozen=True)
class _Axes:
    """From data units to pixels of the drawing."""

    first: float
    last: float
    top: float

    def x(self, value: float) -> float:
        span = self.last - self.first
        share = (value - self.first) / span if span else 0.5
        return round(LineChart.left + (LineChart.right - LineChart.left) * share, 1)

    def y(self, value: float) -> float:
        share = min(1.0, max(0.0, value / self.top))
        return round(LineChart.bottom - (LineChart.bottom - LineChart.top) * share, 1)


def _end_labels(lines: Sequence[Line], axes: _Axes) -> tuple[Label, ...]:
    """Labels from the top down, moved apart so that none covers another."""
    ends = sorted(((axes.y(line.points[-1][1]), line) for line in lines), key=lambda end: end[0])
    places: list[float] = []
    for y, _ in ends:
        places.append(max(y + 4, places[-1] + _LABEL_STEP) if places else y + 4)
    excess = max(0.0, places[-1] - (LineChart.height - 4))
    return tuple(
        Label(_shortened(line.name), axes.x(line.points[-1][0]), round(place - excess, 1), y, line.color)
        for (y, line), place in zip(ends, places, strict=True)
    )


def _shortened(name: str) -> str:
    return name if len(name) <= _LABEL_LENGTH else name[: _LABEL_LENGTH - 1] + "…"


def ticks(low: float, high: float, count: int = 5) -> Sequence[float]:
    """Round numbers that divide a range into about `count` parts."""
    if not high > low:
        return (low,)
    rough = (high - low) / count
    power = 10.0 ** int(f"{rough:e}".split("e")[1])
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first = -(-low // step)
    return tuple(step * (first + i) for i in range(int((high - first * step) / step + 1e-9) + 1))


@dataclass(frozen=True)
class Column:
    """A column of a histogram: the percentages it covers, its share of all pixels, its height from 0 to 1."""

    low: int
    high: int
    share: float
    height: float
    color: str


def confidence_columns(histogram: Sequence[int]) -> tuple[Column, ...]:
    """Twenty columns over the pixel counts of the percentages 0 to 100; the last one covers 95 to 100."""
    colors = confidence_colors()
    width = 100 // len(colors)
    counts = [sum(histogram[width * i : width * (i + 1)]) for i in range(len(colors))]
    counts[-1] += histogram[100]
    total, highest = max(1, sum(counts)), max(1, *counts)
    return tuple(
        Column(width * i, width * (i + 1), count / total, count / highest, css_color(color))
        for i, (count, color) in enumerate(zip(counts, colors, strict=True))
    )


@dataclass(frozen=True)
class HeatCell:
    """A cell of a confusion matrix: its text, colours and count."""

    text: str
    color: str
    ink: str
    count: int


def heat_map(counts: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]) -> tuple[tuple[HeatCell, ...], ...]:
    """The cells of a confusion matrix, darker for a larger share of their row.

    Args:
        counts: (true, mapped) pixels or points.
        weights: (true, mapped) what the shares are of: the counts, or the areas that the points stand for.
    """
    totals = weights.sum(axis=1, keepdims=True)
    shares = weights / np.where(totals == 0, 1, totals)
    return tuple(
        tuple(_heat_cell(share, count) for share, count in zip(*row, strict=True))
        for row in zip(shares.tolist(), counts.tolist(), strict=True)
    )


def _heat_cell(share: float, count: int) -> HeatCell:
    red, green, blue = (round(255 + (channel - 255) * share**0.8) for channel in _HEAT)
    text = f"{100 * share:.0f}" if share >= 0.0995 or share == 0 else f"{100 * share:.1f}" if share >= 5e-4 else "<0.1"
    return HeatCell(text, css_color((red, green, blue)), css_color((255, 255, 255) if share > 0.5 else _INK), count)
