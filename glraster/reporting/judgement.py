"""The sections that hold a map against its truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glraster.config import LandClass
from glraster.metrics.records import Evaluation, PointEvaluation
from glraster.reporting.charts import bar, heat_map, named_class
from glraster.reporting.figures import css_color, grouped, percent, score
from glraster.reporting.markup import Content, Markup, element
from glraster.reporting.records import TilePictures
from glraster.reporting.tables import interval_text, section, table

_NOTHING = Markup("")


def agreement(found: Evaluation | PointEvaluation | None) -> Markup:
    """Scores per class, and the confusion matrix."""
    if found is None:
        return _NOTHING
    classes = [LandClass(c.id, c.name, c.color) for c in found.classes]
    counted = isinstance(found, Evaluation)
    told = "share of the pixels of a true class" if counted else "estimated share of the area of a true class"
    weights = found.confusion.astype(np.float64) if isinstance(found, Evaluation) else found.proportions
    matrix = element(
        "figure",
        element("figcaption", f"Confusion: {told}, in per cent"),
        element("div", heat_map(found.confusion, classes, weights), class_="scroll"),
    )
    scores = _class_scores(found) if isinstance(found, Evaluation) else None
    return section("agreement", "Agreement with the truth", scores, matrix, _told(found))


def _class_scores(found: Evaluation) -> Markup:
    intervals = any(c.iou_interval is not None for c in found.classes)
    edges = found.boundary_tolerance is not None
    heads = ["Class", "", "IoU", *(["95 %"] if intervals else []), "F1", "Precision", "Recall"]
    rows = []
    for c in found.classes:
        low, high = (c.iou_interval.low, c.iou_interval.high) if c.iou_interval else (None, None)
        cells: list[Content] = [
            named_class(LandClass(c.id, c.name, c.color)),
            bar(c.iou or 0.0, css_color(c.color), low, high),
            score(c.iou),
        ]
        cells += [interval_text(c.iou_interval)] if intervals else []
        cells += [score(c.f1), score(c.precision), score(c.recall)]
        rows.append([*cells, *([score(c.boundary_f1)] if edges else [])])
    return table([*heads, *(["Boundary F1"] if edges else [])], rows, "scores")


def _told(found: Evaluation | PointEvaluation) -> Markup:
    lines = [*found.notes]
    if isinstance(found, Evaluation):
        if found.boundary_tolerance is not None:
            lines.insert(0, f"Boundary F1 counts outlines as met within {found.boundary_tolerance}.")
        left = found.ignored_pixels
        lines.insert(0, f"{grouped(left)} pixels have no truth and are not judged.") if left else None
    elif found.points_left_out:
        lines.append(f"{found.points_left_out} points lie where the map has no class, or are not judged.")
    sentences = [line[:1].upper() + line[1:].rstrip(".") + "." for line in lines]
    return element("p", " ".join(sentences), class_="hint") if sentences else _NOTHING


def worst_tiles(tiles: Sequence[TilePictures], *, placed: bool) -> Markup:
    """The tiles with the lowest accuracy: scene, truth and map beside each other."""
    if not tiles:
        return _NOTHING
    told = "Where map and truth agree least. Look at them before you trust a figure: the truth may be the wrong one."
    cards = [_tile_card(i, tile, placed) for i, tile in enumerate(tiles, start=1)]
    return section("worst", "Worst tiles", element("p", told), element("div", *cards, class_="tiles"))


def _tile_card(number: int, tile: TilePictures, placed: bool) -> Markup:
    found = tile.score
    pictures = [("Scene", tile.scene), ("Truth", tile.truth), ("Map", tile.prediction)]
    shown = [
        element(
            "figure",
            element("img", src=picture.uri, alt=f"{name} of tile {number}", width=picture.width, height=picture.height),
            element("figcaption", name),
        )
        for name, picture in pictures
        if picture is not None
    ]
    true, mapped = found.mistaken
    digits = 0 if found.mistaken_share >= 0.1 else 1
    place = f"{found.top} {found.left} {found.height} {found.width}"
    look = element("button", "Show on the map", type="button", data_place=place) if placed else None
    about = element(
        "p",
        element("strong", f"{percent(found.accuracy, 0)} right"),
        f". {percent(found.mistaken_share, digits)} of it is {true}, mapped as {mapped}. ",
        element("span", f"Row {found.top}, column {found.left}. ", class_="place"),
        look,
    )
    return element("article", element("div", *shown, class_="trio"), about)
