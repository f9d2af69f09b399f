"""Recipes: everything that decides a training besides the data and the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import yaml

from glraster.config import Mode
from glraster.errors import UsageError
from glraster.model.metadata import BACKBONES, FIXED_STEMS
from glraster.training.dataset import Augmentation
from glraster.training.stages import BACKBONE_PARTS, STAGES, Stage


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        mode, backbone, stem, width, tile_px, thumbnail_px: the network; see `Architecture` and `ModelSpec`.
        stages: names of `STAGES`, one after the other.
        steps: optimizer steps of every stage; None: the stage's epochs of `steps_per_epoch`.
        steps_per_epoch: steps between two validations; None: as many as show every training pixel once on average.
        batch: context windows in a step. sub_batch: tiles at a time.
        tiles: rows and columns of tiles drawn from a window; None: all of them.
        loss: a name for `make_loss`. class_weights: how much classes count in it: "none" (all the same), "inverse" to
            their share of the training pixels, to the square root of that ("sqrt"), or one number per class.
        adjust: strength of logit adjustment, 0 to 1; see `class_offsets`.
        coarse_to_fine: for two classes and mode local, the local branch sees only tiles that touch the second class.
        optimizer: "adam" with the stage's rate and decay in the gradient, or "adamw" with this record's.
        schedule: "poly" (power 0.9) or "cosine"; warm_up steps rise to the full rate.
        learning_rate, weight_decay: for "adamw".
        clip: largest norm of a step's gradient; 0: none.
        freeze: how many parts of every backbone keep the weights they start from, BatchNorm included: 1 the stem, 2
            also what leads to stride 4, and so on; 5 is the whole backbone.
        backbone_rate: the learning rate of the backbones, as a multiple of that of the rest.
        ema: weight of the past in the averaged weights that are validated and saved; 0: none.
        turns, zoom, colour, balance, blind: see `Augmentation`.
        shares: how often samples come from each of several catalogs, relative to each other; if empty, each scene is
            drawn in proportion to the square root of its area.
        trust: factors, 0 to 1, by which the guide's contribution to the logits of tiles may be scaled in mode local;
            the one that scores best on the val split is used. See `scale_guide`.
        spread: standard deviation of new pyramid weights, as a multiple of 1 / sqrt(fan in); 0: the authors' 0.01.
        normalise: whether the network sees values less the training data's mean, over their standard deviation.
    """

    mode: Mode = "local"
    backbone: str = "resnet18"
    stem: int = 32
    width: int = 32
    tile_px: int = 256
    thumbnail_px: int = 256
    stages: tuple[str, ...] = ("joint",)
    steps: int | None = 6000
    steps_per_epoch: int | None = 500
    batch: int = 6
    sub_batch: int = 12
    tiles: tuple[int, int] | None = (1, 2)
    loss: str = "ce+lovasz"
    class_weights: str | tuple[float, ...] = "none"
    adjust: float = 0.5
    coarse_to_fine: bool = False
    optimizer: Literal["adam", "adamw"] = "adamw"
    schedule: Literal["poly", "cosine"] = "cosine"
    warm_up: int = 100
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    clip: float = 5.0
    freeze: int = 0
    backbone_rate: float = 1.0
    ema: float = 0.998
    turns: bool = True
    zoom: tuple[float, float] = (0.75, 1.33)
    colour: float = 0.15
    balance: float = 0.5
    blind: float = 0.1
    shares: tuple[float, ...] = ()
    trust: tuple[float, ...] = (1.0, 0.5)
    spread: float = 1.0
    normalise: bool = True

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(self.turns, self.zoom, self.colour, self.balance, self.blind)

    def stage(self, name: str) -> Stage:
        """A stage with this recipe's rates."""
        stage = replace(STAGES[name], freeze=self.freeze, backbone_rate=self.backbone_rate)
        if self.optimizer == "adam":
            return stage
        return replace(stage, learning_rate=self.learning_rate, weight_decay=self.weight_decay, average=True)


CLASS_WEIGHTS = ("none", "sqrt", "inverse")

RECIPES = {
    "fast": Recipe(),
    "paper": Recipe(
        mode="full",
        backbone="resnet50",
        stem=64,
        width=256,
        tile_px=508,
        thumbnail_px=508,
        stages=("global", "local", "full"),
        steps=None,
        steps_per_epoch=None,
        sub_batch=6,
        tiles=None,
        loss="focal",
        adjust=0.0,
        optimizer="adam",
        schedule="poly",
        warm_up=0,
        clip=0.0,
        ema=0.0,
        zoom=(1.0, 1.0),
        colour=0.0,
        balance=0.0,
        blind=0.0,
        trust=(1.0,),
        spread=0.0,
        normalise=False,
    ),
}


def choose_recipe(name: str, settings: Sequence[str] = ()) -> Recipe:
    """A recipe by name, with `key=value` settings applied; values are written as in YAML.

    Raises:
        UsageError: with all that is wrong.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}: use {' or '.join(RECIPES)}")
    recipe, problems = RECIPES[name], []
    keys = {field.name for field in fields(Recipe)}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key not in keys:
            problems.append(f"{setting!r} (keys: {', '.join(sorted(keys))})")
            continue
        try:
            recipe = replace(recipe, **{key: _parsed(key, yaml.safe_load(text))})
        except (ValueError, TypeError, yaml.YAMLError) as error:
            problems.append(f"{setting!r} ({error})")
    stem = FIXED_STEMS.get(recipe.backbone)
    if stem and not any(setting.partition("=")[0] == "stem" for setting in settings):
        recipe = replace(recipe, stem=stem)
    if stem and recipe.stem != stem:
        problems.append(f"stem {recipe.stem} of {recipe.backbone}, which has {stem} channels there")
    if recipe.backbone not in BACKBONES:
        problems.append(f"backbone {recipe.backbone!r} (backbones: {', '.join(BACKBONES)})")
    problems += _impossible(recipe)
    unknown = [stage for stage in recipe.stages if stage not in STAGES]
    problems += [f"stage {stage!r} (stages: {', '.join(STAGES)})" for stage in unknown]
    if not problems:
        problems += _contradictions(recipe)
    if problems:
        raise UsageError(f"--set (or --arch) does not know {'; '.join(problems)}")
    return recipe


def architecture_settings(text: str) -> tuple[str, ...]:
    """`key=value` settings of a network in words: "resnet50", or "resnet18,width=64,mode=full".

    Raises:
        UsageError: if a word is no backbone and no setting of a network.
    """
    settings = []
    for part in text.split(","):
        key, equals, _ = part.strip().partition("=")
        if not equals and key in BACKBONES:
            settings.append(f"backbone={key}")
        elif equals and key in NETWORK_KEYS:
            settings.append(part.strip())
        else:
            raise UsageError(
                f"--arch does not know {part.strip()!r}: use {', '.join(BACKBONES)}, or KEY=VALUE for "
                f"{', '.join(NETWORK_KEYS)}, joined by commas"
            )
    return tuple(settings)


NETWORK_KEYS = ("backbone", "stem", "width", "mode")
_CHOICES = {"mode": get_args(Mode), "optimizer": ("adam", "adamw"), "schedule": ("poly", "cosine")}
_LEAST = {"stem": 1, "width": 2, "thumbnail_px": 32, "batch": 1, "sub_batch": 1, "warm_up": 0, "learning_rate": 1e-12}
_LEAST |= {"weight_decay": 0, "clip": 0, "ema": 0, "colour": 0, "balance": 0, "blind": 0, "adjust": 0, "spread": 0}
_LEAST |= {"freeze": 0, "backbone_rate": 1e-12}
_LEAST_OR_NONE = {"steps": 1, "steps_per_epoch": 1}


def _impossible(recipe: Recipe) -> Iterator[str]:
    """What no training can be done with."""
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    for name, choices in _CHOICES.items():
        if values[name] not in choices:
            yield f"{name} {values[name]!r} (one of {', '.join(choices)})"
    for name, least in (_LEAST | _LEAST_OR_NONE).items():
        value = values[name]
        if (value is None and name not in _LEAST_OR_NONE) or (value is not None and not value >= least):
            yield f"{name} {value} (at least {least})"
    if isinstance(recipe.class_weights, str) and recipe.class_weights not in CLASS_WEIGHTS:
        yield f"class_weights {recipe.class_weights!r} ({', '.join(CLASS_WEIGHTS)}, or a list of numbers)"
    if recipe.width % 2:
        yield f"width {recipe.width} (an even number)"
    if not recipe.stages or len(set(recipe.stages)) < len(recipe.stages):
        yield f"stages {list(recipe.stages)} (at least one, each once)"
    if recipe.tiles is not None and (len(recipe.tiles) != 2 or min(recipe.tiles) < 1):
        yield f"tiles {list(recipe.tiles)} (rows and columns, at least 1)"
    if len(recipe.zoom) != 2 or not 0 < recipe.zoom[0] <= recipe.zoom[1]:
        yield f"zoom {list(recipe.zoom)} (two positive numbers that ascend)"
    if not recipe.trust or not all(0 <= share <= 1 for share in recipe.trust):
        yield f"trust {list(recipe.trust)} (shares from 0 to 1)"
    if recipe.freeze > BACKBONE_PARTS:
        yield f"freeze {recipe.freeze} (at most {BACKBONE_PARTS}, the whole backbone)"
    if not all(share > 0 for share in recipe.shares):
        yield f"shares {list(recipe.shares)} (positive numbers)"
    if not recipe.ema < 1:
        yield f"ema {recipe.ema} (less than 1)"


def _contradictions(recipe: Recipe) -> Iterator[str]:
    """What fits no stage."""
    last = STAGES[recipe.stages[-1]]
    if "tiles" in recipe.stages and len(recipe.stages) > 1:
        yield f"stages {list(recipe.stages)} (tiles alone: nothing goes on from it)"
    if recipe.mode not in last.modes:
        fitting = [stage.name for stage in STAGES.values() if recipe.mode in stage.modes]
        yield f"mode {recipe.mode} of the stage {last.name} (add --set stages={fitting[0]})"
    if recipe.coarse_to_fine and recipe.mode != "local":
        yield f"coarse_to_fine with mode {recipe.mode} (add --arch mode=local, and stages that end with local or joint)"


def _parsed(key: str, value: Any) -> Any:
    """A setting's value in its type."""
    if key in ("class_weights", "shares") and isinstance(value, list):
        return tuple(float(number) for number in value)
    return _like(getattr(RECIPES["fast"], key), value)


def _like(example: Any, value: Any) -> Any:
    """The value in the type of an example; numbers may be written as integers."""
    if isinstance(example, tuple):
        if value is None:
            return None
        parts = value if isinstance(value, list) else [value]
        return tuple(_like(example[0], part) for part in parts)
    if isinstance(example, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return float(value)
    if value is not None and type(value) is not type(example):
        raise ValueError(f"{value!r} is no {type(example).__name__}")
    return value
