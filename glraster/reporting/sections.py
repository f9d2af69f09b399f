"""The sections of a page that show what was mapped or trained, each from its records; without them it is empty."""

from __future__ import annotations

from collections.abc import Sequence

from glraster.config import LandClass
from glraster.metrics.records import Evaluation, PointEvaluation
from glraster.reporting.charts import Line, bar, histogram, line_chart, named_class
from glraster.reporting.figures import area, css_color, grouped, hectares, percent, score
from glraster.reporting.markup import Markup, element, text
from glraster.reporting.pictures import confidence_colors
from glraster.reporting.records import Confidence, Page, Training
from glraster.reporting.tables import interval_text, section, table

_NOTHING = Markup("")
_BAR = "#0f626a"
_CURVES = ("#0f626a", "#c2572b", "#5b4a9e", "#8a6d00", "#2f7d32", "#a3315f", "#4a5560")


def headline(page: Page) -> Markup:
    """The figures that matter most, as cards."""
    cards = [*_area_cards(page), *_score_cards(page.evaluation), *_training_cards(page.training)]
    if page.confidence is not None:
        cards.append(("Mean confidence", f"{page.confidence.mean:.0f} %", "of the network in its own answer"))
    return element(
        "dl",
        *(
            element(
                "div", element("dt", name), element("dd", value), element("dd", told, class_="told") if told else None
            )
            for name, value, told in cards
        ),
        class_="cards",
    )


def _area_cards(page: Page) -> list[tuple[str, str, str]]:
    if not page.areas:
        return []
    total = sum(row.pixels for row in page.areas)
    known = [row.area_m2 for row in page.areas if row.area_m2 is not None]
    mapped = area(sum(known)) if len(known) == len(page.areas) else f"{total / 1e6:.1f} MPx"
    largest = max(page.areas, key=lambda row: row.pixels)
    share = percent(largest.pixels / total if total else None, 0)
    return [
        ("Mapped", mapped, f"{grouped(total)} pixels with a class"),
        ("Largest class", share, largest.land.name),
    ]


def _score_cards(found: Evaluation | PointEvaluation | None) -> list[tuple[str, str, str]]:
    if found is None:
        return []
    if isinstance(found, PointEvaluation):
        told = f"± {percent(found.accuracy_margin)}, {found.points} points"
        return [("Overall accuracy", percent(found.accuracy), told)]
    return [
        ("mIoU", score(found.miou), interval_text(found.miou_interval) or f"mean of {len(found.classes)} classes"),
        ("Overall accuracy", percent(found.accuracy), f"of {grouped(found.pixels)} pixels with a truth"),
    ]


def _training_cards(training: Training | None) -> list[tuple[str, str, str]]:
    best = training.best if training else None
    if training is None or best is None:
        return []
    steps = sum(stage.losses[-1][0] for stage in training.stages if stage.losses)
    return [
        ("Best mIoU", score(best.miou), f"on the val split, {best.stage} stage, step {grouped(best.step)}"),
        ("Steps", grouped(steps), f"in {len(training.stages)} stage{'s' if len(training.stages) > 1 else ''}"),
    ]


def areas(page: Page) -> Markup:
    """Area of every class as bars and figures, with estimates from points where there are some."""
    if not page.areas:
        return _NOTHING
    if isinstance(page.evaluation, PointEvaluation):
        return section("areas", "Areas", _estimated_areas(page.evaluation))
    total = max(1, sum(row.pixels for row in page.areas))
    metric = all(row.area_m2 is not None for row in page.areas)
    heads = ["Class", "", "Share", *(["ha", "m²"] if metric else ["Pixels"])]
    rows = []
    for row in sorted(page.areas, key=lambda row: -row.pixels):
        share = row.pixels / total
        figures = [hectares(row.area_m2), grouped(row.area_m2)] if row.area_m2 is not None else [grouped(row.pixels)]
        cells = [named_class(row.land), bar(share, css_color(row.land.color)), percent(share), *figures]
        rows.append(cells)
    told = None if metric else element("p", "The map has no CRS that tells metres: areas are in pixels.", class_="hint")
    return section("areas", "Areas", table(heads, rows, "areas"), told)


def _estimated_areas(found: PointEvaluation) -> Markup:
    """Mapped and estimated areas with intervals, after Olofsson et al. 2014."""
    unit, factor = ("ha", 1e-4) if found.unit == "m2" else ("px", 1.0)
    total = sum(c.mapped_area for c in found.classes) or 1.0
    rows = []
    for c in sorted(found.classes, key=lambda c: -c.area):
        land = LandClass(c.id, c.name, c.color)
        low, high = (c.area - c.area_margin) / total, (c.area + c.area_margin) / total
        rows.append(
            [
                named_class(land),
                bar(c.area / total, css_color(c.color), low, high),
                f"{grouped(c.area * factor)} ± {grouped(c.area_margin * factor)}",
                grouped(c.mapped_area * factor),
                _with_margin(c.users, c.users_margin),
                _with_margin(c.producers, c.producers_margin),
            ]
        )
    heads = ["Class", "", f"Estimated, {unit}", f"Mapped, {unit}", "User’s accuracy", "Producer’s accuracy"]
    return text(
        table(heads, rows, "areas"),
        element(
            "p",
            f"Estimated from {grouped(found.points)} points, weighted by mapped area; ± and the line on a bar are 95 % "
            "intervals (Olofsson et al. 2014).",
            class_="hint",
        ),
    )


def confidence(found: Confidence | None, classes: Sequence[LandClass]) -> Markup:
    """Histogram of the confidence, and its mean for every class."""
    if found is None:
        return _NOTHING
    steps = [sum(found.histogram[5 * i : 5 * i + 5]) for i in range(20)]
    steps[-1] += found.histogram[100]
    colors = [css_color(color) for color in confidence_colors()]
    drawn = histogram(steps, colors, "Pixels by confidence")
    rows = [
        [named_class(c), bar(mean / 100, css_color(c.color)), f"{mean:.0f} %"]
        for c, mean in zip(classes, found.class_means, strict=False)  # a truth may add classes at the end
        if mean is not None
    ]
    told = (
        f"{percent(found.share_below(50))} of the pixels have less than 50 % confidence: look at them first. "
        "Confidence is the network’s own probability of its answer, not a measured accuracy."
    )
    means = element("figure", element("figcaption", "Mean by class"), table(["Class", "", "Mean"], rows, "means"))
    return section(
        "confidence", "Confidence", element("div", drawn, means, class_="pair"), element("p", told, class_="hint")
    )


def training(found: Training | None) -> Markup:
    """Curves of loss and scores, scores of the best model, and pictures of the val split."""
    if found is None:
        return _NOTHING
    losses = [
        Line(stage.name, _CURVES[i % len(_CURVES)], tuple((float(x), y) for x, y in stage.losses))
        for i, stage in enumerate(found.stages)
    ]
    charts = [line_chart("Loss, smoothed", losses, "step"), *(_score_chart(found, i) for i in range(len(found.stages)))]
    pictures = [
        element(
            "figure",
            element("img", src=shot.uri, alt=name, width=shot.width, height=shot.height),
            element("figcaption", name),
        )
        for name, shot in found.pictures
    ]
    shown = [element("h3", "Scene, truth and map of a val window"), element("div", *pictures, class_="strips")]
    best = _best_scores(found)
    return section("training", "Training", element("div", *charts, class_="pair"), best, *(shown if pictures else []))


def _score_chart(found: Training, number: int) -> Markup:
    stage = found.stages[number]
    scored = [v for v in stage.validations if v.miou is not None]
    lines = [Line("mIoU", "#1b2327", tuple((float(v.step), v.miou or 0.0) for v in scored), strong=True)]
    for i, c in enumerate(found.classes):
        points = tuple((float(v.step), iou) for v in scored if i < len(v.iou) and (iou := v.iou[i]) is not None)
        lines.append(Line(c.name, css_color(c.color), points))
    return line_chart(f"IoU on the val split, {stage.name} stage", lines, "step", top=1.0)


def _best_scores(found: Training) -> Markup:
    best = found.best
    if best is None:
        return _NOTHING
    rows = [
        [named_class(c), bar(iou or 0.0, css_color(c.color)), score(iou)]
        for c, iou in zip(found.classes, best.iou, strict=False)
    ]
    heading = element("h3", f"The best model, after step {grouped(best.step)}")
    return text(heading, table(["Class", "", "IoU"], rows, "scores"))


def provenance(page: Page) -> Markup:
    """Where all this comes from."""
    rows = [element("div", element("dt", name), element("dd", value)) for name, value in page.provenance.items()]
    notes = [element("p", note, class_="hint") for note in page.notes]
    return section("provenance", "Provenance", element("dl", *rows, class_="facts"), *notes) if rows else _NOTHING


def _with_margin(value: float | None, margin: float | None) -> str:
    return "–" if value is None else f"{percent(value)} ± {percent(margin)}"
