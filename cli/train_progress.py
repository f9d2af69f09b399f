"""How a training looks while it runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .terminal import duration

if TYPE_CHECKING:
    from glraster.training.fit import StepReport
    from glraster.training.train import ValidationScore

_STEPS, _SECONDS = 50, 30
"""Between two plain lines, whichever is reached first."""

Show = Callable[["StepReport | ValidationScore"], None]


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
    """How fast the steps of one stage go; validations count."""

    stage: str = ""
    started: float = 0.0
    first: int = 0
    last_miou: float | None = None
    best_miou: float | None = None

    def step(self, report: StepReport) -> float | None:
        """Seconds left in the stage; None while nobody can tell."""
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

    pace, told = _Pace(), 0.0

    def show(progress: StepReport | ValidationScore) -> None:
        nonlocal told
        if isinstance(progress, Scored):
            pace.validation(progress)
            print(_scored(progress), file=sys.stderr, flush=True)
            return
        seconds = pace.step(progress)
        due = progress.step % _STEPS == 0 or progress.step == progress.steps
        if not due and time.monotonic() - told < _SECONDS:
            return
        told = time.monotonic()
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
