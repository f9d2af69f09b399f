"""ResNet backbones (He et al. 2016) with torchvision's parameter names, so that its weights fit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Levels = tuple[Tensor, ...]
"""Four maps of one scale pyramid, finest first: strides 4, 8, 16, 32."""


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return torch.relu_(y)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut, with four times `channels` channels at the end."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.downsample = _shortcut(inputs, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = torch.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return torch.relu_(y)


Block = type[BasicBlock] | type[Bottleneck]

BACKBONES: dict[str, tuple[Block, tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
"""Block and number of blocks per stage of every backbone, by name."""


class ResNet(nn.Module):
    """A ResNet without its classifier: an image in, a pyramid of four maps out.

    `channels` holds the channels of the four maps, finest first. New weights are Kaiming normal over the
    fan-out, as in torchvision.
    """

    def __init__(self, name: str, bands: int, stem: int = 64) -> None:
        """Build it with new weights.

        Args:
            name: a key of `BACKBONES`.
            bands: channels of the image.
            stem: channels of the first stage; torchvision's weights have 64.
        """
        super().__init__()
        block, depths = BACKBONES[name]
        self.channels = tuple(c * block.expansion for c in (stem, 2 * stem, 4 * stem, 8 * stem))
        self.conv1 = nn.Conv2d(bands, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(block, stem, stem, depths[0], stride=1)
        self.layer2 = _stage(block, self.channels[0], 2 * stem, depths[1], stride=2)
        self.layer3 = _stage(block, self.channels[1], 4 * stem, depths[2], stride=2)
        self.layer4 = _stage(block, self.channels[2], 8 * stem, depths[3], stride=2)
        for module in self.modules():
            # on the meta device there is nothing to fill, and drawing there imports torch's compiler: seconds
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Levels:
        """Compute c2, c3, c4, c5.

        Args:
            image: (N, bands, H, W), scaled floats.

        Returns:
            Four maps (N, `channels[i]`, H / s, W / s), sizes rounded up, for the strides s = 4, 8, 16, 32.
        """
        x = torch.relu_(self.bn1(self.conv1(image)))  # (N, stem, H/2, W/2)
        c2 = self.layer1(self.maxpool(x))  # (N, channels[0], H/4, W/4)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c2, c3, c4, self.layer4(c4)

    def parts(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The modules of the stem, and those that make c2, c3, c4 and c5 of what is before them."""
        return (self.conv1, self.bn1), (self.layer1,), (self.layer2,), (self.layer3,), (self.layer4,)


def _stage(block: Block, inputs: int, channels: int, depth: int, stride: int) -> nn.Sequential:
    outputs = channels * block.expansion
    rest = [block(outputs, channels, 1) for _ in range(depth - 1)]
    return nn.Sequential(block(inputs, channels, stride), *rest)
