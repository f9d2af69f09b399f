"""Backbones have torchvision's names and shapes, and a pyramid of the right sizes."""

from __future__ import annotations

import pytest
import torch

from glraster.model import metadata
from glraster.model.lite import LITE, STEM
from glraster.model.resnet import BACKBONES, ResNet

# entries and parameters of torchvision's models without fc; some names that only the right layout has
LAYOUTS = {
    "resnet18": (
        120,
        11_176_512,
        {"layer4.1.bn2.running_var": (512,), "layer2.0.downsample.0.weight": (128, 64, 1, 1)},
    ),
    "resnet34": (
        216,
        21_284_672,
        {"layer3.5.conv2.weight": (256, 256, 3, 3), "layer4.2.conv1.weight": (512, 512, 3, 3)},
    ),
    "resnet50": (
        318,
        23_508_032,
        {
            "conv1.weight": (64, 3, 7, 7),
            "layer1.0.downsample.0.weight": (256, 64, 1, 1),
            "layer1.0.downsample.1.num_batches_tracked": (),
            "layer3.5.conv3.weight": (1024, 256, 1, 1),
            "layer4.0.conv2.weight": (512, 512, 3, 3),
            "layer4.2.bn3.bias": (2048,),
        },
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_names_and_shapes_are_those_of_torchvision(name: str) -> None:
    with torch.device("meta"):
        network = ResNet(name, bands=3)
    entries, parameters, some = LAYOUTS[name]
    state = network.state_dict()
    assert len(state) == entries
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert {key: tuple(state[key].shape) for key in some} == some


def test_the_backbones_that_a_file_may_name_exist() -> None:
    assert set(metadata.BACKBONES) == {*BACKBONES, *LITE}
    assert dict.fromkeys(LITE, STEM) == metadata.FIXED_STEMS


@pytest.mark.parametrize(
    ("name", "channels"), [("resnet18", (64, 128, 256, 512)), ("resnet50", (256, 512, 1024, 2048))]
)
@pytest.mark.parametrize("bands", [1, 5])
def test_the_pyramid_has_four_strides(name: str, channels: tuple[int, ...], bands: int) -> None:
    maps = ResNet(name, bands).eval()(torch.rand(2, bands, 68, 132))
    assert [tuple(x.shape) for x in maps] == [
        (2, c, h, w) for c, (h, w) in zip(channels, ((17, 33), (9, 17), (5, 9), (3, 5)), strict=True)
    ]
