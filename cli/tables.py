"""Evaluations as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from glraster.metrics.bootstrap import Interval
    from glraster.metrics.records import Evaluation, PointEvaluation

_SCENES_SHOWN = 20


def show(result: Evaluation | PointEvaluation) -> None:
    """Print an evaluation on stdout."""
    from rich.console import Console

    # a pipe has no width of its own: tables are not to be cut there
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    if result.kind == "pixels":
        _show_pixels(result, console)
    else:
        _show_points(result, console)
    for note in result.notes:
        console.print(f"note: {note}", style="dim", markup=False)


def _show_pixels(result: Evaluation, console: Console) -> None:
    console.print(f"{result.prediction} against {result.truth}", markup=False)
    console.print(_class_table(result))
    console.print(_confusion_table(result.confusion.tolist(), [c.name for c in result.classes], "pixels"))
    if len(result.scenes) > 1:
        console.print(_scene_table(result))
    lines = [
        f"mIoU                {_score(result.miou)}{_interval(result.miou_interval)}",
        f"overall accuracy    {_score(result.accuracy)}{_interval(result.accuracy_interval)}",
        f"frequency-w. IoU    {_score(result.frequency_weighted_iou)}",
    ]
    if result.boundary_tolerance is not None:
        lines.append(f"boundary F1         {_score(result.boundary_f1)} within {result.boundary_tolerance}")
    told = [f"{count:,}".replace(",", " ") for count in (result.pixels, result.ignored_pixels, result.unmapped_pixels)]
    lines.append(f"pixels              {told[0]} judged, {told[1]} without truth, {told[2]} without a class in the map")
    console.print("\n".join(lines), markup=False)
    _show_protocol(result, console)


def _class_table(result: Evaluation) -> Table:
    columns = ["IoU", "95 %", "F1", "precision", "recall", "boundary F1", "true px", "mapped px"]
    if all(c.iou_interval is None for c in result.classes):
        columns.remove("95 %")
    if result.boundary_tolerance is None:
        columns.remove("boundary F1")
    rows = []
    for c in result.classes:
        cells = {
            "IoU": _score(c.iou),
            "95 %": _interval(c.iou_interval).strip(),
            "F1": _score(c.f1),
            "precision": _score(c.precision),
            "recall": _score(c.recall),
            "boundary F1": _score(c.boundary_f1),
            "true px": str(c.true_pixels),
            "mapped px": str(c.predicted_pixels),
        }
        rows.append((c.name, *(cells[column] for column in columns)))
    return _table(("class", *columns), rows)


def _scene_table(result: Evaluation) -> Table:
    shown = sorted(result.scenes, key=lambda scene: -1 if scene.miou is None else scene.miou)[:_SCENES_SHOWN]
    rows = [(s.name, _score(s.miou), _score(s.accuracy), str(s.pixels)) for s in shown]
    left = len(result.scenes) - len(shown)
    title = f"scenes, the worst first{f' ({left} more)' if left else ''}"
    return _table(("scene", "mIoU", "accuracy", "pixels"), rows, title)


def _show_protocol(result: Evaluation, console: Console) -> None:
    if result.deepglobe is not None:
        found = result.deepglobe
        rows = [
            (name, _score(ours), _score(strict))
            for name, ours, strict in zip(found.classes, found.authors_iou, found.strict_iou, strict=True)
        ]
        rows.append(("mean", _score(found.authors), _score(found.strict)))
        title = "DeepGlobe, mean over the named classes"
        console.print(_table(("class", "authors' count", "strict count"), rows, title))
        console.print(
            "the authors' count keeps pixels of unknown class in the matrix; the strict one leaves them out",
            style="dim",
        )
    if result.inria:
        rows = [(s.city, _score(s.iou), _score(s.accuracy)) for s in result.inria]
        console.print(_table(("city", "building IoU", "accuracy"), rows, "Inria"))


def _show_points(result: PointEvaluation, console: Console) -> None:
    console.print(f"{result.prediction} against {result.points} points of {result.truth}", markup=False)
    unit, factor = ("ha", 1e-4) if result.unit == "m2" else ("px", 1.0)
    rows = [
        (
            c.name,
            str(c.points),
            f"{c.mapped_area * factor:.2f}",
            f"{c.area * factor:.2f} ± {c.area_margin * factor:.2f}",
            _margin(c.users, c.users_margin),
            _margin(c.producers, c.producers_margin),
        )
        for c in result.classes
    ]
    headers = ("class", "points", f"mapped {unit}", f"estimated {unit}", "user's accuracy", "producer's accuracy")
    console.print(_table(headers, rows))
    console.print(_confusion_table(result.confusion.tolist(), [c.name for c in result.classes], "points"))
    left_out = f", {result.points_left_out} points left out" if result.points_left_out else ""
    console.print(f"overall accuracy    {_margin(result.accuracy, result.accuracy_margin)}{left_out}")
    console.print("± is half of a 95 % interval (Olofsson et al. 2014)", style="dim")


def _confusion_table(counts: Sequence[Sequence[int]], names: Sequence[str], unit: str) -> Table:
    """Counts as shares of the true class, which rows are."""
    rows = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row)
        shares = [str(n) if unit == "points" else f"{100 * n / total:.1f} %" if total else "-" for n in row]
        rows.append((name, *shares))
    told = "points" if unit == "points" else "share of the true class"
    return _table(("true \\ mapped", *names), rows, f"confusion, {told}")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, title=title and Text(title), title_justify="left", pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if i else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _score(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}"


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"  {interval.low:.3f} to {interval.high:.3f}"


def _margin(value: float | None, margin: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f} ± {100 * (margin or 0):.1f} %"
