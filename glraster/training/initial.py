"""What a training starts from: a model, a backbone trained on ImageNet, or new weights."""

from __future__ import annotations

import logging
import math
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from glraster.config import Architecture, ModelSpec
from glraster.errors import ModelError
from glraster.model.checkpoint import file_sha256, load, read_spec
from glraster.model.default import model_path
from glraster.model.glnet import GLNet
from glraster.model.resnet import ResNet

log = logging.getLogger(__name__)

IMAGENET = "imagenet"
PLACE = "GLRASTER_IMAGENET"
"""Environment variable: a file with a backbone's weights, or a folder that holds such files."""

_PUBLISHED = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
}
"""Files of torchvision."""

_STEM = 64
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Initial:
    """What weights begin as: those of `model`, or `backbone` in every branch, or new ones where both are None.

    `identity` tells it from another one: a hash of the file.
    """

    identity: str | None = None
    model: GLNet | None = None
    spec: ModelSpec | None = None
    backbone: Mapping[str, Tensor] | None = None

    def new_model(self, architecture: Architecture, spread: float) -> GLNet:
        """A network with new weights, but for the backbones where they are given.

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
                    branch.backbone.load_state_dict(_for_bands(self.backbone, architecture.bands), strict=False)
        return model


def read_initial(init: str | Path | None, wanted: Architecture) -> Initial:
    """Read what a training is to start from.

    Args:
        init: a model file or "default", a backbone's file in torchvision's format (.pth, .safetensors), "imagenet" for
            one that is found by `find_backbone`, or None or "none" for new weights.
        wanted: the network that is trained; its mode is not looked at.

    Returns:
        What to start from. A model may have other classes.

    Raises:
        ModelError: where the file is missing, damaged, or of another network.
    """
    if init is None or str(init) == "none":
        return Initial()
    path = find_backbone(wanted.backbone) if str(init) == IMAGENET else model_path(init)
    identity = file_sha256(path)[:12]
    if _is_model(path):
        model, spec = load(path)
        _compare(path, spec.architecture, wanted)
        return Initial(identity, model=model, spec=spec)
    return Initial(identity, backbone=read_backbone(path, wanted))


def architecture_of(init: str | Path | None) -> Architecture | None:
    """The network of a model file that a training starts from; None where it starts from anything else."""
    if init is None or str(init) in ("none", IMAGENET) or not _is_model(model_path(init)):
        return None
    return read_spec(model_path(init)).architecture


def find_backbone(name: str) -> Path:
    """The file with a backbone's ImageNet weights: $GLRASTER_IMAGENET (file or folder), else torch hub's cache.

    Raises:
        ModelError: where there is none; it says what to get and where to put it.
    """
    given = os.environ.get(PLACE)
    if given and Path(given).is_file():
        return Path(given)
    # where torch.hub keeps files; asking it would import much for a name
    home = Path(os.environ.get("TORCH_HOME", Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch")).expanduser()
    folder = Path(given) if given else home / "hub" / "checkpoints"
    found = [path for ending in ("pth", "safetensors") for path in sorted(folder.glob(f"{name}-*.{ending}"))]
    preferred = [path for path in found if path.name == _PUBLISHED[name]]
    if not found:
        raise ModelError(
            f"{folder}: has no ImageNet weights of {name}; put torchvision's {_PUBLISHED[name]} there "
            f"(https://download.pytorch.org/models/{_PUBLISHED[name]}), or let {PLACE} name the file or its folder"
        )
    chosen = (preferred or found)[0]
    log.info("%s: ImageNet weights", chosen)
    return chosen


def read_backbone(path: Path, wanted: Architecture) -> dict[str, Tensor]:
    """Read a ResNet in torchvision's format, without its classifier and without running anything in the file.

    Args:
        path: a state dict, `.pth` or `.safetensors`.
        wanted: the network whose backbone it is to be.

    Returns:
        Weights by name, the first convolution for three bands.

    Raises:
        ModelError: where the file is no such state dict, or of another backbone.
    """
    state = _state(path)
    weights = {k: v for k, v in state.items() if not k.startswith("fc.") and not k.endswith(_COUNTER)}
    with torch.device("meta"):
        own = ResNet(wanted.backbone, 3, _STEM).state_dict()
    shapes = {k: tuple(v.shape) for k, v in own.items() if not k.endswith(_COUNTER)}
    wrong = sorted(
        k for k in shapes.keys() | weights.keys() if k not in weights or shapes.get(k) != tuple(weights[k].shape)
    )
    if wrong:
        raise ModelError(
            f"{path}: is no {wanted.backbone} in torchvision's format: {wrong[0]} and {len(wrong) - 1} more differ; "
            "choose the backbone it is of (--arch), or another file. The authors' checkpoints: 'glraster model import' "
            "first"
        )
    if wanted.stem != _STEM:
        raise ModelError(f"{path}: has a stem of {_STEM} channels, the network {wanted.stem}; add --arch stem={_STEM}")
    if not all(bool(torch.isfinite(v).all()) for v in weights.values()):
        raise ModelError(f"{path}: holds values that are not finite; get the file again")
    return {k: v.float() for k, v in weights.items()}


def with_classes(model: GLNet, names: Sequence[str], wanted: Sequence[str], fresh: GLNet) -> GLNet:
    """The same network for other classes: those of the same name keep their weights, the others are new.

    Args:
        model: the network; names: its classes.
        wanted: the classes to have.
        fresh: a new network of those classes, otherwise like the model; changed in place.

    Returns:
        The model itself where the classes are the same.
    """
    if tuple(names) == tuple(wanted):
        return model
    known = [(names.index(name), i) for i, name in enumerate(wanted) if name in names]
    log.warning("the model knows %d of the %d classes by name; the others start anew", len(known), len(wanted))
    state = fresh.state_dict()
    for name, weight in model.state_dict().items():
        if not _is_head(name):
            state[name] = weight
            continue
        for old, new in known:
            state[name][new] = weight[old]
    fresh.load_state_dict(state)
    return fresh


def normalisation(spec: ModelSpec, start: ModelSpec | None) -> ModelSpec:
    """The spec with the value range of the model it starts from, whose weights expect that."""
    if start is None or start.dtype != spec.dtype:
        return spec
    return replace(spec, scale=start.scale, mean=start.mean, std=start.std)


def _is_head(name: str) -> bool:
    return name.startswith("aggregate.") or ".classify." in name


def _is_model(path: Path) -> bool:
    """Whether a file is safetensors with a model's description; everything else may be a backbone."""
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, "pt") as file:
            return "glraster" in (file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); check the path, or get the file again") from error


def _state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError, SafetensorError) as error:
        raise ModelError(f"{path}: is no file of weights, or unsafe to read; get torchvision's own file") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{path}: is no state dict; give a file with nothing but the weights")
    return state


def _compare(path: Path, own: Architecture, wanted: Architecture) -> None:
    differing = [k for k in ("bands", "backbone", "stem", "width") if getattr(own, k) != getattr(wanted, k)]
    if differing:
        told = ", ".join(f"{k} {getattr(own, k)} instead of {getattr(wanted, k)}" for k in differing)
        hint = "use images with as many bands" if "bands" in differing else "leave --arch out, or start from another"
        raise ModelError(f"{path}: is another network than the one to be trained: {told}; {hint}")


def _for_bands(backbone: Mapping[str, Tensor], bands: int) -> dict[str, Tensor]:
    """The backbone for any number of bands: others than three see the mean of the three filters, of the same sum."""
    first = backbone["conv1.weight"]
    if bands == 3:
        return dict(backbone)
    return {**backbone, "conv1.weight": first.mean(1, keepdim=True).repeat(1, bands, 1, 1) * (3 / bands)}
