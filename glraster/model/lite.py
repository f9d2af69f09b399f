"""EfficientNet-Lite backbones: inverted residual blocks with ReLU6 and without squeeze-and-excitation.

Source: Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019; Liu,
Higher accuracy on vision models with EfficientNet-Lite, 2020, and the code in TensorFlow that came with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from glraster.model.resnet import Levels

STEM = 32
"""Channels of the first convolution, in every size of the network."""

MEAN, STD = 127 / 255, 128 / 255
"""What the published weights expect: values from 0 to 1, less the mean, over the standard deviation."""

LITE: dict[str, tuple[float, float]] = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""Width and depth multiplier of every size, by name."""

_EPS = 1e-3  # of the published weights


@dataclass(frozen=True)
class _Stage:
    """Blocks of one width: the first has `stride`; `ends_level`: its output is one of c2 to c5."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int
    ends_level: bool


_STAGES = (
    _Stage(1, 3, 1, 1, 16, False),
    _Stage(2, 3, 2, 6, 24, True),
    _Stage(2, 5, 2, 6, 40, True),
    _Stage(3, 3, 2, 6, 80, False),
    _Stage(3, 5, 1, 6, 112, True),
    _Stage(4, 5, 2, 6, 192, False),
    _Stage(1, 3, 1, 6, 320, True),
)


class SameConv(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does: with stride 2, cell i is centred on 2 i + 1.

    The size is rounded up. On even sides the result is that of TensorFlow's "SAME". Odd sides get one more row or
    column of zeros at the end, so that cells lie alike in tiles of every size.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        if self.stride[0] == 2:
            before = self.kernel_size[0] // 2 - 1
            x = F.pad(x, (before, before + 1 + x.shape[-1] % 2, before, before + 1 + x.shape[-2] % 2))
        return super().forward(x)


class InvertedBlock(nn.Module):
    """A 1x1 convolution to many channels, a depthwise one, and a 1x1 one to few; added to the input if it fits."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.expand_conv = SameConv(inputs, wide, 1) if expansion > 1 else None
        self.bn0 = _norm(wide) if expansion > 1 else None
        self.depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide)
        self.bn1 = _norm(wide)
        self.project_conv = SameConv(wide, outputs, 1)
        self.bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on (N, inputs, H, W)."""
        y: Tensor = x
        if self.expand_conv is not None and self.bn0 is not None:
            y = _relu6(self.bn0(self.expand_conv(y)))
        y = _relu6(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        if self.adds:
            y += x
        return y


class EfficientNetLite(nn.Module):
    """An EfficientNet-Lite without its head: an image in, a pyramid of four maps out.

    `channels` holds the channels of the four maps, finest first; `level_ends` the number of blocks that lead to each.
    Parameters have the names of the published PyTorch weights without their leading underscores. New weights are
    Kaiming normal over the fan-out.
    """

    def __init__(self, name: str, bands: int) -> None:
        """Build it with new weights.

        Args:
            name: a key of `LITE`.
            bands: channels of the image.
        """
        super().__init__()
        self.conv_stem = SameConv(bands, STEM, 3, stride=2)
        self.bn0 = _norm(STEM)
        blocks, inputs, channels, ends = [], STEM, [], []
        for stage, (count, outputs) in zip(_STAGES, _sizes(name), strict=True):
            for i in range(count):
                stride = stage.stride if i == 0 else 1
                blocks.append(InvertedBlock(inputs, outputs, stage.kernel, stride, stage.expansion))
                inputs = outputs
            if stage.ends_level:
                channels.append(outputs)
                ends.append(len(blocks))
        self.blocks = nn.ModuleList(blocks)
        self.channels, self.level_ends = tuple(channels), tuple(ends)
        for module in self.modules():
            # as in ResNet: on the meta device there is nothing to fill
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def forward(self, image: Tensor) -> Levels:
        """Compute c2, c3, c4, c5.

        Args:
            image: (N, bands, H, W), scaled floats.

        Returns:
            Four maps (N, `channels[i]`, H / s, W / s), sizes rounded up, for the strides s = 4, 8, 16, 32.
        """
        x = _relu6(self.bn0(self.conv_stem(image)))  # (N, 32, H/2, W/2)
        levels = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number in self.level_ends:
                levels.append(x)
        return tuple(levels)

    def parts(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The modules of the stem, and those that make c2, c3, c4 and c5 of what is before them."""
        starts = (0, *self.level_ends)
        levels = (tuple(self.blocks[a:b]) for a, b in zip(starts, self.level_ends, strict=False))
        return ((self.conv_stem, self.bn0), *levels)


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename published weights, `_blocks.0._bn1.weight` to `blocks.0.bn1.weight`, and leave out the classifier."""
    names = {name: name.removeprefix("_").replace("._", ".") for name in state}
    head = ("_conv_head.", "_bn1.", "_fc.")
    return {new: state[old] for old, new in names.items() if not old.startswith(head)}


def _sizes(name: str) -> list[tuple[int, int]]:
    """Blocks and channels of every stage: the first and the last stage keep their number of blocks."""
    width, depth = LITE[name]
    last = len(_STAGES) - 1
    counts = (s.blocks if i in (0, last) else math.ceil(depth * s.blocks) for i, s in enumerate(_STAGES))
    return [(count, _rounded(width * stage.channels)) for count, stage in zip(counts, _STAGES, strict=True)]


def _rounded(channels: float) -> int:
    """The nearest multiple of 8 that is not more than 10 % below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPS)


def _relu6(x: Tensor) -> Tensor:
    return F.relu6(x, inplace=True)
