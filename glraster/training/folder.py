"""A training's folder: settings, metrics, checkpoints, pictures and the model, readable while it runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError

from glraster.config import LandClass, ModelSpec
from glraster.errors import OutputError
from glraster.files import replacing
from glraster.locks import Lock
from glraster.model.checkpoint import save
from glraster.model.glnet import GLNet
from glraster.training.fit import Fit, StepReport
from glraster.training.log import EventLog, ScoredWindow, write_picture


class RunFolder:
    """The files of one training, locked by one process at a time.

    `settings.json` has the settings, `metrics.jsonl` a line per step and validation, `events/STAGE` the same for
    TensorBoard. `last.pt` is the checkpoint from which a training resumes, `best.pt` that of the best validation of a
    stage, `model.safetensors` the best model so far. Files are written in an order that a training can resume from,
    whenever it is killed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings, self.metrics = path / "settings.json", path / "metrics.jsonl"
        self.last, self.best, self.model = path / "last.pt", path / "best.pt", path / "model.safetensors"
        self._lock: Lock | None = None
        self._events: EventLog | None = None

    def stage_model(self, stage: str) -> Path:
        """The best model of one stage."""
        return self.path / f"model_{stage}.safetensors"

    def validations(self, stage: str) -> list[dict[str, Any]]:
        """The validations of a stage so far, from the metrics."""
        lines = self.metrics.read_text().splitlines(keepends=True) if self.metrics.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return [record for record in records if record["kind"] == "validation" and record["stage"] == stage]

    def start(self, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder, or check that it holds the same training.

        Raises:
            OutputError: if it holds a training and `resume` is off, or another training, or cannot be made, or
                another process trains in it.
        """
        new = json.loads(json.dumps(settings))
        if not self.settings.exists():
            names = (self.metrics, self.last, self.best, self.path / "report.html", self.model)
            in_the_way = [path.name for path in (*names, *self.path.glob("model_*.safetensors")) if path.exists()]
            if in_the_way:
                raise OutputError(f"{self.path}: holds {in_the_way[0]}, but no training; choose another folder")
            with self._writing():
                self.path.mkdir(parents=True, exist_ok=True)
                self._take_lock()
                with replacing(self.settings) as beside:
                    beside.write_text(json.dumps(new, indent=1))
            return
        if not resume:
            raise OutputError(f"{self.path}: holds a training; go on with --resume, or choose another folder")
        with self._writing():
            self._take_lock()
            for unfinished in self.path.glob(".*.tmp"):
                unfinished.unlink()
        old = self._read_settings()
        changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if changed:
            raise OutputError(
                f"{self.path}: holds another training, {', '.join(changed)} differ; choose another folder"
            )

    def _read_settings(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.settings.read_text()))
        except (ValueError, TypeError) as error:
            raise OutputError(
                f"{self.settings}: is damaged; choose another folder, where --init {self.model} goes on from the best "
                "model so far"
            ) from error

    def begin_stage(self, stage: str, step: int) -> None:
        """Prepare for the steps of a stage after `step`, and drop what the metrics have of them: they are repeated."""
        with self._writing():
            if self.metrics.exists():
                self._truncate_metrics(stage, step)
            self._close_events()
            self._events = EventLog(self.path / "events" / stage, step)

    def _truncate_metrics(self, stage: str, step: int) -> None:
        earlier = []
        for line in self.metrics.read_text().splitlines(keepends=True):
            record = json.loads(line) if line.endswith("\n") else None
            if record is None or (record["stage"] == stage and record["step"] > step):
                break
            earlier.append(line)
        with replacing(self.metrics) as beside:
            beside.write_text("".join(earlier))

    def note_step(self, report: StepReport) -> None:
        """Write the losses of a step to the metrics and curves."""
        terms = {name: sum(values) / len(values) for name, values in report.losses.terms.items()}
        record = {"kind": "step", "stage": report.stage, "step": report.step, "loss": report.losses.total}
        self._note(record | {"terms": terms, "learning_rate": report.learning_rate})
        curves = {"loss/total": report.losses.total, "learning_rate": report.learning_rate}
        self._plot(report.step, curves | {f"loss/{name}": value for name, value in terms.items()})

    def note_validation(self, record: Mapping[str, Any], classes: tuple[LandClass, ...]) -> None:
        """Write a score to the metrics and curves: `stage`, `step`, `miou`, and `iou` per class or None."""
        self._note({**record, "kind": "validation"})
        scores = zip(classes, record["iou"], strict=True)
        iou = {f"iou/{c.name}": score for c, score in scores if score is not None}
        self._plot(record["step"], {"miou": record["miou"], **iou})

    def save(self, fit: Fit, *, best: bool) -> None:
        """Write the checkpoint to resume from, and keep it if it is the best so far."""
        with self._writing():
            if self._events is not None:
                self._events.flush()
            fit.save(self.last)
            if best:
                _link(self.last, self.best)

    def close(self) -> None:
        """Close the event file and release the lock."""
        self._close_events()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _take_lock(self) -> None:
        advice = "wait for its end, or choose another folder"
        self._lock = Lock(self.path, busy="another process trains in this folder", advice=advice)

    def _close_events(self) -> None:
        if self._events is not None:
            events, self._events = self._events, None
            with self._writing():
                events.close()

    def _note(self, record: Mapping[str, Any]) -> None:
        with self._writing(), self.metrics.open("a") as stream:
            stream.write(json.dumps(record) + "\n")

    def _plot(self, step: int, curves: Mapping[str, float]) -> None:
        if self._events is not None:
            with self._writing():
                self._events.add_scalars(step, curves)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn a full disk or a missing permission into an OutputError; files that were complete before stay."""
        try:
            yield
        except (OSError, RasterioError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise OutputError(
                f"{self.path}: cannot be written: {reason}; make room or correct its permissions, then go on "
                "with --resume"
            ) from error

    def draw(self, stage: str, step: int, window: ScoredWindow, spec: ModelSpec) -> None:
        """Write a picture of a validation."""
        path = self.path / f"{stage}_{step:06d}.png"
        with self._writing():
            size = write_picture(path, window, spec.classes, spec.scale)
            if self._events is not None:
                self._events.add_picture(step, "validation", path, size)

    def keep_model(self, model: GLNet, spec: ModelSpec, stage: str) -> None:
        """Write the best model of a stage so far; until the next stage it is the best of the training."""
        for path in (self.stage_model(stage), self.model):
            save(model, spec, path)


class Bystander(RunFolder):
    """The folder as seen by the other processes of a team, which read and never write."""

    def start(self, settings: Mapping[str, Any], *, resume: bool) -> None: ...
    def begin_stage(self, stage: str, step: int) -> None: ...
    def note_step(self, report: StepReport) -> None: ...
    def note_validation(self, record: Mapping[str, Any], classes: tuple[LandClass, ...]) -> None: ...
    def save(self, fit: Fit, *, best: bool) -> None: ...
    def draw(self, stage: str, step: int, window: ScoredWindow, spec: ModelSpec) -> None: ...
    def keep_model(self, model: GLNet, spec: ModelSpec, stage: str) -> None: ...


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it if the file system has no hard links."""
    with replacing(target) as beside:
        beside.unlink(missing_ok=True)
        try:
            beside.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, beside)
