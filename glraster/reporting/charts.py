"""Charts as markup: lines, bars, a histogram, a heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glraster.config import LandClass
from glraster.reporting.figures import css_color, grouped, ink_on, percent, ticks
from glraster.reporting.markup import Markup, element, text

_WIDTH, _HEIGHT = 520, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 118, 12, 34
_LABEL_STEP = 15.0
_HEAT = (15, 98, 106)
_MANY = 8
"""Classes up to which the columns of a heat map have room for their names; beyond, their numbers stand alone."""


@dataclass(frozen=True)
class Line:
    """One line of a chart; its name stands at its end."""

    name: str
    color: str
    points: tuple[tuple[float, float], ...]
    strong: bool = False


def line_chart(title: str, lines: Sequence[Line], x_name: str, top: float | None = None) -> Markup:
    """Lines over a common axis, each with its name beside its end, so that no colour must be told from another.

    Args:
        title: what the chart shows.
        lines: of one point or more.
        x_name: under the horizontal axis.
        top: where the vertical axis ends; at the highest value where None. It begins at 0.
    """
    shown = [line for line in lines if line.points]
    if not shown:
        return Markup("")
    xs = [x for line in shown for x, _ in line.points]
    ys = [y for line in shown for _, y in line.points]
    scale = _Scale(min(xs), max(xs), top or max(ys) * 1.05 or 1.0)
    parts = [_grid(scale, x_name), *(_curve(line, scale) for line in shown), _end_labels(shown, scale)]
    drawn = element(
        "svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=title, class_="chart-lines"
    )
    return element("figure", element("figcaption", title), drawn, class_="chart")


@dataclass(frozen=True)
class _Scale:
    first: float
    last: float
    top: float

    def x(self, value: float) -> float:
        span = self.last - self.first
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((value - self.first) / span if span else 0.5)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * min(1.0, max(0.0, value / self.top))


def _grid(scale: _Scale, x_name: str) -> Markup:
    parts = []
    for value in ticks(0, scale.top):
        y = round(scale.y(value), 1)
        parts.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", f"{value:g}", x=_LEFT - 8, y=y + 4, text_anchor="end"))
    for value in ticks(scale.first, scale.last, 4):
        x = round(scale.x(value), 1)
        parts.append(element("text", grouped(value), x=x, y=_HEIGHT - _BOTTOM + 18, text_anchor="middle"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(element("text", x_name, x=middle, y=_HEIGHT - 2, text_anchor="middle", class_="axis"))
    return text(parts)


def _curve(line: Line, scale: _Scale) -> Markup:
    places = [(round(scale.x(x), 1), round(scale.y(y), 1)) for x, y in line.points if math.isfinite(y)]
    drawn = " ".join(f"{x},{y}" for x, y in places)
    path = element("polyline", points=drawn, stroke=line.color, class_="curve strong" if line.strong else "curve")
    return path if len(places) > 1 else element("circle", cx=places[0][0], cy=places[0][1], r=3, fill=line.color)


def _end_labels(lines: Sequence[Line], scale: _Scale) -> Markup:
    """Names at the ends of the lines, moved apart where they would lie on each other."""
    ordered = sorted(lines, key=lambda line: scale.y(line.points[-1][1]))
    places = [scale.y(line.points[-1][1]) + 4 for line in ordered]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + _LABEL_STEP)
    over = max(0.0, places[-1] - (_HEIGHT - 4))
    parts = []
    for line, place in zip(ordered, places, strict=True):
        name = line.name if len(line.name) <= 14 else line.name[:13] + "…"
        x = round(scale.x(line.points[-1][0]) + 7, 1)
        parts.append(element("text", name, x=x, y=round(place - over, 1), class_="end", fill="#1b2327"))
        parts.append(
            element("circle", cx=round(x - 7, 1), cy=round(scale.y(line.points[-1][1]), 1), r=2.6, fill=line.color)
        )
    return text(parts)


def bar(share: float, color: str, low: float | None = None, high: float | None = None) -> Markup:
    """A horizontal bar for a share from 0 to 1; `low` and `high` mark an interval on it."""
    whisker = None
    if low is not None and high is not None:
        left, right = (100 * min(1.0, max(0.0, value)) for value in (low, high))
        whisker = element("i", style=f"left:{left:.2f}%;width:{right - left:.2f}%", class_="whisker")
    fill = element("b", style=f"width:{100 * min(1.0, max(0.0, share)):.2f}%;background:{color}")
    return element("span", fill, whisker, class_="bar", aria_hidden="true")


def histogram(counts: Sequence[int], colors: Sequence[str], title: str) -> Markup:
    """Columns of equal width over 0 to 100 per cent, with their shares in their titles."""
    total = max(1, sum(counts))
    highest = max(*counts, 1)
    width = 100 / len(counts)
    columns = [
        element(
            "i",
            style=f"height:{100 * count / highest:.2f}%;background:{color}",
            title=f"{width * i:.0f} to {width * (i + 1):.0f} %: {percent(count / total)} of the pixels",
        )
        for i, (count, color) in enumerate(zip(counts, colors, strict=True))
    ]
    scale = element("div", *(element("span", f"{value} %") for value in (0, 25, 50, 75, 100)), class_="scale")
    drawn = element("div", *columns, class_="columns", role="img", aria_label=title)
    return element("figure", element("figcaption", title), drawn, scale, class_="chart histogram")


def named_class(land: LandClass) -> Markup:
    """A class as swatch with its number, and its name."""
    style = f"background:{css_color(land.color)};color:{ink_on(land.color)}"
    return element(
        "span", element("span", land.id, class_="swatch", style=style), element("span", land.name), class_="named"
    )


def heat_map(counts: npt.NDArray[np.int64], classes: Sequence[LandClass], weights: npt.NDArray[np.float64]) -> Markup:
    """A confusion matrix: rows are true classes, cells the share of the row, darker where it is more.

    Args:
        counts: what was counted, shown on demand.
        classes: their names and colours.
        weights: what the shares are of; the counts themselves, or the areas that they stand for.
    """
    corner = element("th", element("span", "true ↓  mapped →"), scope="col")
    head = element("tr", corner, *(element("th", named_class(c), scope="col") for c in classes))
    rows = []
    for i, (land, row) in enumerate(zip(classes, weights, strict=True)):
        total = float(row.sum())
        shares = row / total if total else row
        cells = [_heat_cell(float(share), int(counts[i, j]), i == j) for j, share in enumerate(shares)]
        rows.append(element("tr", element("th", named_class(land), scope="row"), *cells))
    kind = "heat many" if len(classes) > _MANY else "heat"
    return element("table", element("thead", head), element("tbody", *rows), class_=kind)


def _heat_cell(share: float, count: int, diagonal: bool) -> Markup:
    color = ",".join(str(round(255 + (channel - 255) * share**0.8)) for channel in _HEAT)
    told = f"{100 * share:.0f}" if share >= 0.0995 or share == 0 else f"{100 * share:.1f}" if share >= 5e-4 else "<0.1"
    return element(
        "td",
        told,
        style=f"background:rgb({color});color:{'#fff' if share > 0.5 else '#1b2327'}",
        class_="right" if diagonal else None,
        title=grouped(count),
    )
