"""Check a call of `train` before anything is computed: options in, a recipe, a start and a look at the data out."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from glraster.catalog import Catalog
from glraster.config import Architecture, Mode
from glraster.errors import CatalogError, UsageError
from glraster.labels.check import check_catalog
from glraster.labels.scenes import open_image
from glraster.raster.grid import STRIDE
from glraster.training.ddp import Team
from glraster.training.fit import check_division
from glraster.training.initial import Initial, architecture_of, read_initial
from glraster.training.losses import make_loss
from glraster.training.recipes import NETWORK_KEYS, Recipe, architecture_settings, choose_recipe
from glraster.training.stages import STAGES, Stage
from glraster.training.survey import Survey, class_offsets, class_weights, survey

log = logging.getLogger(__name__)

_MODES: tuple[Mode, ...] = ("global", "local", "full")
"""Each holds all that the ones before it hold."""


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Attributes:
        recipe: "fast" or "paper". settings: `key=value` texts that change it. arch: the same for the network, in short.
        init: a model or backbone file to start from, "imagenet", or None for new weights.
        stages: only these of the recipe's; all where empty.
        offline: never download ImageNet weights.
        bfloat16: convolutions in bfloat16 (float16 on GPUs without it).
        resume: go on with a training that stopped. device: auto, cpu, cuda, cuda:N. seed: decides weights and samples.
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
class Plan:
    """A checked call: the recipe, which of its stages are trained, and what weights begin as."""

    recipe: Recipe
    stages: tuple[str, ...]
    initial: Initial

    def mode(self, stage: Stage) -> Mode:
        """The mode of the network that a stage trains."""
        return self.recipe.mode if self.recipe.mode in stage.modes else stage.modes[0]

    def settings(self, catalog: Catalog, options: TrainOptions) -> dict[str, Any]:
        """All that decides the weights, as JSON values."""
        told = {**asdict(self.recipe), "stages": self.stages, "seed": options.seed, "catalog": catalog.content_hash}
        return {**told, "init": self.initial.identity, "bfloat16": options.bfloat16}


@dataclass(frozen=True)
class Findings:
    """What a look at all data found: the images, how much every class counts in the loss, and its logits' offset."""

    images: Survey
    class_weights: tuple[float, ...] | None
    class_offsets: tuple[float, ...] | None

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Findings:
        """Read what `asdict` made of one."""
        weights, offsets = (record[key] and tuple(record[key]) for key in ("class_weights", "class_offsets"))
        return cls(Survey.from_json(record["images"]), weights, offsets)


def plan(catalog: Catalog, options: TrainOptions, team: Team) -> Plan:
    """Choose the recipe, its stages and the start of a training.

    Raises:
        UsageError, ModelError: where options contradict each other, the catalog or the file to start from.
    """
    recipe = _choose_recipe(options)
    _check_sizes(catalog, recipe)
    if recipe.coarse_to_fine and len(catalog.classes) != 2:
        raise UsageError(f"coarse_to_fine is for two classes, the catalog has {len(catalog.classes)}; leave it out")
    wanted = Architecture("full", catalog.bands, len(catalog.classes), recipe.backbone, recipe.width, recipe.stem)
    chosen = Plan(recipe, options.stages or recipe.stages, read_initial(options.init, wanted, offline=options.offline))
    _check_stages(chosen)
    for name in chosen.stages:
        stage = recipe.stage(name)
        check_division(chosen.mode(stage), stage, recipe, team)
    return chosen


def look(catalog: Catalog, recipe: Recipe) -> Findings:
    """Open every file of the catalog that is trained on.

    Raises:
        CatalogError: with all that hinders.
    """
    report = check_catalog(catalog)
    report.require_sound(catalog.source)
    if not catalog.train or not catalog.val:
        raise CatalogError("needs a train and a val split", where=catalog.source)
    for pair in catalog.val:
        open_image(catalog, pair)[0].close()
    found = next(split.classes for split in report.splits if split.name == "train")
    if recipe.coarse_to_fine and found[1].share > 0.5:
        log.warning(
            "coarse_to_fine looks for %s, the second class, which covers %.0f %% of the labels; it is meant for a rare "
            "class",
            *(found[1].name, 100 * found[1].share),
        )
    weights = class_weights(recipe.class_weights, found)
    make_loss(recipe.loss, weights)
    return Findings(survey(catalog, catalog.train), weights, class_offsets(recipe.adjust, found))


def _choose_recipe(options: TrainOptions) -> Recipe:
    settings = (*(architecture_settings(options.arch) if options.arch else ()), *options.settings)
    recipe = choose_recipe(options.recipe, settings)
    make_loss(recipe.loss)
    start = architecture_of(options.init)
    if start is not None:
        named = {setting.partition("=")[0] for setting in settings}
        open_keys = [key for key in NETWORK_KEYS if key != "mode" and key not in named]
        recipe = replace(recipe, **{key: getattr(start, key) for key in open_keys})
    return recipe


def _check_sizes(catalog: Catalog, recipe: Recipe) -> None:
    context, tile = catalog.context_px, recipe.tile_px
    if context < tile:
        raise UsageError(f"tile_px {tile} is larger than the context of {context} px")
    if context % STRIDE or tile % STRIDE or tile < 4 * STRIDE:
        raise UsageError(f"tile_px {tile} and context_px {context} must be multiples of {STRIDE}, from {4 * STRIDE}")


def _check_stages(chosen: Plan) -> None:
    """Every stage but the first starts from the one before it: trained here, or in the file to start from."""
    known = chosen.recipe.stages
    unknown = [name for name in chosen.stages if name not in known]
    if unknown:
        raise UsageError(f"--stage {unknown[0]!r} is none of the recipe's stages: {', '.join(known)}")
    if list(chosen.stages) != sorted(set(chosen.stages), key=known.index):
        raise UsageError(f"--stage names each stage once and in the recipe's order: {', '.join(known)}")
    model = chosen.initial.model
    for name in chosen.stages:
        position = known.index(name)
        if position == 0 or known[position - 1] in chosen.stages:
            continue
        before = known[position - 1]
        needed = chosen.mode(STAGES[before])
        if model is None or _MODES.index(model.arch.mode) < _MODES.index(needed):
            has = "nothing" if model is None else f"a {model.arch.mode} model"
            raise UsageError(
                f"--stage {name} goes on from stage {before}, and --init gives {has}: give --init the file "
                f"model_{before}.safetensors of a run, or add --stage {before}"
            )
