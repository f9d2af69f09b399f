"""How results look on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glraster.segmentation.plan import Estimate
    from glraster.segmentation.scenes import SceneProgress
    from glraster.segmentation.segment import ClassArea, Progress, SegmentResult
    from glraster.training.train import TrainResult

_PHASES = {"windows": "segmenting", "writing": "writing"}


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A bar on stderr with MPx/s and the time left; nothing where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {phase: bar.add_task(text, start=False, visible=False, rate="") for phase, text in _PHASES.items()}

        def show(progress: Progress) -> None:
            task = bar.tasks[tasks[progress.phase]]
            if not task.started:
                bar.start_task(task.id)
            speed = f"{task.speed / 1e6:.2f} MPx/s" if task.speed else ""
            bar.update(task.id, completed=progress.done, total=progress.total, visible=True, rate=speed)

        yield show


@contextmanager
def scenes_bar(quiet: bool) -> Iterator[Callable[[SceneProgress], None]]:
    """A bar on stderr that counts scenes, with what the scene does that was heard of last; nothing without terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("scenes"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[at]}"))
    console = Console(stderr=True)
    # what is printed meanwhile must reach stdout where that is a file
    with Bar(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=None, at="")

        def show(found: SceneProgress) -> None:
            share = 100 * found.progress.done // max(1, found.progress.total)
            at = f"{Path(found.scene).name} {_PHASES[found.progress.phase]} {share} %"
            bar.update(task, completed=found.ended, total=found.scenes, at=escape(at))

        yield show


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


def _area(found: ClassArea) -> str:
    if found.area_m2 is None:
        return f"{found.pixels} px"
    return f"{found.area_m2 / 1e4:.2f} ha" if found.area_m2 < 1e8 else f"{found.area_m2 / 1e6:.1f} km²"


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
