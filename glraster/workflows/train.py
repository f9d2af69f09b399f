"""Train a model on a catalog: stages one after the other, validated and saved as they go."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from glraster._version import __version__
from glraster.catalog import Catalog, Pair, load_catalog
from glraster.config import Architecture, ModelSpec
from glraster.errors import CatalogError, UsageError
from glraster.infer.device import choose_device
from glraster.metrics import Confusion, class_iou, mean_iou
from glraster.model.checkpoint import load, model_id, save
from glraster.model.glnet import GLNet
from glraster.raster.grid import STRIDE
from glraster.raster.opening import gdal_session
from glraster.raster.reader import Scene
from glraster.train.check import check_catalog
from glraster.train.dataset import SampleForm, SampleSource
from glraster.train.fit import Fit, Length, StepReport, read_checkpoint
from glraster.train.folder import RunFolder
from glraster.train.losses import make_loss
from glraster.train.recipes import choose_recipe
from glraster.train.stages import Stage, start_stage
from glraster.workflows.validate import validate

TRAINING_CACHE_BYTES = 2**30
"""Windows are drawn again and again: decoded blocks are worth keeping."""


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Attributes:
        recipe: "fast" or "paper". settings: `key=value` texts that change it.
        init: a model file to start from. bfloat16: convolutions in bfloat16.
        resume: go on with a training that stopped. device: auto, cpu, cuda, cuda:N. seed: decides weights and samples.
    """

    recipe: str = "fast"
    settings: tuple[str, ...] = ()
    init: Path | None = None
    bfloat16: bool = False
    resume: bool = False
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class Validation:
    """A score on the validation split, of the model after `step` of a stage; IoU is None for absent classes."""

    stage: str
    step: int
    miou: float
    iou: tuple[float | None, ...]


@dataclass(frozen=True)
class TrainResult:
    """What a training made: the model file, its score, and what it took."""

    model: str
    best: Validation
    steps: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)


TrainCallback = Callable[[StepReport | Validation], None]


def train(
    catalog: str | Path, output: str | Path, options: TrainOptions | None = None, progress: TrainCallback | None = None
) -> TrainResult:
    """Train a model on the train split of a catalog and keep the best on its val split.

    Args:
        catalog: a catalog file.
        output: the run's folder; `model.safetensors` in it is for `segment`.
        options: see `TrainOptions`.
        progress: called after every step and validation.

    Raises:
        GlrasterError: for all a user can put right, before the first step where possible.

    Memory depends on the network, the tile and the batch, not on the size of the scenes; every scene stays open, and a
    sample of its values is held for the statistics.
    """
    started = time.perf_counter()
    chosen = options or TrainOptions()
    with gdal_session(TRAINING_CACHE_BYTES):
        run = _Run(load_catalog(Path(catalog)), RunFolder(Path(output)), chosen, progress or (lambda _: None))
        try:
            best = run.all_stages()
        except KeyboardInterrupt as error:
            error.add_note(f"repeat the call with --resume to go on from the last epoch in {run.folder.path}")
            raise
    return TrainResult(str(run.folder.model), best, run.steps_done, time.perf_counter() - started)


class _Run:
    """One training from its first stage to its last."""

    def __init__(self, catalog: Catalog, folder: RunFolder, options: TrainOptions, progress: TrainCallback) -> None:
        self.recipe = choose_recipe(options.recipe, options.settings)
        self.catalog, self.folder, self.options, self.progress = catalog, folder, options, progress
        self.device = choose_device(options.device)
        self.steps_done = 0
        self._best: Validation | None = None
        self._check()
        settings = {**asdict(self.recipe), "seed": options.seed, "catalog": catalog.content_hash}
        settings["init"] = model_id(options.init) if options.init else None
        folder.start({**settings, "bfloat16": options.bfloat16}, resume=options.resume)

    def _check(self) -> None:
        check_catalog(self.catalog).require_sound(self.catalog.source)
        if not self.catalog.train or not self.catalog.val:
            raise CatalogError("needs a train and a val split", source=self.catalog.source)
        make_loss(self.recipe.loss)
        context, tile = self.catalog.context_px, self.recipe.tile_px
        if context < tile:
            raise UsageError(f"tile_px {tile} is larger than the context of {context} px")
        if context % STRIDE or tile % STRIDE or tile < 4 * STRIDE:
            raise UsageError(
                f"tile_px {tile} and context_px {context} must be multiples of {STRIDE}, from {4 * STRIDE}"
            )

    def all_stages(self) -> Validation:
        torch.manual_seed(self.options.seed)
        spec = self._spec(self.recipe.mode)
        model: GLNet | None = load(self.options.init)[0] if self.options.init else None
        resumed = self._resumed_stage()
        for i, name in enumerate(self.recipe.stages):
            stage = self.recipe.stage(name)
            mode = self.recipe.mode if self.recipe.mode in stage.modes else stage.modes[0]
            spec = replace(spec, architecture=replace(spec.architecture, mode=mode))
            following = _new_model(spec.architecture, self.recipe.spread)
            if model is not None:
                start_stage(following, model)
            model = following.to(self.device)
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if i >= resumed:
                self._fit(model, spec, stage, restore=i == resumed and self.folder.last.exists())
                model = load(self.folder.stage_model(name))[0]
            elif self.folder.stage_model(name).exists():
                model = load(self.folder.stage_model(name))[0]
        assert self._best is not None
        return self._best

    def _resumed_stage(self) -> int:
        """The position of the stage that a checkpoint is of; the first where there is none."""
        if not self.folder.last.exists():
            return 0
        stage = read_checkpoint(self.folder.last).get("stage")
        return self.recipe.stages.index(stage) if stage in self.recipe.stages else 0

    def _fit(self, model: GLNet, spec: ModelSpec, stage: Stage, *, restore: bool) -> None:
        self._best = None
        fit = Fit(model, stage, self.recipe, self._length(stage))
        if restore:
            fit.restore(self.folder.last)
        self.folder.forget_after(stage.name, fit.step)
        if restore:
            past = [
                Validation(stage.name, r["step"], r["miou"], tuple(r["iou"]))
                for r in self.folder.validations(stage.name)
            ]
            self._best = max(past, key=lambda validation: validation.miou, default=None)
        form = SampleForm(
            spec.context_px, spec.thumbnail_px, spec.tile_px, None if stage.name == "full" else self.recipe.tiles
        )
        dtype = torch.bfloat16 if self.options.bfloat16 else torch.float32
        loss = make_loss(self.recipe.loss)
        pairs, how = self.catalog.train, self.recipe.augmentation
        with SampleSource(self.catalog, pairs, spec, form, how, self.options.seed) as source:
            for report in fit.run(source, loss, dtype):
                self.steps_done += 1
                self.folder.note(_record(report))
                self.progress(report)
                if fit.ends_epoch:
                    self._end_epoch(fit, spec, dtype)

    def _end_epoch(self, fit: Fit, spec: ModelSpec, dtype: torch.dtype) -> None:
        counts, seen = validate(fit.averaged, spec, self.catalog, self.catalog.val, dtype)
        scores = class_iou(counts)
        iou = tuple(None if math.isnan(score) else float(score) for score in scores)
        result = Validation(fit.stage.name, fit.step, mean_iou(counts, self.catalog.in_mean), iou)
        if self._best is None or result.miou > self._best.miou:
            self._best = result
            fit.best = result.miou
            finished = replace(spec, provenance=self._provenance(result, counts))
            save(fit.averaged, finished, self.folder.stage_model(fit.stage.name))
            save(fit.averaged, finished, self.folder.model)
        self.folder.note({**asdict(result), "kind": "validation"})
        if seen is not None:
            name = f"{fit.stage.name}_{fit.step:06d}.png"
            self.folder.draw(name, seen.image, seen.truth, seen.prediction, spec.classes, spec.scale)
        fit.save(self.folder.last)
        self.progress(result)

    def _length(self, stage: Stage) -> Length:
        epoch = self.recipe.steps_per_epoch or math.ceil(self._context_windows() / self.recipe.batch)
        return Length(self.recipe.steps or stage.epochs * epoch, epoch)

    def _context_windows(self) -> int:
        """Contexts that the training pixels would fill."""
        pixels = sum(_area(pair, self.catalog) for pair in self.catalog.train)
        return max(1, round(pixels / self.catalog.context_px**2))

    def _spec(self, mode: Any) -> ModelSpec:
        recipe, catalog = self.recipe, self.catalog
        dtype, mean, std = _statistics(catalog)
        scale = float(np.iinfo(dtype).max) if np.issubdtype(np.dtype(dtype), np.integer) else 1.0
        return ModelSpec(
            architecture=Architecture(
                mode, catalog.bands, len(catalog.classes), recipe.backbone, recipe.width, recipe.stem
            ),
            classes=catalog.classes,
            dtype=dtype,
            scale=scale,
            mean=tuple(m / scale for m in mean) if recipe.normalise else (0.0,),
            std=tuple(max(s / scale, 1e-6) for s in std) if recipe.normalise else (1.0,),
            gsd_m=catalog.gsd_m,
            context_px=catalog.context_px,
            tile_px=recipe.tile_px,
            thumbnail_px=recipe.thumbnail_px,
        )

    def _provenance(self, result: Validation, counts: Confusion) -> dict[str, object]:
        return {
            "catalog": self.catalog.name,
            "catalog_hash": self.catalog.content_hash,
            "licence": self.catalog.licence,
            "recipe": self.options.recipe,
            "settings": list(self.options.settings),
            "stage": result.stage,
            "step": result.step,
            "val_miou": round(result.miou, 4),
            "val_iou": {
                c.name: None if score is None else round(score, 4)
                for c, score in zip(self.catalog.classes, result.iou, strict=True)
            },
            "val_pixels": int(counts.sum()),
            "date": datetime.now(UTC).date().isoformat(),
            "glraster": __version__,
        }


def _new_model(architecture: Architecture, spread: float) -> GLNet:
    model = GLNet(architecture)
    if spread:
        for name, weight in model.named_parameters():
            if weight.dim() == 4 and ".backbone." not in name:
                nn.init.normal_(weight, std=spread / math.sqrt(weight[0].numel()))
    return model


def _statistics(catalog: Catalog) -> tuple[str, Sequence[float], Sequence[float]]:
    """Dtype, and mean and standard deviation per band, of the training scenes."""
    values, dtypes = [], set()
    for pair in catalog.train:
        with Scene(pair.image, catalog.indexes, catalog.bands) as scene:
            values.append(scene.sample(side=64, count=4).astype(np.float64))
            dtypes.add(scene.dtype)
    if len(dtypes) > 1:
        raise CatalogError(f"images differ in dtype: {', '.join(sorted(dtypes))}", source=catalog.source)
    joined = np.concatenate(values, axis=1)
    return dtypes.pop(), joined.mean(axis=1).tolist(), joined.std(axis=1).tolist()


def _area(pair: Pair, catalog: Catalog) -> int:
    if pair.window is not None:
        return pair.window[2] * pair.window[3]
    with Scene(pair.image, catalog.indexes, catalog.bands) as scene:
        return scene.extent.size


def _record(report: StepReport) -> dict[str, object]:
    return {
        "kind": "step",
        "stage": report.stage,
        "step": report.step,
        "loss": report.losses.total,
        "terms": {name: sum(values) / len(values) for name, values in report.losses.terms.items()},
        "learning_rate": report.learning_rate,
    }
