"""Import the checkpoints that GLNet's authors published, or that their released code writes."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from glraster.config import Architecture, Mode, ModelSpec
from glraster.errors import ModelError, UsageError
from glraster.model.checkpoint import file_sha256
from glraster.model.glnet import GLNet
from glraster.model.published import training_set

log = logging.getLogger(__name__)

_GLOBAL, _TO_LOCAL, _TO_GLOBAL = "global", "global2local", "local2global"
_BRANCHES = {"guide": ("global", ""), "local": ("local", ""), "refined": ("global", "_ext")}
_LAYERS = {
    **{f"lateral.{i}": name for i, name in enumerate(("latlayer3", "latlayer2", "latlayer1", "toplayer"))},
    **{f"smooth{step}.{i}": f"smooth{4 - i}_{step}" for step in (1, 2) for i in range(4)},
}


@dataclass(frozen=True)
class _Checkpoint:
    """One official file: `weights` by official name, without DataParallel's prefix."""

    path: Path
    slot: str
    weights: dict[str, Tensor]
    classes: int


def import_official(
    global_path: str | Path | None,
    global_to_local: str | Path | None = None,
    local_to_global: str | Path | None = None,
) -> tuple[GLNet, ModelSpec]:
    """Build a model from official checkpoints (`.pth`), without running code in them.

    The global file alone gives a global model. The global2local file alone gives a local model: it holds the guide
    too. The global and the local2global file give a full model; a global2local file beside them is only checked, as
    evaluation never uses it. Memory is the model and one file.

    Args:
        global_path: of stage 1, published as fpn_deepglobe_global.pth.
        global_to_local: of stage 2, published as fpn_deepglobe_global2local.pth.
        local_to_global: of stage 3, published as fpn_deepglobe_local2global.pth.

    Returns:
        The network in eval mode on the CPU, and its spec: that of the data set, if the number of classes identifies it.

    Raises:
        UsageError: if no model is made of these files.
        ModelError: if a file is damaged, not of GLNet, or of another stage than its argument says.
    """
    given = {_GLOBAL: global_path, _TO_LOCAL: global_to_local, _TO_GLOBAL: local_to_global}
    paths = {slot: Path(path) for slot, path in given.items() if path is not None}
    mode = _mode(paths)
    digests = _digests(paths)
    model: GLNet | None = None
    digests_of_branches: dict[str, tuple[str, str]] = {}
    for slot, path in paths.items():
        file = _read(path, slot)
        if model is None:
            with torch.device("meta"):
                model = GLNet(Architecture(mode, bands=3, classes=file.classes))
            model = model.to_empty(device="cpu")
        if file.classes != model.arch.classes:
            raise ModelError(
                f"{path}: {file.classes} classes, the other files have {model.arch.classes}; use files of one training"
            )
        _fill(model, file)
        digests_of_branches[slot] = _branch_digests(file)
    assert model is not None
    _compare_stages(digests_of_branches)
    provenance = {
        "source": "official GLNet checkpoints",
        "files": {slot: {"name": path.name, "sha256": digests[slot]} for slot, path in paths.items()},
    }
    return model.eval(), training_set(model.arch, provenance)


def _mode(paths: dict[str, Path]) -> Mode:
    slots = set(paths)
    if slots == {_GLOBAL}:
        return "global"
    if slots == {_TO_LOCAL}:
        return "local"
    if slots >= {_GLOBAL, _TO_GLOBAL}:
        return "full"
    raise UsageError(
        f"{' and '.join(paths) or 'no'} checkpoint given; a model takes global alone, global2local alone, "
        "or global and local2global together"
    )


def _digests(paths: dict[str, Path]) -> dict[str, str]:
    """SHA-256 per slot; refuses a file named as another slot's, and one file in two slots."""
    for slot, path in paths.items():
        named = [other for other in (_TO_LOCAL, _TO_GLOBAL) if other in path.name.lower()]
        if named and slot not in named:
            raise ModelError(f"{path}: named as the {named[0]} checkpoint, given as the {slot} one; swap them")
    digests: dict[str, str] = {}
    for slot, path in paths.items():
        digest = file_sha256(path)
        for other, known in digests.items():
            if digest == known:
                raise ModelError(f"{path}: the same content is given as {other} and as {slot}; they differ")
        digests[slot] = digest
    return digests


def _read(path: Path, slot: str) -> _Checkpoint:
    with path.open("rb") as file:
        if file.read(9)[8:] == b"{":
            raise ModelError(f"{path}: a safetensors file, not a PyTorch checkpoint; a model needs no import")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's warnings about foreign pickles help no user
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load can raise anything, depending on the bytes
        raise ModelError(
            f"{path}: not a PyTorch file of plain weights ({type(error).__name__}); download it again"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(x, Tensor) for x in content.values()):
        raise ModelError(f"{path}: holds something else than weights; give the state dict of a GLNet")
    weights = {str(name).removeprefix("module."): x for name, x in content.items()}
    head = weights.get("ensemble_conv.weight")
    if head is None or head.ndim != 4:
        raise ModelError(f"{path}: not a checkpoint of GLNet: it lacks ensemble_conv.weight")
    _check(path, weights, _layout(head.shape[0]))
    _check_stage(path, slot, weights)
    return _Checkpoint(path, slot, weights, head.shape[0])


def _layout(classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in an official checkpoint."""
    with torch.device("meta"):
        model = GLNet(Architecture("full", bands=3, classes=classes))
    return {_official_name(name): tuple(x.shape) for name, x in model.state_dict().items()}


def _official_name(name: str) -> str:
    """Translate a name in a GLNet: "guide.fpn.lateral.0.bias" to "fpn_global.latlayer3.bias"."""
    branch, _, rest = name.partition(".")
    if branch == "aggregate":
        return f"ensemble_conv.{rest}"
    side, suffix = _BRANCHES[branch]
    part, _, rest = rest.partition(".")
    if part == "backbone":
        return f"resnet_{side}.{rest}"
    layer, _, leaf = rest.rpartition(".")
    if layer in _LAYERS:
        return f"fpn_{side}.{_LAYERS[layer]}{suffix}.{leaf}"
    return f"fpn_{side}.{layer.replace('fuse', 'smooth')}.{leaf}"


def _check(path: Path, weights: dict[str, Tensor], layout: dict[str, tuple[int, ...]]) -> None:
    needed = {name for name in layout if not name.endswith("num_batches_tracked")}  # absent before torch 0.4.1
    problems = [f"lacks {name}" for name in needed - weights.keys()]
    problems += [f"has the unknown {name}" for name in weights.keys() - layout.keys()]
    for name in needed & weights.keys():
        x = weights[name]
        if tuple(x.shape) != layout[name]:
            problems.append(f"has {name} as {list(x.shape)} instead of {list(layout[name])}")
        elif not x.is_floating_point() or not bool(torch.isfinite(x).all()):
            problems.append(f"has {name} with values that are not finite floating-point numbers")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelError(
            f"{path}: not a whole checkpoint of GLNet: it {', '.join(sorted(problems)[:3])}{more}; "
            "give a file that the released code wrote"
        )


def _check_stage(path: Path, slot: str, weights: dict[str, Tensor]) -> None:
    """Refuse a file of an earlier stage: a pyramid's biases are zero until its first training step."""
    trained = {
        _TO_LOCAL: bool(weights["fpn_local.toplayer.bias"].any()),
        _TO_GLOBAL: bool(weights["fpn_global.toplayer_ext.bias"].any()),
    }
    if not trained.get(slot, True):
        raise ModelError(f"{path}: given as the {slot} checkpoint, but that stage was never trained in it")
    last = next((stage for stage in (_TO_GLOBAL, _TO_LOCAL) if trained[stage]), _GLOBAL)
    if last != slot:
        log.warning("%s: given as the %s checkpoint, but looks like the %s one", path, slot, last)


def _fill(model: GLNet, file: _Checkpoint) -> None:
    """Copy the weights that evaluation takes from this file: the guide from stage 1, all others from the last stage."""
    for name, target in model.state_dict().items():
        if _source(model.arch.mode, name) == file.slot:
            source = file.weights.get(_official_name(name))
            target.zero_() if source is None else target.copy_(source)


def _source(mode: Mode, name: str) -> str:
    if mode == "local":
        return _TO_LOCAL
    return _GLOBAL if name.startswith("guide.") else _TO_GLOBAL


def _branch_digests(file: _Checkpoint) -> tuple[str, str]:
    """Digests of the weights that stage 2 takes over from stage 1, and stage 3 from stage 2."""
    of_global, of_local = ("resnet_global.", "fpn_global."), ("resnet_local.", "fpn_local.")
    return _digest(file.weights, of_global), _digest(file.weights, of_local)


def _digest(weights: dict[str, Tensor], prefixes: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in _floats(weights, prefixes):
        digest.update(weights[name].contiguous().numpy().data)
    return digest.hexdigest()


def _floats(weights: dict[str, Tensor], prefixes: tuple[str, ...]) -> Iterator[str]:
    return (name for name in sorted(weights) if name.startswith(prefixes) and weights[name].is_floating_point())


def _compare_stages(digests: dict[str, tuple[str, str]]) -> None:
    """Warn if a stage did not start from the file of the stage before it: its branches were not trained together."""
    for part, (before, after) in enumerate(((_GLOBAL, _TO_LOCAL), (_TO_LOCAL, _TO_GLOBAL))):
        if before in digests and after in digests and digests[before][part] != digests[after][part]:
            log.warning("the %s checkpoint was not trained on the %s one: results may be poor", after, before)
