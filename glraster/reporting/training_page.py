"""Read the folder of a training into a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import RasterioError

from glraster.config import LandClass, class_color
from glraster.errors import SceneError
from glraster.metrics.records import known
from glraster.model.checkpoint import read_spec
from glraster.reporting.pictures import Picture, photo
from glraster.reporting.provenance import origin, report_facts
from glraster.reporting.records import Page, Training, TrainingStage, Validation

_POINTS = 120
_PICTURES = 1


def training_page(folder: Path, command: str | None) -> Page:
    """The page of a training, finished or running, from its folder.

    Raises:
        SceneError: the folder holds no training.
    """
    metrics, settings = folder / "metrics.jsonl", folder / "settings.json"
    if not (metrics.exists() and settings.exists()):
        raise SceneError(f"{folder}: holds no training (metrics.jsonl); give a mask or the folder that 'train' wrote")
    records = _records(metrics)
    classes, facts = _classes(folder, records)
    stages = tuple(_stage(name, records) for name in dict.fromkeys(str(r["stage"]) for r in records))
    training = Training(stages, classes, tuple(_pictures(folder, stages)))
    provenance = {"Folder": str(folder.absolute()), **facts, **_settings(settings), **report_facts(command)}
    steps = sum(1 for r in records if r["kind"] == "step")
    subtitle = f"{steps} step{'' if steps == 1 else 's'} noted, stages: {', '.join(stage.name for stage in stages)}"
    return Page(title=folder.absolute().name, subtitle=subtitle, training=training, provenance=provenance)


def _records(metrics: Path) -> list[dict[str, Any]]:
    """The complete lines of a file that a training may be writing to."""
    records = []
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and {"kind", "stage", "step"} <= record.keys():
            records.append(record)
    if not records:
        raise SceneError(f"{metrics}: notes no step yet; wait for the first")
    return records


def _classes(folder: Path, records: Sequence[Mapping[str, Any]]) -> tuple[tuple[LandClass, ...], dict[str, str]]:
    """The classes and the provenance of the best model; before there is a model, numbers as class names."""
    model = folder / "model.safetensors"
    if model.exists():
        spec = read_spec(model)
        return spec.classes, origin(spec.provenance)
    count = max((len(r["iou"]) for r in records if r["kind"] == "validation"), default=0)
    return tuple(LandClass(i, f"class {i}", class_color(i)) for i in range(count)), {}


def _stage(name: str, records: Sequence[Mapping[str, Any]]) -> TrainingStage:
    own = [record for record in records if record["stage"] == name]
    losses = [(int(r["step"]), float(r["loss"])) for r in own if r["kind"] == "step"]
    scored = [
        Validation(name, int(r["step"]), _score(r["miou"]), tuple(map(_score, r["iou"])))
        for r in own
        if r["kind"] == "validation"
    ]
    return TrainingStage(name, _smooth([(step, loss) for step, loss in losses if math.isfinite(loss)]), tuple(scored))


def _score(value: float | None) -> float | None:
    return None if value is None else known(value)


def _smooth(losses: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Means of pieces of equal length, 120 at most; the last piece includes the remainder."""
    size = max(1, -(-len(losses) // _POINTS))
    starts = range(0, max(1, len(losses) - size + 1), size) if losses else range(0)
    pieces = [losses[i : i + size if i + 2 * size <= len(losses) else None] for i in starts]
    return tuple((piece[-1][0], sum(loss for _, loss in piece) / len(piece)) for piece in pieces)


def _pictures(folder: Path, stages: Sequence[TrainingStage]) -> list[tuple[str, Picture]]:
    """The last picture of every stage."""
    pictures = []
    for stage in stages:
        for path in sorted(folder.glob(f"{stage.name}_[0-9]*.png"))[-_PICTURES:]:
            try:
                with rasterio.open(path) as dataset:
                    pixels = dataset.read([1, 2, 3]).transpose(1, 2, 0)
            except RasterioError:
                continue  # the training may be writing it
            step = int(path.stem.rsplit("_", 1)[1])
            pictures.append((f"{stage.name} stage, after step {step}", photo(pixels.copy())))
    return pictures


def _settings(path: Path) -> dict[str, str]:
    settings = json.loads(path.read_text(encoding="utf-8"))
    return {"All settings": ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items())}
