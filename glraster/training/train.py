"""Train a model on a catalog: stages one after the other, validated and saved as they go."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from glraster._version import __version__
from glraster.config import ModelSpec
from glraster.errors import DeviceError
from glraster.labels.scenes import OpenScenes, warnings_once
from glraster.metrics import Confusion, class_iou, mean_iou
from glraster.model.checkpoint import load, save
from glraster.model.glnet import GLNet
from glraster.raster.source import gdal_session
from glraster.training.dataset import SampleForm, SampleSource
from glraster.training.ddp import joined
from glraster.training.fit import Fit, StepReport, mixed_precision, read_checkpoint
from glraster.training.folder import Bystander, RunFolder
from glraster.training.initial import Initial, with_classes
from glraster.training.job import TrainJob, TrainOptions, checked_job
from glraster.training.losses import make_loss
from glraster.training.stages import Stage, scale_guide, start_stage
from glraster.training.validate import bfloat16_agreement, validate

__all__ = ["TrainOptions", "TrainResult", "ValidationScore", "train"]

TRAINING_CACHE_BYTES = 2**30
"""Windows are drawn again and again: decoded blocks are worth keeping."""


@dataclass(frozen=True)
class ValidationScore:
    """A score on the validation split, of the model after `step` of a stage; IoU is None for absent classes."""

    stage: str
    step: int
    miou: float
    iou: tuple[float | None, ...]


@dataclass(frozen=True)
class TrainResult:
    """What a training made: the model file, its score, and what it took."""

    model: str
    best: ValidationScore
    steps: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)


PathLike = str | os.PathLike[str]

TrainCallback = Callable[[StepReport | ValidationScore], None]


def train(
    catalogs: PathLike | Sequence[PathLike],
    output: str | Path,
    options: TrainOptions | None = None,
    progress: TrainCallback | None = None,
) -> TrainResult:
    """Train a model on the train split of one or several catalogs and keep the best on their val split.

    In a process that torchrun started, the batch is divided among all of them, and the first one writes.

    Args:
        catalogs: a catalog file, or several, which are united by the names of their classes, see `catalog.union`.
        output: the run's folder; `model.safetensors` in it is for `segment`.
        options: see `TrainOptions`.
        progress: called after every step and validation.

    Raises:
        GlrasterError: for all a user can put right, before the first step where possible.

    Memory depends on the network, the tile and the batch, not on the size or number of the scenes.
    """
    started = time.perf_counter()
    options = options or TrainOptions()
    files = [catalogs] if isinstance(catalogs, str | os.PathLike) else catalogs
    with gdal_session(TRAINING_CACHE_BYTES), warnings_once(), joined() as team:
        folder = RunFolder(Path(output)) if team.first else Bystander(Path(output))
        try:
            run = _Run(checked_job([Path(file) for file in files], folder, options, team), folder)
            best = run.all_stages(progress or (lambda _: None))
        except KeyboardInterrupt as error:
            error.add_note(f"repeat the call with --resume to go on from the last epoch in {folder.path}")
            raise
        except torch.OutOfMemoryError as error:
            raise DeviceError("the GPU is out of memory; use a smaller --set batch or sub_batch") from error
        finally:
            folder.close()
    return TrainResult(str(folder.model), best, run.steps_done, time.perf_counter() - started)


class _Run:
    """One training from its first stage to its last."""

    def __init__(self, job: TrainJob, folder: RunFolder) -> None:
        self.job, self.folder = job, folder
        self.catalogs, self.recipe, self.team = job.catalogs, job.recipe, job.team
        self.initial, self.device = job.setup.initial, job.setup.device
        self.dtype = mixed_precision(self.device) if job.options.bfloat16 else torch.float32
        groups = [group.members for group in job.catalogs.groups]
        self.loss = make_loss(self.recipe.loss, job.data.class_weights, job.data.class_offsets, groups)
        self.steps_done = 0
        self._best: ValidationScore | None = None

    def all_stages(self, progress: TrainCallback) -> ValidationScore:
        torch.manual_seed(self.job.options.seed)
        spec = self.job.model_spec()
        start, model = self._initial_model(spec), None
        resumed = self._resumed_stage()
        for i, name in enumerate(self.recipe.stages):
            stage = self.recipe.stage(name)
            spec = replace(spec, architecture=replace(spec.architecture, mode=self.job.setup.mode(stage)))
            # drawn for skipped stages too, so that the weights of later stages do not depend on --stage
            next_model = self.initial.new_model(spec.architecture, self.recipe.spread)
            if name not in self.job.setup.stages:
                continue
            # the earlier stage last: it overwrites what it trained, and the start fills branches that it lacks
            for earlier in (start, model):
                if earlier is not None:
                    start_stage(next_model, earlier)
            model = next_model.to(self.device)
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if i >= resumed:
                self._fit(model, spec, stage, progress, restore=i == resumed and self.folder.last.exists())
                self.team.wait()
            if self.folder.stage_model(name).exists():
                model = load(self.folder.stage_model(name))[0]
        assert self._best is not None
        if self.team.first:
            self._compare_formats()
        self.team.wait()
        return self._best

    def _compare_formats(self) -> None:
        """Record in the finished model how stable its predictions are in bfloat16."""
        model, spec = load(self.folder.model)
        share = bfloat16_agreement(model.to(self.device), spec, self.catalogs.members("val"))
        save(model, replace(spec, bfloat16_agreement=round(share, 5)), self.folder.model)

    def _initial_model(self, spec: ModelSpec) -> GLNet | None:
        model, start = self.initial.model, self.initial.spec
        if model is None or start is None:
            return None
        names, start_names = [c.name for c in self.catalogs.classes], [c.name for c in start.classes]
        if names == start_names:
            return model
        fresh = Initial().new_model(replace(spec.architecture, mode=model.arch.mode), self.recipe.spread)
        return with_classes(model, start_names, names, fresh)

    def _resumed_stage(self) -> int:
        """The position of the stage that the checkpoint belongs to; 0 without a checkpoint."""
        if not self.folder.last.exists():
            return 0
        stage = read_checkpoint(self.folder.last).get("stage")
        return self.recipe.stages.index(stage) if stage in self.recipe.stages else 0

    def _fit(self, model: GLNet, spec: ModelSpec, stage: Stage, progress: TrainCallback, *, restore: bool) -> None:
        fit = Fit(model, stage, self.recipe, self.job.length(stage), self.team)
        if restore:
            fit.restore(self.folder.last)
        self.folder.begin_stage(stage.name, fit.step)
        self._best = self._best_of(fit) if restore else None
        form = SampleForm(
            spec.context_px, spec.thumbnail_px, spec.tile_px, None if stage.name == "full" else self.recipe.tiles
        )
        scenes = OpenScenes(self.catalogs.members("train"))
        seed = (self.job.options.seed, self.recipe.stages.index(stage.name))
        weights = self.job.scene_weights()
        with SampleSource(scenes, weights, spec, form, self.recipe.augmentation, seed) as source:
            for report in fit.run(source, self.loss, self.dtype):
                self.steps_done += 1
                self.folder.note_step(report)
                progress(report)
                if fit.ends_epoch:
                    progress(self._end_epoch(fit, spec))

    def _best_of(self, fit: Fit) -> ValidationScore | None:
        """The best score so far of a resumed stage. Checkpoints of older versions lack it; the metrics have it."""
        if fit.best is not None:
            return ValidationScore(**fit.best)
        stage, step = fit.stage.name, fit.step
        past = [
            ValidationScore(stage, r["step"], r["miou"], tuple(r["iou"]))
            for r in self.folder.validations(stage)
            if r["step"] <= step
        ]
        return max(past, key=lambda validation: validation.miou, default=None)

    def _candidates(self, fit: Fit) -> dict[float, GLNet]:
        """The models that a stage may end with, by trust in the guide; a later stage needs it as it was trained."""
        last = fit.stage.name == self.recipe.stages[-1]
        if not last or fit.model.arch.mode != "local":
            return {1.0: fit.averaged}
        return {share: fit.averaged if share == 1 else scale_guide(fit.averaged, share) for share in self.recipe.trust}

    def _end_epoch(self, fit: Fit, spec: ModelSpec) -> ValidationScore:
        models = self._candidates(fit)
        validations = {
            share: validate(model, spec, self.catalogs, self.dtype, self.team) for share, model in models.items()
        }
        means = {share: mean_iou(counts, self.catalogs.in_mean) for share, (counts, _) in validations.items()}
        trust = max(means, key=means.__getitem__)
        counts, window = validations[trust]
        scores = class_iou(counts)
        iou = tuple(None if math.isnan(score) else float(score) for score in scores)
        result = ValidationScore(fit.stage.name, fit.step, means[trust], iou)
        best = self._best is None or result.miou > self._best.miou
        if best:
            self._best, fit.best = result, asdict(result)
            finished = replace(spec, provenance=self._provenance(result, counts, trust))
            self.folder.keep_model(models[trust], finished, fit.stage.name)
        self.folder.note_validation(asdict(result), spec.classes)
        if window is not None:
            self.folder.draw(fit.stage.name, fit.step, window, spec)
        self.folder.save(fit, best=best)
        return result

    def _provenance(self, result: ValidationScore, counts: Confusion, trust: float) -> dict[str, object]:
        options = self.job.options
        return {
            "catalog": self.catalogs.name,
            "catalog_hash": self.catalogs.content_hash,
            "licence": self.catalogs.licence,
            "recipe": options.recipe,
            "settings": [*([f"arch={options.arch}"] if options.arch else []), *options.settings],
            "init": self.initial.identity,
            **({"pretrained": dict(self.initial.credit)} if self.initial.credit else {}),
            "stage": result.stage,
            "step": result.step,
            "trust": trust,
            "val_miou": round(result.miou, 4),
            "val_iou": {
                c.name: None if score is None else round(score, 4)
                for c, score in zip(self.catalogs.classes, result.iou, strict=True)
            },
            "val_pixels": int(counts.sum()),
            "date": datetime.now(UTC).date().isoformat(),
            "glraster": __version__,
        }
