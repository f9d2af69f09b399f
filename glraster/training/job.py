"""Check a call of `train` before anything is computed: options in, a checked job out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glraster.catalog import CatalogUnion, Split, load_catalog, unite
from glraster.config import Architecture, Mode, ModelSpec
from glraster.errors import UsageError
from glraster.labels.check import check_catalog
from glraster.raster.grid import STRIDE, Window
from glraster.raster.reader import Scene
from glraster.segmentation.device import choose_device
from glraster.training.ddp import Team, own_device
from glraster.training.fit import Length, check_division
from glraster.training.folder import RunFolder
from glraster.training.initial import Initial, architecture_of, normalisation, read_initial
from glraster.training.losses import make_loss
from glraster.training.recipes import NETWORK_KEYS, Recipe, architecture_settings, choose_recipe
from glraster.training.stages import STAGES, Stage
from glraster.training.survey import (
    ImageStatistics,
    ImageSurvey,
    class_offsets,
    class_pixels,
    class_weights,
    steps_to_see_all,
)

log = logging.getLogger(__name__)

_MODES: tuple[Mode, ...] = ("global", "local", "full")
"""Each has all branches of the ones before it."""


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Attributes:
        recipe: "fast" or "paper". settings: `key=value` texts that change it. arch: the same for the network, in short.
        init: a model or backbone file to start from, "imagenet", or None for new weights.
        stages: only these of the recipe's; all if empty.
        offline: never download ImageNet weights.
        bfloat16: convolutions in bfloat16 (float16 on GPUs without it).
        resume: continue a training that stopped.
        device: auto, cpu, cuda, cuda:N.
        seed: decides initial weights and samples.
    """

    recipe: str = "fast"
    settings: tuple[str, ...] = ()
    arch: str | None = None
    init: str | Path | None = None
    stages: tuple[str, ...] = ()
    offline: bool = False
    bfloat16: bool = False
    resume: bool = False
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class TrainingSetup:
    """What a call asks for: the recipe, which of its stages are trained, what weights begin as, and the device."""

    recipe: Recipe
    stages: tuple[str, ...]
    initial: Initial
    device: torch.device

    def mode(self, stage: Stage) -> Mode:
        """The mode of the network that a stage trains."""
        return self.recipe.mode if self.recipe.mode in stage.modes else stage.modes[0]


@dataclass(frozen=True)
class DataSummary:
    """What the data look like: statistics of the images, and the classes' weights in the loss and offsets of logits."""

    images: ImageStatistics
    class_weights: tuple[float, ...] | None
    class_offsets: tuple[float, ...] | None

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> DataSummary:
        """Read what `asdict` made of one."""
        weights, offsets = (record[key] and tuple(record[key]) for key in ("class_weights", "class_offsets"))
        return cls(ImageStatistics.from_json(record["images"]), weights, offsets)


@dataclass(frozen=True)
class TrainJob:
    """A checked call of `train`, the same in every process of the team."""

    catalogs: CatalogUnion
    options: TrainOptions
    setup: TrainingSetup
    data: DataSummary
    team: Team

    @property
    def recipe(self) -> Recipe:
        return self.setup.recipe

    def model_spec(self) -> ModelSpec:
        """The description of the model of the last stage; the earlier ones differ in their mode."""
        recipe, catalogs, images = self.recipe, self.catalogs, self.data.images
        scale = float(np.iinfo(images.dtype).max) if np.issubdtype(np.dtype(images.dtype), np.integer) else 1.0
        spec = ModelSpec(
            architecture=_architecture(recipe.mode, catalogs, recipe),
            classes=catalogs.classes,
            dtype=images.dtype,
            scale=scale,
            mean=tuple(m / scale for m in images.mean) if recipe.normalise else (0.0,),
            std=tuple(max(s / scale, 1e-6) for s in images.std) if recipe.normalise else (1.0,),
            gsd_m=catalogs.gsd_m,
            context_px=catalogs.context_px,
            tile_px=recipe.tile_px,
            thumbnail_px=recipe.thumbnail_px,
        )
        return normalisation(spec, self.setup.initial)

    def length(self, stage: Stage) -> Length:
        """How long a stage is."""
        every = steps_to_see_all(self.data.images.pixels, self.catalogs.context_px, self.recipe.batch)
        epoch = self.recipe.steps_per_epoch or every
        return Length(self.recipe.steps or stage.epochs * epoch, epoch)

    def scene_weights(self) -> tuple[float, ...]:
        """How often each training scene is drawn, relative to the others."""
        weights = np.sqrt(self.data.images.areas)
        counts = [len(catalog.train) for catalog in self.catalogs.catalogs]
        stops = np.cumsum(counts).tolist()
        for count, stop, share in zip(counts, stops, self.recipe.shares, strict=bool(self.recipe.shares)):
            own = slice(stop - count, stop)
            weights[own] *= share / weights[own].sum()
        return tuple(weights.tolist())


def checked_job(paths: Sequence[Path], folder: RunFolder, options: TrainOptions, team: Team) -> TrainJob:
    """Check a call and make its folder.

    Every process reads the catalog and the weights to start from; the first one does so before the others, so that a
    mistake is reported once, and it alone opens the images and labels.

    Raises:
        GlrasterError: for everything a user can put right.
    """
    catalogs, setup = team.first_then_all(lambda: _read_call(paths, options, team))

    def check_files() -> dict[str, Any]:
        data = summarise(catalogs, setup.recipe)
        folder.start(_settings(catalogs, options, setup), resume=options.resume)
        return asdict(data)

    data = DataSummary.from_json(team.from_first(check_files))
    return TrainJob(catalogs, options, setup, data, team)


def _read_call(paths: Sequence[Path], options: TrainOptions, team: Team) -> tuple[CatalogUnion, TrainingSetup]:
    catalogs = unite(*(load_catalog(path) for path in paths))
    device = own_device(choose_device(options.device))
    recipe = _choose_recipe(options)
    _check_sizes(catalogs, recipe)
    _check_labels(catalogs, recipe)
    initial = read_initial(options.init, _architecture("full", catalogs, recipe), offline=options.offline)
    if initial.model is not None and (initial.model.guide is None) != (recipe.mode == "tiles"):
        raise UsageError(
            f"a training of mode {recipe.mode} cannot start from a model of mode {initial.model.arch.mode}; "
            "choose another --init or --arch mode"
        )
    setup = TrainingSetup(recipe, options.stages or recipe.stages, initial, device)
    _check_stages(setup)
    for name in setup.stages:
        stage = recipe.stage(name)
        check_division(setup.mode(stage), stage, recipe, team)
    return catalogs, setup


def _settings(catalogs: CatalogUnion, options: TrainOptions, setup: TrainingSetup) -> dict[str, Any]:
    """Everything that decides the weights, as JSON values."""
    return {
        **asdict(setup.recipe),
        "stages": setup.stages,
        "seed": options.seed,
        "catalog": catalogs.content_hash,
        "init": setup.initial.identity,
        "bfloat16": options.bfloat16,
    }


def summarise(catalogs: CatalogUnion, recipe: Recipe) -> DataSummary:
    """Open every file of the catalogs once, check it, and measure what a training needs to know.

    Raises:
        CatalogError: with everything that prevents training.
        UsageError: if the recipe's class weights do not fit the classes.
    """
    members = catalogs.members("train")
    survey, pixels = ImageSurvey(catalogs.bands, len(members)), np.zeros(256, np.int64)
    for catalog, labels in zip(catalogs.catalogs, catalogs.labels, strict=True):
        first = len(survey.areas)

        def visit(split: Split, number: int, scene: Scene, area: Window, first: int = first) -> None:
            if split == "train":
                survey.add(first + number, scene, area)

        report = check_catalog(catalog, visit)
        report.require_sound(catalog.source)
        counted = next(split.classes for split in report.splits if split.name == "train")
        np.add.at(pixels, list(labels), [c.pixels for c in counted])
    classes = class_pixels(catalogs, pixels.tolist())
    if recipe.coarse_to_fine and classes[1].share > 0.5:
        log.warning(
            "coarse_to_fine looks for %s, the second class, which covers %.0f %% of the labels; it is meant for a rare "
            "class",
            *(classes[1].name, 100 * classes[1].share),
        )
    weights = class_weights(recipe.class_weights, classes)
    make_loss(recipe.loss, weights)
    return DataSummary(survey.statistics(catalogs.source), weights, class_offsets(recipe.adjust, classes))


def _architecture(mode: Mode, catalogs: CatalogUnion, recipe: Recipe) -> Architecture:
    return Architecture(mode, catalogs.bands, len(catalogs.classes), recipe.backbone, recipe.width, recipe.stem)


def _choose_recipe(options: TrainOptions) -> Recipe:
    settings = (*(architecture_settings(options.arch) if options.arch else ()), *options.settings)
    recipe = choose_recipe(options.recipe, settings)
    make_loss(recipe.loss)
    start = architecture_of(options.init)
    if start is not None:
        named = {setting.partition("=")[0] for setting in settings}
        inherited = [key for key in NETWORK_KEYS if key != "mode" and key not in named]
        recipe = replace(recipe, **{key: getattr(start, key) for key in inherited})
    return recipe


def _check_sizes(catalogs: CatalogUnion, recipe: Recipe) -> None:
    context, tile = catalogs.context_px, recipe.tile_px
    if context < tile:
        raise UsageError(f"tile_px {tile} is larger than the context of {context} px")
    if context % STRIDE or tile % STRIDE or tile < 4 * STRIDE:
        raise UsageError(f"tile_px {tile} and context_px {context} must be multiples of {STRIDE}, from {4 * STRIDE}")


def _check_labels(catalogs: CatalogUnion, recipe: Recipe) -> None:
    if recipe.coarse_to_fine and (len(catalogs.classes) != 2 or catalogs.groups):
        raise UsageError(f"coarse_to_fine is for two classes, the catalog has {len(catalogs.classes)}; leave it out")
    if recipe.shares and len(recipe.shares) != len(catalogs.catalogs):
        raise UsageError(
            f"shares has {len(recipe.shares)} numbers for {len(catalogs.catalogs)} catalogs; give one each"
        )


def _check_stages(setup: TrainingSetup) -> None:
    """Every stage but the first starts from the one before it: trained here, or in the file to start from."""
    order = setup.recipe.stages
    unknown = [name for name in setup.stages if name not in order]
    if unknown:
        raise UsageError(f"--stage {unknown[0]!r} is none of the recipe's stages: {', '.join(order)}")
    if list(setup.stages) != sorted(set(setup.stages), key=order.index):
        raise UsageError(f"--stage names each stage once and in the recipe's order: {', '.join(order)}")
    model = setup.initial.model
    for name in setup.stages:
        position = order.index(name)
        if position == 0 or order[position - 1] in setup.stages:
            continue
        before = order[position - 1]
        needed = setup.mode(STAGES[before])
        if model is None or _MODES.index(model.arch.mode) < _MODES.index(needed):
            available = "nothing" if model is None else f"a {model.arch.mode} model"
            raise UsageError(
                f"--stage {name} goes on from stage {before}, and --init gives {available}: give --init the file "
                f"model_{before}.safetensors of a run, or add --stage {before}"
            )
