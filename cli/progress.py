"""Progress on stderr while a command runs: bars on a terminal; a training prints plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .terminal import duration

if TYPE_CHECKING:
    from glraster.segmentation.scenes import SceneProgress
    from glraster.segmentation.segment import Progress
    from glraster.training.fit import StepReport
    from glraster.training.train import ValidationScore

log = logging.getLogger("glraster")

_PHASES = {"windows": "segmenting", "writing": "writing"}
_STEPS, _SECONDS = 50, 30
"""A training prints a plain line after so many steps or seconds, whichever comes first."""

Show = Callable[["StepReport | ValidationScore"], None]


@contextmanager
def windows_bar(quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A bar on stderr with MPx/s and the time left; nothing if stderr is no terminal."""
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
    """A bar on stderr that counts scenes and shows the latest progress; nothing if stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("scenes"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[at]}"))
    console = Console(stderr=True)
    # if stdout is a file, lines printed meanwhile must go there and not into the bar
    with Bar(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=None, at="")

        def show(latest: SceneProgress) -> None:
            share = 100 * latest.progress.done // max(1, latest.progress.total)
            at = f"{Path(latest.scene).name} {_PHASES[latest.progress.phase]} {share} %"
            bar.update(task, completed=latest.ended, total=latest.scenes, at=escape(at))

        yield show


@contextmanager
def rows_bar(quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr that counts rows of a mask; nothing if stderr is no terminal. It says when code is compiled."""
    from glraster.vector.compiled import first_compilation

    if quiet or not sys.stderr.isatty():
        with first_compilation(log.info):
            yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, transient=True) as bar, first_compilation(console.print):
        task = bar.add_task("vectorizing")
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def training_progress(quiet: bool) -> Iterator[Show | None]:
    """Stage, step, loss, learning rate, time left in the stage, best and last mIoU, on stderr."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _lines()


@dataclass
class _Pace:
    """The speed of one stage, validations included, and its scores."""

    stage: str = ""
    started: float = 0.0
    first: int = 0
    last_miou: float | None = None
    best_miou: float | None = None

    def step(self, report: StepReport) -> float | None:
        """Seconds left in the stage; None before its second step."""
        now = time.monotonic()
        if report.stage != self.stage:
            self.stage, self.started, self.first = report.stage, now, report.step
            self.last_miou = self.best_miou = None
        done = report.step - self.first
        return (now - self.started) / done * (report.steps - report.step) if done else None

    def validation(self, result: ValidationScore) -> None:
        self.last_miou = result.miou
        self.best_miou = result.miou if self.best_miou is None else max(self.best_miou, result.miou)

    @property
    def scores(self) -> str:
        if self.last_miou is None or self.best_miou is None:
            return ""
        return f"mIoU {self.last_miou:.4f} (best {self.best_miou:.4f})"


def _measured(report: StepReport) -> str:
    return f"loss {report.losses.total:.4f}, rate {report.learning_rate:.1e}"


def _scored(result: ValidationScore) -> str:
    iou = " ".join("-" if score is None else f"{score:.3f}" for score in result.iou)
    return f"{result.stage} {result.step}: validation mIoU {result.miou:.4f} ({iou})"


def _lines() -> Show:
    from glraster.training.train import ValidationScore as Scored

    pace, printed = _Pace(), 0.0

    def show(progress: StepReport | ValidationScore) -> None:
        nonlocal printed
        if isinstance(progress, Scored):
            pace.validation(progress)
            print(_scored(progress), file=sys.stderr, flush=True)
            return
        seconds = pace.step(progress)
        due = progress.step % _STEPS == 0 or progress.step == progress.steps
        if not due and time.monotonic() - printed < _SECONDS:
            return
        printed = time.monotonic()
        parts = [f"{progress.stage} {progress.step}/{progress.steps}", _measured(progress)]
        parts += [f"{duration(seconds)} left"] if seconds is not None else []
        parts += [pace.scores] if pace.scores else []
        print(", ".join(parts), file=sys.stderr, flush=True)

    return show


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from glraster.training.train import ValidationScore as Scored

    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(bar_width=24)]
    columns += [TextColumn(f"{{task.fields[{name}]}}") for name in ("steps", "measured", "left", "scores")]
    pace = _Pace()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("preparing", total=None, steps="", measured="", left="", scores="")

        def show(progress: StepReport | ValidationScore) -> None:
            if isinstance(progress, Scored):
                pace.validation(progress)
                console.print(_scored(progress), highlight=False)
                bar.update(task, scores=pace.scores)
                return
            seconds = pace.step(progress)
            bar.update(
                task,
                description=progress.stage,
                completed=progress.step,
                total=progress.steps,
                steps=f"{progress.step}/{progress.steps}",
                measured=_measured(progress),
                left="" if seconds is None else f"{duration(seconds)} left",
                scores=pace.scores,
            )

        yield show
