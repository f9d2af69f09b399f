"""Convolutions and backbones in their inference form: BatchNorm folded, ReLU and sums fused into the convolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glraster.model.fold.winograd import WinogradConv, transformed
from glraster.model.resnet import BasicBlock, Bottleneck, Levels, ResNet

# oneDNN applies sum and ReLU while the result is in registers: 15 % of a ResNet-50. The operator is torch's own,
# for its compiler, and not documented: where it is gone, the plain operators give the same.
_ONEDNN = bool(torch._C._has_mkldnn)
_FUSED = getattr(torch.ops.mkldnn, "_convolution_pointwise", None) if _ONEDNN else None
_FUSED_SUM = getattr(torch.ops.mkldnn, "_convolution_pointwise_", None) if _ONEDNN else None

WIDE, WIDEST = 128, 512
"""Channels from which Winograd's form of a 3x3 convolution is the faster one on a CPU, and up to which the weights of a
backbone in that form, four times as large, are worth their memory."""


@dataclass(frozen=True)
class Conv:
    """A convolution with a bias, a stride and zero padding (rows, columns) in channels-last memory."""

    weight: Tensor
    bias: Tensor
    stride: int = 1
    padding: tuple[int, int] = (0, 0)

    def __call__(self, x: Tensor, relu: bool = False, add: Tensor | None = None) -> Tensor:
        """Convolve (N, C, H, W); add it to `add`, which is overwritten and returned; apply ReLU, where asked."""
        form = (list(self.padding), [self.stride] * 2, [1, 1], 1)
        y: Tensor
        if x.device.type == "cpu" and add is not None and _FUSED_SUM is not None:
            rectifier = "relu" if relu else None
            y = _FUSED_SUM.binary(add, x, self.weight, self.bias, *form, "add", 1.0, rectifier, [], "")
        elif x.device.type == "cpu" and relu and add is None and _FUSED is not None:
            y = _FUSED(x, self.weight, self.bias, *form, "relu", [], "")
        else:
            y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
            y = y if add is None else add.add_(y)
            y = torch.relu_(y) if relu else y
        return y


def lean_conv(weight: Tensor, bias: Tensor | None, dtype: torch.dtype, stride: int = 1) -> Conv:
    """A convolution that keeps the map's size (over the stride), in a number format.

    Args:
        weight: (outputs, inputs, height, width), odd sides.
        bias: (outputs); zero where None.
        dtype: format of the weights.
        stride: of both axes.
    """
    bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    lasting = weight.detach().to(dtype, memory_format=torch.channels_last, copy=True)
    return Conv(lasting, bias.detach().to(dtype, copy=True), stride, padding)


def parameters(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that has both."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return conv.weight.detach(), conv.bias.detach()


def wide_conv(weight: Tensor, bias: Tensor | None, dtype: torch.dtype, *, often: bool) -> Conv | WinogradConv:
    """A 3x3 convolution that keeps the map's size, in the form that is fastest.

    Args:
        weight, bias, dtype: as `lean_conv`.
        often: whether it pays to keep a larger, transformed weight.
    """
    direct = lean_conv(weight, bias, dtype)
    if dtype == torch.float32 and weight.device.type == "cpu" and min(weight.shape[:2]) >= WIDE:
        kept = transformed(weight.detach()) if often else weight.detach().clone(memory_format=torch.contiguous_format)
        return WinogradConv(kept, direct.bias)
    return direct


def folded_conv(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype, *, often: bool = False
) -> Conv | WinogradConv:
    """A convolution and the BatchNorm behind it, in eval mode, as one convolution; `often` as in `wide_conv`.

    `gamma (W x - mean) / sigma + beta = (gamma / sigma) W x + (beta - gamma mean / sigma)`, in double precision.
    """
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = norm.bias.double() - mean.double() * scale
    if often and weight.shape[2] == 3 and conv.stride[0] == 1 and weight.shape[0] <= WIDEST:
        return wide_conv(weight.float(), bias.float(), dtype, often=True)
    return lean_conv(weight.float(), bias.float(), dtype, conv.stride[0])


@dataclass(frozen=True)
class LeanBlock:
    """A residual block: `convs` with ReLU between, the last one added to `shortcut` of the input (None: itself)."""

    convs: tuple[Conv | WinogradConv, ...]
    shortcut: Conv | WinogradConv | None

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs[:-1]:
            y = conv(y, relu=True)
        return self.convs[-1](y, relu=True, add=x if self.shortcut is None else self.shortcut(x))


@dataclass(frozen=True)
class LeanResNet:
    """A ResNet for inference: the function of `resnet.ResNet` in eval mode."""

    stem: Conv | WinogradConv
    stages: tuple[tuple[LeanBlock, ...], ...]

    @staticmethod
    def of(net: ResNet, dtype: torch.dtype, *, often: bool = False) -> LeanResNet:
        """Fold a ResNet; the weights are copied, in `dtype`; `often`: it is for many images."""
        stages = (net.layer1, net.layer2, net.layer3, net.layer4)
        return LeanResNet(
            folded_conv(net.conv1, net.bn1, dtype),
            tuple(tuple(_lean_block(block, dtype, often) for block in stage) for stage in stages),
        )

    def __call__(self, image: Tensor) -> Levels:
        """Compute c2, c3, c4, c5 of (N, bands, H, W), as `ResNet.forward`."""
        x = F.max_pool2d(self.stem(image, relu=True), 3, stride=2, padding=1)
        levels = []
        for stage in self.stages:
            for block in stage:
                x = block(x)
            levels.append(x)
        return tuple(levels)


def _lean_block(block: nn.Module, dtype: torch.dtype, often: bool) -> LeanBlock:
    assert isinstance(block, BasicBlock | Bottleneck)
    pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    if isinstance(block, Bottleneck):
        pairs.append((block.conv3, block.bn3))
    shortcut = None
    if block.downsample is not None:
        conv, norm = block.downsample.children()
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        shortcut = folded_conv(conv, norm, dtype)
    return LeanBlock(tuple(folded_conv(conv, norm, dtype, often=often) for conv, norm in pairs), shortcut)
