"""Results as people read them on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from glraster.catalog import Catalog
    from glraster.labels.check import CatalogReport, SplitReport
    from glraster.metrics.bootstrap import Interval
    from glraster.metrics.records import Evaluation, PointEvaluation
    from glraster.segmentation.plan import Estimate
    from glraster.segmentation.scenes import Fate, ScenesResult
    from glraster.segmentation.segment import ClassArea, SegmentResult
    from glraster.training.train import TrainResult
    from glraster.vector.vectorize import VectorizeResult

_SCENES_SHOWN = 20


def segment_text(result: SegmentResult) -> str:
    """The outcome of a segmentation for people."""
    windows = f"{result.windows_done} windows computed"
    windows += f", {result.windows_reused} reused" if result.windows_reused else ""
    windows += f", {result.windows_skipped} without data skipped" if result.windows_skipped else ""
    if result.tiles_skipped:
        windows += f", {result.tiles_skipped} of {result.tiles} tiles left to the guide"
    lines = [
        f"{result.output}: {result.width} x {result.height} px, {windows}",
        f"{result.seconds:.1f} s, {result.mpx_per_s:.2f} MPx/s, {_size(result.peak_memory_bytes)} memory at most, "
        f"{result.device}",
    ]
    total = sum(c.pixels for c in result.classes)
    width = max(len(c.name) for c in result.classes)
    lines += [
        f"  {c.id:>3}  {c.name:<{width}}  {100 * c.pixels / total:5.1f} %  {_area(c)}"
        for c in result.classes
        if c.pixels
    ]
    return "\n".join(lines)


def scenes_text(result: ScenesResult) -> str:
    """The outcomes of several scenes, counted."""
    fates: tuple[Fate, ...] = ("done", "kept", "failed")
    counts = ", ".join(f"{result.count(fate)} {fate}" for fate in fates if result.count(fate))
    return f"{len(result.scenes)} scenes: {counts}"


def estimate_text(estimate: Estimate) -> str:
    """The expected cost of a segmentation for people."""
    return "\n".join(
        [
            f"windows   {estimate.windows}",
            f"tiles     {estimate.tiles}",
            f"compute   {estimate.tera_flop:.1f} TFLOP",
            f"parts     {_size(estimate.parts_bytes)} on disk",
            f"memory    about {_size(estimate.memory_bytes)}",
            f"time      about {duration(estimate.seconds)}",
        ]
    )


def _area(mapped: ClassArea) -> str:
    if mapped.area_m2 is None:
        return f"{mapped.pixels} px"
    return f"{mapped.area_m2 / 1e4:.2f} ha" if mapped.area_m2 < 1e8 else f"{mapped.area_m2 / 1e6:.1f} km²"


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def duration(seconds: float) -> str:
    """Seconds in words, roughly."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def train_text(result: TrainResult) -> str:
    """The outcome of a training for people."""
    best = result.best
    return (
        f"{result.model}: mIoU {best.miou:.4f} on the val split after step {best.step} of stage {best.stage}\n"
        f"{result.steps} steps in {duration(result.seconds)}"
    )


def vectorize_text(result: VectorizeResult) -> str:
    """The outcome of a vectorization for people."""
    lines = [
        f"{result.output}: {result.polygons} polygons of a mask of {result.width} x {result.height} px",
        f"{result.seconds:.1f} s, {result.peak_memory_bytes / 2**20:.0f} MiB memory at most",
    ]
    width = max((len(c.name) for c in result.classes), default=0)
    for c in result.classes:
        area = "" if c.area_m2 is None else f"  {c.area_m2 / 1e4:.2f} ha"
        lines.append(f"  {c.id:>3}  {c.name:<{width}}  {c.polygons:>9}{area}")
    return "\n".join(lines)


def catalog_text(catalog: Catalog) -> str:
    splits = ", ".join(f"{name} {len(pairs)}" for name, pairs in catalog.splits.items() if pairs)
    return f"{catalog.source}: {len(catalog.classes)} classes; scenes: {splits}"


def catalog_report_text(report: CatalogReport) -> str:
    lines = [f"{report.name}  {report.content_hash}"]
    for split in report.splits:
        lines += _split_lines(split) if split.scenes else []
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def _split_lines(split: SplitReport) -> list[str]:
    sizes = [(scene.width, scene.height) for scene in split.scenes]
    extremes = (least_or_most(sizes, key=lambda size: size[0] * size[1]) for least_or_most in (min, max))
    least, most = (f"{width} x {height}" for width, height in extremes)
    span = least if least == most else f"{least} to {most}"
    width = max(len(c.name) for c in split.classes)
    return [
        f"{split.name}: {len(split.scenes)} scene{'s' if len(split.scenes) > 1 else ''}, {span} px",
        *(f"  {c.id:>3}  {c.name:<{width}}  {100 * c.share:5.1f} %  {c.pixels:>12} px" for c in split.classes),
        f"       {'ignored':<{width}}           {split.ignored_pixels:>12} px",
    ]


def model_text(info: dict[str, Any]) -> str:
    architecture = info.pop("architecture")
    lines = [f"{key:<20}{value}" for key, value in {**architecture, "classes": ""}.items() if key != "classes"]
    lines += [f"{key:<20}{value}" for key, value in info.items() if key not in ("classes", "provenance")]
    lines.append("classes")
    lines += [f"  {c['id']:>3}  #{bytes(c['color']).hex()}  {c['name']}" for c in info["classes"]]
    lines.append("provenance")
    lines += [f"  {key}: {value}" for key, value in info["provenance"].items()]
    return "\n".join(map(_printable, lines))


def _printable(text: str) -> str:
    """Escape control characters: text from a file must not control the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def print_evaluation(result: Evaluation | PointEvaluation) -> None:
    """Print an evaluation on stdout."""
    from rich.console import Console

    # a pipe has no width: do not cut tables to 80 columns there
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
    judged, ignored, unmapped = (
        f"{count:,}".replace(",", " ") for count in (result.pixels, result.ignored_pixels, result.unmapped_pixels)
    )
    lines.append(f"pixels              {judged} judged, {ignored} without truth, {unmapped} without a class in the map")
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
        scores = result.deepglobe
        rows = [
            (name, _score(authors), _score(strict))
            for name, authors, strict in zip(scores.classes, scores.authors_iou, scores.strict_iou, strict=True)
        ]
        rows.append(("mean", _score(scores.authors), _score(scores.strict)))
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
    measure = "points" if unit == "points" else "share of the true class"
    return _table(("true \\ mapped", *names), rows, f"confusion, {measure}")


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
