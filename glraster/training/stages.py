"""Training stages as data: which branches move, on which losses, how fast; how a stage starts and ends.

Source: Chen et al., Collaborative Global-Local Networks for Memory-Efficient Segmentation of Ultra-High
Resolution Images, CVPR 2019, and its released code.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import nn

from glraster.config import Mode
from glraster.errors import ModelError, UsageError
from glraster.model.glnet import GLNet, Pyramid

Group = dict[str, Any]
"""Parameters that an optimizer treats alike, and how."""

_BRANCHES = ("guide", "local", "refined", "aggregate")

BACKBONE_PARTS = 5
"""The stem of a backbone, and what leads to strides 4, 8, 16 and 32."""


@dataclass(frozen=True)
class Weights:
    """The weight of each term of the loss; a term of weight 0 is not computed.

    `guide`, `local` and `refined` are the losses of these branches' own logits, `aggregated` that of the
    aggregation, `similarity` the mean squared difference between ps3 of a tile and the guide's ps3 there.
    """

    guide: float = 0.0
    local: float = 0.0
    refined: float = 0.0
    aggregated: float = 0.0
    similarity: float = 0.0


@dataclass(frozen=True)
class Stage:
    """One training: `fit` runs any of them with the same loop.

    `trains` names the modules of the network that move, with BatchNorm in training mode; all others are
    frozen, BatchNorm included, and so are the first `freeze` parts of every backbone. The rest of a backbone moves at
    `backbone_rate` times the learning rate. `modes` are the networks it is for.

    Losses of tiles are summed over sub-batches. With `average` each is weighted by the sub-batch's share of all tiles,
    so that the number of sub-batches does not change the balance with the losses of windows. A network of mode full
    sees its tiles twice in a step. If its local branch is frozen, `park` keeps ps3 of all tiles in main memory instead
    of computing it twice: 33 MB per tile of 508 px at width 256, 1.2 GB per window of 36.
    """

    name: str
    trains: tuple[str, ...]
    weights: Weights
    modes: tuple[Mode, ...]
    learning_rate: float
    epochs: int
    weight_decay: float = 5e-4
    average: bool = False
    park: bool = True
    freeze: int = 0
    backbone_rate: float = 1.0


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("global", ("guide",), Weights(guide=1), ("global",), learning_rate=5e-5, epochs=120),
        Stage(
            "local",
            ("local", "aggregate"),
            Weights(local=1, aggregated=1, similarity=0.15),
            ("local",),
            learning_rate=2e-5,
            epochs=50,
        ),
        Stage(
            "full",
            ("refined", "aggregate"),
            Weights(refined=1, aggregated=1),
            ("full",),
            learning_rate=5e-5,
            epochs=120,
        ),
        Stage(
            "joint",
            _BRANCHES,
            Weights(guide=0.4, local=0.4, refined=0.4, aggregated=1),
            ("local", "full"),
            learning_rate=1e-4,
            epochs=100,
            average=True,
        ),
        Stage("tiles", ("local",), Weights(local=1), ("tiles",), learning_rate=1e-4, epochs=100, average=True),
    )
}
"""The authors' three stages, which follow each other; one that trains everything together; one for tiles alone."""


def set_training(model: GLNet, stage: Stage) -> None:
    """Put the network into a stage's state: what moves, and what BatchNorm does. Call it after every evaluation.

    Raises:
        UsageError: if the stage is not for such a network.
    """
    if model.arch.mode not in stage.modes:
        raise UsageError(
            f"stage {stage.name!r} trains a {' or '.join(stage.modes)} model, this one is {model.arch.mode}: "
            "choose another stage or mode"
        )
    model.eval()
    for name, module in model.named_children():
        module.train(name in stage.trains).requires_grad_(name in stage.trains)
        for part in _frozen(module, stage):
            part.eval().requires_grad_(False)


def make_optimizer(model: GLNet, stage: Stage) -> torch.optim.Adam:
    """Adam over what the stage trains, with the weight decay in the gradient (not AdamW), as the authors have it."""
    groups = parameter_groups(model, stage, trained_parameters(model, stage))
    return torch.optim.Adam(groups, lr=stage.learning_rate, weight_decay=stage.weight_decay, foreach=True)


def parameter_groups(model: GLNet, stage: Stage, parameters: Iterable[nn.Parameter], **form: Any) -> list[Group]:
    """Groups for an optimizer: `rate` is the group's multiple of the learning rate, `form` what else they have.

    There is one group, or a second one for the backbones if they move at a rate of their own.
    """
    parameters = list(parameters)
    if stage.backbone_rate == 1:
        return [{"params": parameters, **form}]
    slow = {id(x) for name, x in model.named_parameters() if ".backbone." in name}
    rest, backbones = ([p for p in parameters if (id(p) in slow) == in_backbone] for in_backbone in (False, True))
    return [{"params": rest, **form}, {"params": backbones, "rate": stage.backbone_rate, **form}]


def trained_parameters(model: GLNet, stage: Stage) -> Iterator[nn.Parameter]:
    """The parameters that the stage moves."""
    frozen = {id(x) for module in model.children() for part in _frozen(module, stage) for x in part.parameters()}
    named = model.named_parameters()
    return (x for name, x in named if name.partition(".")[0] in stage.trains and id(x) not in frozen)


def _frozen(branch: nn.Module, stage: Stage) -> Iterator[nn.Module]:
    """The parts of a branch's backbone that keep their weights."""
    if isinstance(branch, Pyramid):
        yield from chain.from_iterable(branch.backbone.parts()[: stage.freeze])


def poly_rate(base: float, step: int, steps: int) -> float:
    """The learning rate of one optimizer step, base (1 - step / steps)^0.9: the whole base at step 0.

    Args:
        base: rate of the first step.
        step: optimizer steps done before this one, over all epochs.
        steps: optimizer steps of the whole stage, epochs times batches per epoch.
    """
    return float(base * (1 - step / steps) ** 0.9)


def start_stage(model: GLNet, previous: GLNet) -> None:
    """Take over what an earlier stage learned; what `previous` lacks keeps its initial values.

    A refined branch that is new starts from the guide's backbone and classifier, which is what the authors'
    global2local file holds in these places; the layers between them are new.

    Args:
        model: a network with new weights, changed in place.
        previous: the network of an earlier stage.

    Raises:
        ModelError: if the networks differ in more than their mode.
    """
    if replace(previous.arch, mode=model.arch.mode) != model.arch:
        raise ModelError(
            f"the earlier model is {previous.arch}, the new one {model.arch}: they may differ in their mode only; "
            "start from another model, or train with the same bands, classes, backbone and width"
        )
    if (model.guide is None) != (previous.guide is None):
        raise ModelError(f"a model of mode {model.arch.mode} cannot start from one of mode {previous.arch.mode}")
    learned = dict(previous.named_children())
    for name, module in model.named_children():
        if name in learned:
            module.load_state_dict(learned[name].state_dict())
    if model.refined is not None and previous.refined is None and model.guide is not None:
        model.refined.backbone.load_state_dict(model.guide.backbone.state_dict())
        model.refined.fpn.classify.load_state_dict(model.guide.fpn.classify.state_dict())


@torch.no_grad()
def scale_guide(model: GLNet, share: float) -> GLNet:
    """A copy of a network of mode local with the guide's contribution to the logits of tiles scaled.

    No layer behind the backbones is non-linear, so the logits are an affine function of the guide's maps. Scaling all
    weights that read them by `share` gives `share` times the logits with the guide's maps, plus `1 - share` times the
    logits with zeros in their place.

    Args:
        model: of mode local; it is not changed.
        share: 0 for tiles alone, 1 for the network as it is.

    Raises:
        ValueError: if the network is of another mode.
    """
    if model.arch.mode != "local" or model.local is None or model.aggregate is None:
        raise ValueError(f"a network of mode {model.arch.mode} has no guide to scale")
    scaled = copy.deepcopy(model)
    assert scaled.local is not None
    assert scaled.aggregate is not None
    fpn = scaled.local.fpn
    assert fpn.fuse is not None
    for conv in (*fpn.lateral, *fpn.smooth1, *fpn.smooth2, scaled.aggregate):
        conv.weight.chunk(2, dim=1)[1].mul_(share)
    for level in fpn.fuse.weight.chunk(4, dim=1):
        level.chunk(2, dim=1)[1].mul_(share)
    return scaled
