"""Synthetic checkpoints in the layout of the authors' code, and synthetic scenes: pure functions of a seed.

Values come from raw Philox words and float arithmetic only, so they are the same on every machine and with every
numpy. The reference numbers of the parity tests were computed on exactly these.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

FILES = {
    "g": "fpn_deepglobe_global.pth",
    "g2l": "fpn_deepglobe_global2local.pth",
    "l2g": "fpn_deepglobe_local2global.pth",
}
Shapes = dict[str, tuple[int, ...]]
Floats = npt.NDArray[np.float64]


def _batch_norm(name: str, channels: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (channels,) for leaf in leaves} | {f"{name}.num_batches_tracked": ()}


def _resnet50(name: str) -> Shapes:
    shapes: Shapes = {f"{name}.conv1.weight": (64, 3, 7, 7), **_batch_norm(f"{name}.bn1", 64)}
    inputs = 64
    for stage, (depth, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for i in range(depth):
            block = f"{name}.layer{stage}.{i}"
            convs = ((width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1))
            for j, shape in enumerate(convs, start=1):
                shapes |= {f"{block}.conv{j}.weight": shape, **_batch_norm(f"{block}.bn{j}", shape[0])}
            if i == 0:
                shapes[f"{block}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
                shapes |= _batch_norm(f"{block}.downsample.1", 4 * width)
            inputs = 4 * width
    return shapes


def _pyramid(name: str, fold: int, suffix: str = "") -> Shapes:
    convs: Shapes = {}
    for layer, channels in (("toplayer", 2048), ("latlayer1", 1024), ("latlayer2", 512), ("latlayer3", 256)):
        convs[layer + suffix] = (256, channels * fold, 1, 1)
    for level in range(1, 5):
        convs[f"smooth{level}_1{suffix}"] = (256, 256 * fold, 3, 3)
        convs[f"smooth{level}_2{suffix}"] = (128, 256 * fold, 3, 3)
    if fold == 2:
        convs["smooth"] = (512, 1024, 3, 3)
    return _convolutions(name, convs)


def _convolutions(name: str, convs: Shapes) -> Shapes:
    weights: Shapes = {f"{name}.{layer}.weight": shape for layer, shape in convs.items()}
    return weights | {f"{name}.{layer}.bias": shape[:1] for layer, shape in convs.items()}


def official_shapes(classes: int) -> Shapes:
    """Name and shape of the 718 entries of a checkpoint, without the prefix "module."."""
    heads: Shapes = {"classify": (classes, 512, 3, 3)}
    return {
        **_resnet50("resnet_global"),
        **_resnet50("resnet_local"),
        **_pyramid("fpn_global", 1),
        **_pyramid("fpn_global", 2, "_ext"),
        **_convolutions("fpn_global", heads),
        **_pyramid("fpn_local", 2),
        **_convolutions("fpn_local", heads),
        "ensemble_conv.weight": (classes, 1024, 3, 3),
        "ensemble_conv.bias": (classes,),
    }


def _stream(tag: str) -> np.random.Philox:
    return np.random.Philox(key=int.from_bytes(hashlib.sha256(tag.encode()).digest()[:16], "little"))


def _weight(key: str, shape: tuple[int, ...], seed: int, part: str) -> torch.Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(1000, dtype=torch.int64)
    count = int(np.prod(shape))
    words = _stream(f"{seed}|{part}|{key}").random_raw((count + 1) // 2).astype("<u8").view("<u4")[:count]
    unit = ((words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)).reshape(shape)
    if len(shape) == 1:
        return torch.from_numpy(unit + 0.5 if _is_gain(key) else (unit - 0.5) * 0.2)
    fan = int(np.prod(shape[1:]))
    weight = (unit - np.float32(0.5)) * np.float32((12.0 * _variance(key, fan)) ** 0.5)
    mean = weight.reshape(shape[0], -1).astype(np.float64).mean(1).astype(np.float32)
    return torch.from_numpy(weight - mean.reshape((-1,) + (1,) * (len(shape) - 1)))


def _is_gain(key: str) -> bool:
    return key.endswith(("running_var", "weight"))


def _variance(key: str, fan: int) -> float:
    """Keeps activations near one, so that an error anywhere shows in the logits."""
    variance = (2.0 if ".resnet_" in key else 1.0) / fan
    for matches, factor in (
        (key.endswith(("resnet_global.conv1.weight", "resnet_local.conv1.weight")), 30.0),
        (".conv3." in key, 0.12),
        (".downsample.0." in key, 0.5),
        (key.endswith(("classify.weight", "ensemble_conv.weight")), 4.0),
    ):
        variance *= factor if matches else 1.0
    return variance


def official_state(seed: int, classes: int, part: str) -> dict[str, torch.Tensor]:
    """The state dict of part "g", "g2l" or "l2g"; every part has other values everywhere."""
    shapes = {f"module.{key}": shape for key, shape in official_shapes(classes).items()}
    return {key: _weight(key, shape, seed, part) for key, shape in shapes.items()}


def state_digest(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].numpy().tobytes())
    return digest.hexdigest()[:16]


def write_official(folder: Path, seed: int, classes: int) -> dict[str, Path]:
    """Write the three checkpoints (0.3 GB each) under their published names."""
    paths = {part: folder / name for part, name in FILES.items()}
    for part, path in paths.items():
        torch.save(official_state(seed, classes, part), path)
    return paths


def _unit(tag: str, count: int) -> Floats:
    return (_stream(tag).random_raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _noise(tag: str, height: int, width: int, cell: float) -> Floats:
    rows, columns = int(height // cell) + 3, int(width // cell) + 3
    grid = _unit(tag, rows * columns).reshape(rows, columns)
    y, x = np.arange(height) / float(cell), np.arange(width) / float(cell)
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - y0, x - x0
    fy, fx = (fy * fy * (3 - 2 * fy))[:, None], (fx * fx * (3 - 2 * fx))[None, :]
    upper = grid[y0][:, x0] * (1 - fx) + grid[y0][:, x0 + 1] * fx
    lower = grid[y0 + 1][:, x0] * (1 - fx) + grid[y0 + 1][:, x0 + 1] * fx
    return upper * (1 - fy) + lower * fy


def _regions(tag: str, height: int, width: int, count: int, cell: float) -> npt.NDArray[np.uint8]:
    best, labels = np.full((height, width), -1.0), np.zeros((height, width), np.uint8)
    for k in range(count):
        value = 0.7 * _noise(f"{tag}|r{k}", height, width, cell)
        value += 0.3 * _noise(f"{tag}|s{k}", height, width, cell / 4.0)
        labels[value > best] = k
        best = np.maximum(best, value)
    return labels


def make_image(seed: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """An RGB scene (height, width, 3): sharp regions, gradients, texture and noise."""
    tag = f"img|{seed}|{height}|{width}"
    cell = max(24.0, min(height, width) / 6.0)
    labels = _regions(tag, height, width, 7, cell)
    color = _unit(f"{tag}|col", 21).reshape(7, 3) * 190 + 30
    amplitude = _unit(f"{tag}|amp", 7) * 60
    texture = [_noise(f"{tag}|t{c}", height, width, s) - 0.5 for c, s in enumerate((2.0, 5.0, 11.0))]
    image = np.empty((height, width, 3))
    for c in range(3):
        image[..., c] = color[labels, c] + (texture[c] + 0.6 * texture[(c + 1) % 3]) * amplitude[labels]
        image[..., c] += (_noise(f"{tag}|ill{c}", height, width, cell * 2) - 0.5) * 50
    image += (_unit(f"{tag}|n", height * width).reshape(height, width, 1) - 0.5) * 12
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)


def make_label(seed: int, height: int, width: int, classes: int) -> npt.NDArray[np.uint8]:
    """A label map (height, width) of smooth regions."""
    tag = f"lab|{seed}|{height}|{width}"
    return _regions(tag, height, width, classes, max(24.0, min(height, width) / 5.0))
