"""What a training starts from: a model, a pretrained backbone, or new weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from glraster.config import Architecture, ModelSpec
from glraster.errors import ModelError
from glraster.model.checkpoint import file_sha256, load, model_path, read_spec
from glraster.model.glnet import GLNet
from glraster.model.lite import LITE, MEAN, STD
from glraster.training.pretrained import IMAGENET, Pretrained, find_backbone, read_backbone

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Initial:
    """What weights begin as: those of `model`, or `backbone` in every branch, or new ones if both are None.

    `identity` is a hash of the file.
    """

    identity: str | None = None
    model: GLNet | None = None
    spec: ModelSpec | None = None
    backbone: Pretrained | None = None

    @property
    def credit(self) -> Mapping[str, object] | None:
        """The pretrained weights that the training builds on, directly or through the model it starts from."""
        if self.backbone is not None:
            return self.backbone.credit
        inherited = self.spec.provenance.get("pretrained") if self.spec is not None else None
        return inherited if isinstance(inherited, dict) else None

    def new_model(self, architecture: Architecture, spread: float) -> GLNet:
        """A network with new weights, except for backbones that are given.

        Args:
            architecture: of the network.
            spread: see `Recipe`.
        """
        model = GLNet(architecture)
        if spread:
            for name, weight in model.named_parameters():
                if weight.dim() == 4 and ".backbone." not in name:
                    nn.init.normal_(weight, std=spread / math.sqrt(weight[0].numel()))
        if self.backbone is not None:
            for branch in (model.guide, model.local, model.refined):
                if branch is not None:
                    branch.backbone.load_state_dict(self.backbone.for_bands(architecture.bands), strict=False)
        return model


def read_initial(init: str | Path | None, architecture: Architecture, *, offline: bool = False) -> Initial:
    """Read what a training starts from.

    Args:
        init: a model file or "default", a backbone's file (see `read_backbone`), "imagenet" for one that
            `find_backbone` finds, or None or "none" for new weights.
        architecture: the network that is trained; its mode does not matter.
        offline: never download.

    Returns:
        What to start from. A model may have other classes.

    Raises:
        ModelError: if the file is missing, damaged, or of another network.
    """
    if init is None or str(init) == "none":
        return Initial()
    published = str(init) == IMAGENET
    path = find_backbone(architecture.backbone, offline=offline) if published else model_path(init)
    identity = file_sha256(path)[:12]
    if _is_model(path):
        model, spec = load(path)
        _compare(path, spec.architecture, architecture)
        return Initial(identity, model=model, spec=spec)
    return Initial(identity, backbone=read_backbone(path, architecture, published=published))


def architecture_of(init: str | Path | None) -> Architecture | None:
    """The architecture of the model file that a training starts from; None if it starts from anything else."""
    if init is None or str(init) in ("none", IMAGENET) or not _is_model(model_path(init)):
        return None
    return read_spec(model_path(init)).architecture


def with_classes(model: GLNet, old: Sequence[str], new: Sequence[str], fresh: GLNet) -> GLNet:
    """The network for other classes: those of the same name keep their weights, the others get new ones.

    Args:
        model: the network.
        old, new: the classes it has, and those it is to have.
        fresh: a new network of the new classes, otherwise like the model; changed in place.

    Returns:
        The model itself if the classes are the same, else `fresh`.
    """
    if tuple(old) == tuple(new):
        return model
    shared = [(old.index(name), i) for i, name in enumerate(new) if name in old]
    log.warning("the model knows %d of the %d classes by name; the others start anew", len(shared), len(new))
    state = fresh.state_dict()
    for name, weight in model.state_dict().items():
        if not _is_head(name):
            state[name] = weight
            continue
        for source, target in shared:
            state[name][target] = weight[source]
    fresh.load_state_dict(state)
    return fresh


def normalisation(spec: ModelSpec, initial: Initial) -> ModelSpec:
    """The spec with the value range that the weights it starts from expect.

    That is the range of a model, or of EfficientNet-Lite if pixels are bytes. Pixels of other types keep the range of
    the training data: the published weights say nothing of them.
    """
    start = initial.spec
    if start is not None and start.dtype == spec.dtype:
        return replace(spec, scale=start.scale, mean=start.mean, std=start.std)
    if initial.backbone is not None and spec.architecture.backbone in LITE and spec.dtype == "uint8":
        return replace(spec, scale=255.0, mean=(MEAN,), std=(STD,))
    return spec


def _is_head(name: str) -> bool:
    return name.startswith("aggregate.") or ".classify." in name


def _is_model(path: Path) -> bool:
    """Whether a file is a model of glraster; any other may be a backbone."""
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, "pt") as file:
            return "glraster" in (file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); check the path, or get the file again") from error


def _compare(path: Path, own: Architecture, trained: Architecture) -> None:
    keys = [k for k in ("bands", "backbone", "stem", "width") if getattr(own, k) != getattr(trained, k)]
    if keys:
        differences = ", ".join(f"{k} {getattr(own, k)} instead of {getattr(trained, k)}" for k in keys)
        hint = "use images with as many bands" if "bands" in keys else "leave --arch out, or start from another"
        raise ModelError(f"{path}: is another network than the one to be trained: {differences}; {hint}")
