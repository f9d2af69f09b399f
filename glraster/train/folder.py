"""A training's folder: settings, metrics, checkpoints, pictures and the model, readable while it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from glraster.config import LandClass
from glraster.errors import OutputError


class RunFolder:
    """The files of one training.

    `settings.json` is what was asked for, `metrics.jsonl` has a line per step and validation, `last.pt` is the
    checkpoint that a resumed training goes on from, `model.safetensors` the best model so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings, self.metrics = path / "settings.json", path / "metrics.jsonl"
        self.last, self.model = path / "last.pt", path / "model.safetensors"

    def stage_model(self, stage: str) -> Path:
        """The best model of one stage."""
        return self.path / f"model_{stage}.safetensors"

    def validations(self, stage: str) -> list[dict[str, Any]]:
        """The validations of a stage so far, as they were noted."""
        lines = self.metrics.read_text().splitlines() if self.metrics.exists() else []
        records = [json.loads(line) for line in lines]
        return [record for record in records if record["kind"] == "validation" and record["stage"] == stage]

    def start(self, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder, or check that it holds the same training.

        Raises:
            OutputError: where it holds one and `resume` is not asked for, or another one, or cannot be made.
        """
        told = json.loads(json.dumps(settings))
        if not self.settings.exists():
            names = (self.metrics, self.last, self.model)
            in_the_way = [path.name for path in names if path.exists()]
            if in_the_way:
                raise OutputError(f"{self.path}: holds {in_the_way[0]}, but no training; choose another folder")
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                temporary = self.settings.with_suffix(".tmp")
                temporary.write_text(json.dumps(told, indent=1))
                temporary.replace(self.settings)
            except OSError as error:
                raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error
            return
        if not resume:
            raise OutputError(f"{self.path}: holds a training; go on with --resume, or choose another folder")
        known = json.loads(self.settings.read_text())
        changed = [key for key in {**known, **told} if known.get(key) != told.get(key)]
        if changed:
            raise OutputError(
                f"{self.path}: holds another training, {', '.join(changed)} differ; choose another folder"
            )

    def forget_after(self, stage: str, step: int) -> None:
        """Drop the metrics of steps that a resumed training will do again."""
        if not self.metrics.exists():
            return
        lines = self.metrics.read_text().splitlines(keepends=True)
        kept = []
        for line in lines:
            record = json.loads(line) if line.endswith("\n") else None
            if record is None or (record["stage"] == stage and record["step"] > step):
                break
            kept.append(line)
        temporary = self.metrics.with_suffix(".tmp")
        temporary.write_text("".join(kept))
        temporary.replace(self.metrics)

    def note(self, record: Mapping[str, Any]) -> None:
        """Add a line to the metrics."""
        with self.metrics.open("a") as stream:
            stream.write(json.dumps(record) + "\n")

    def draw(
        self,
        name: str,
        image: npt.NDArray[Any],
        truth: npt.NDArray[np.uint8],
        prediction: npt.NDArray[np.uint8],
        classes: tuple[LandClass, ...],
        scale: float,
    ) -> None:
        """Write image (bands, H, W), truth and prediction (H, W) side by side as a PNG of at most 1536 px width."""
        step = max(1, -(-3 * image.shape[2] // 1536))
        bands = image[[0, 1, 2] if len(image) >= 3 else [0, 0, 0], ::step, ::step]
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(classes)] = [c.color for c in classes]
        pictures = [np.clip(bands * (255 / scale), 0, 255).astype(np.uint8)]
        pictures += [colours[labels[::step, ::step]].transpose(2, 0, 1) for labels in (truth, prediction)]
        joined = np.concatenate(pictures, axis=2)
        profile = {"driver": "PNG", "count": 3, "dtype": "uint8", "height": joined.shape[1], "width": joined.shape[2]}
        with rasterio.open(self.path / name, "w", **profile) as png:
            png.write(joined)
