"""Recipes: everything that decides a training besides the data and the network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import yaml

from glraster.config import Mode
from glraster.errors import UsageError
from glraster.model.metadata import BACKBONES
from glraster.train.dataset import Augmentation
from glraster.train.stages import STAGES, Stage


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
        loss: a name for `make_loss`.
        optimizer: "adam" with the stage's rate and decay in the gradient, or "adamw" with this record's.
        schedule: "poly" (power 0.9) or "cosine"; warm_up steps rise to the full rate.
        learning_rate, weight_decay: for "adamw".
        clip: largest norm of a step's gradient; 0: none.
        ema: weight of the past in the averaged weights that are validated and saved; 0: none.
        turns, zoom, colour, balance: see `Augmentation`.
        spread: standard deviation of new pyramid weights, as a multiple of 1 / sqrt(fan in); 0: the authors' 0.01.
        normalise: whether the network sees values less the training data's mean, over their standard deviation.
    """

    mode: Mode = "local"
    backbone: str = "resnet18"
    stem: int = 32
    width: int = 64
    tile_px: int = 256
    thumbnail_px: int = 256
    stages: tuple[str, ...] = ("joint",)
    steps: int | None = 6000
    steps_per_epoch: int | None = 500
    batch: int = 6
    sub_batch: int = 12
    tiles: tuple[int, int] | None = (1, 2)
    loss: str = "ce"
    optimizer: Literal["adam", "adamw"] = "adamw"
    schedule: Literal["poly", "cosine"] = "cosine"
    warm_up: int = 100
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    clip: float = 5.0
    ema: float = 0.998
    turns: bool = True
    zoom: tuple[float, float] = (0.7, 1.4)
    colour: float = 0.15
    balance: float = 0.5
    spread: float = 1.0
    normalise: bool = True

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(self.turns, self.zoom, self.colour, self.balance)

    def stage(self, name: str) -> Stage:
        """A stage with this recipe's rates."""
        if self.optimizer == "adam":
            return STAGES[name]
        return replace(STAGES[name], learning_rate=self.learning_rate, weight_decay=self.weight_decay, average=True)


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
        optimizer="adam",
        schedule="poly",
        warm_up=0,
        clip=0.0,
        ema=0.0,
        zoom=(1.0, 1.0),
        colour=0.0,
        balance=0.0,
        spread=0.0,
        normalise=False,
    ),
}


def choose_recipe(name: str, settings: Iterable[str] = ()) -> Recipe:
    """A recipe by name, with `key=value` settings applied; values are written as in YAML.

    Raises:
        UsageError: with all that is wrong.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}: use {' or '.join(RECIPES)}")
    recipe, problems = RECIPES[name], []
    known = {field.name for field in fields(Recipe)}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key not in known:
            problems.append(f"{setting!r} (keys: {', '.join(sorted(known))})")
            continue
        try:
            recipe = replace(recipe, **{key: _like(getattr(RECIPES["fast"], key), yaml.safe_load(text))})
        except (ValueError, TypeError, yaml.YAMLError) as error:
            problems.append(f"{setting!r} ({error})")
    if recipe.backbone not in BACKBONES:
        problems.append(f"backbone {recipe.backbone!r} (backbones: {', '.join(BACKBONES)})")
    unknown = [stage for stage in recipe.stages if stage not in STAGES]
    problems += [f"stage {stage!r} (stages: {', '.join(STAGES)})" for stage in unknown]
    if problems:
        raise UsageError(f"--set does not know {'; '.join(problems)}")
    return recipe


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
