"""The training loop: one for every stage, resumable at every epoch, the same on one process or several."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glraster.config import Mode
from glraster.errors import ModelError
from glraster.files import replacing
from glraster.model.glnet import GLNet
from glraster.training.dataset import SampleSource, prefetch
from glraster.training.ddp import ALONE, RunningStatistics, Team, synchronise
from glraster.training.losses import Loss
from glraster.training.recipes import Recipe
from glraster.training.stages import (
    Stage,
    make_optimizer,
    parameter_groups,
    poly_rate,
    set_training,
    trained_parameters,
)
from glraster.training.steps import StepForm, StepLosses, meeting_windows, train_step


@dataclass(frozen=True)
class StepReport:
    """One optimizer step: its number in the stage, the stage's number of steps, losses and learning rate."""

    stage: str
    step: int
    steps: int
    losses: StepLosses
    learning_rate: float


@dataclass(frozen=True)
class Length:
    """How long a stage is: `steps` in all, a validation and a checkpoint after every `epoch` of them."""

    steps: int
    epoch: int


class Fit:
    """The state of training one stage of a network.

    `model` is trained; `averaged`, the moving average of its weights, is validated and saved (the model itself without
    averaging). `step` is the number of steps done, `best` the score of the best validation so far, `team` the processes
    that share every batch.

    Raises:
        UsageError: if a batch cannot be divided among them.
    """

    def __init__(self, model: GLNet, stage: Stage, recipe: Recipe, length: Length, team: Team = ALONE) -> None:
        self.model, self.stage, self.recipe, self.length, self._team = model, stage, recipe, length, team
        self._windows = _meeting_windows(model.arch.mode, stage, recipe)
        self._chunk = check_division(model.arch.mode, stage, recipe, team)
        for name, branch in model.named_children():
            if name != "local" or self._windows > 1:
                synchronise(branch, team)
        alone = "local" in stage.trains and self._windows == 1
        set_training(model, stage)
        self._statistics = RunningStatistics(model.local if alone else None, team)
        self.averaged = copy.deepcopy(model) if recipe.ema else model
        self.optimizer = _make_optimizer(model, stage, recipe)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self._scaler_state: dict[str, Any] = {}
        self.step = 0
        self.best: dict[str, Any] | None = None

    def run(self, source: SampleSource, loss: Loss, dtype: torch.dtype = torch.float32) -> Iterator[StepReport]:
        """Train to the end of the stage and yield after every step.

        Whoever iterates may evaluate `averaged` and call `save` between steps. Memory: a batch of samples and what
        `train_step` says.
        """
        batch, device = self.recipe.batch, next(self.model.parameters()).device
        batches = (range(i * batch, (i + 1) * batch) for i in range(self.step, self.length.steps))
        self._prepare_scaler(device, dtype)
        for samples in prefetch(source, (self._team.part(numbers, self._chunk) for numbers in batches)):
            set_training(self.model, self.stage)
            rate = self._set_rate()
            self.optimizer.zero_grad(set_to_none=True)
            form = StepForm(self._windows, self._team, self.scaler.get_scale(), self.recipe.coarse_to_fine)
            self._statistics.begin()
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                losses = train_step(self.model, self.stage, samples, loss, self.recipe.sub_batch, form)
            self._statistics.join()
            self._move()
            self.step += 1
            self._average()
            yield StepReport(self.stage.name, self.step, self.length.steps, losses, rate)

    def _prepare_scaler(self, device: torch.device, dtype: torch.dtype) -> None:
        """float16 has so few small numbers that gradients are scaled up; a step that overflows is left out."""
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        if self._scaler_state and self.scaler.is_enabled():
            self.scaler.load_state_dict(self._scaler_state)
        self.scaler.scale(torch.zeros((), device=device))  # it has no scale before it has seen a tensor

    def _move(self) -> None:
        parameters = list(trained_parameters(self.model, self.stage))
        self._team.sum_gradients(parameters)
        self.scaler.unscale_(self.optimizer)
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step was the last of an epoch."""
        return self.step % self.length.epoch == 0 or self.step == self.length.steps

    def _set_rate(self) -> float:
        base, done, steps = self.stage.learning_rate, self.step, self.length.steps
        rate = poly_rate(base, done, steps)
        if self.recipe.schedule == "cosine":
            rate = base * 0.5 * (1 + math.cos(math.pi * done / steps))
        rate *= min(1.0, (done + 1) / self.recipe.warm_up) if self.recipe.warm_up else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate", 1.0)
        return rate

    @torch.no_grad()
    def _average(self) -> None:
        if not self.recipe.ema:
            return
        # young averages forget faster, or they would remember the random start
        keep = min(self.recipe.ema, self.step / (self.step + 9))
        for mean, new in zip(self.averaged.state_dict().values(), self.model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, 1 - keep)
            else:
                mean.copy_(new)

    def save(self, path: Path) -> None:
        """Write all that `restore` needs; the file appears whole or not at all."""
        state = {
            "stage": self.stage.name,
            "step": self.step,
            "best": self.best,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        with replacing(path, durable=True) as beside, beside.open("wb") as stream:
            try:
                torch.save(state, stream)
            except RuntimeError as error:  # torch puts an error of its own over that of a full disk
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def restore(self, path: Path) -> None:
        """Go on from a file that `save` wrote for the same stage.

        Raises:
            ModelError: if the file is damaged or of another stage or network.
        """
        state = read_checkpoint(path)
        try:
            self.model.load_state_dict(state["model"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self._scaler_state = int(state["step"]), dict(state["scaler"])
            self.best = state.get("best")
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise ModelError(f"{path}: does not fit this training; start anew in another folder") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a training checkpoint without running anything in it.

    Raises:
        ModelError: if it is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ModelError(f"{path}: is no checkpoint, or damaged; remove it to start anew") from error
    if not isinstance(state, dict):
        raise ModelError(f"{path}: is no checkpoint; remove it to start anew")
    return state


def mixed_precision(device: torch.device) -> torch.dtype:
    """The half format of a device: bfloat16, or float16 on GPUs that lack it."""
    lacks = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if lacks else torch.bfloat16


def check_division(mode: Mode, stage: Stage, recipe: Recipe, team: Team) -> int:
    """How many windows of a batch meet in one loss, which is divided evenly among a team.

    Raises:
        UsageError: if it cannot be.
    """
    windows = _meeting_windows(mode, stage, recipe)
    chunk = windows if windows > 1 else recipe.batch
    team.part(range(recipe.batch), chunk)
    return chunk


def _meeting_windows(mode: Mode, stage: Stage, recipe: Recipe) -> int:
    if recipe.tiles is None or recipe.coarse_to_fine:
        return 1
    return min(recipe.batch, meeting_windows(mode, stage, recipe.sub_batch, math.prod(recipe.tiles)))


def _make_optimizer(model: GLNet, stage: Stage, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return make_optimizer(model, stage)
    parameters = list(trained_parameters(model, stage))
    # decay pulls filters towards zero; norms and biases have no reason to go there
    filters, others = [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() <= 1]
    groups = parameter_groups(model, stage, filters, weight_decay=recipe.weight_decay)
    groups += parameter_groups(model, stage, others, weight_decay=0.0)
    return torch.optim.AdamW(groups, lr=stage.learning_rate, foreach=True)
