"""Convolutions and backbones in their inference form: BatchNorm folded, ReLU and sums fused into the convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glraster.model.fold.winograd import WinogradConv, transformed
from glraster.model.glnet import Backbone
from glraster.model.lite import EfficientNetLite, InvertedBlock
from glraster.model.resnet import BasicBlock, Bottleneck, Levels, ResNet

# oneDNN applies sum and ReLU while the result is in registers, which saves 15 % of a ResNet-50. torch has this operator
# for its compiler and does not document it; if a version lacks it, the plain operators give the same.
_ONEDNN = bool(torch._C._has_mkldnn)
_FUSED = getattr(torch.ops.mkldnn, "_convolution_pointwise", None) if _ONEDNN else None
_FUSED_SUM = getattr(torch.ops.mkldnn, "_convolution_pointwise_", None) if _ONEDNN else None

WIDE, WIDEST = 128, 512
"""Least number of channels for which Winograd's form of a 3x3 convolution is faster on a CPU, and the most for which a
backbone keeps its weights in that form, four times as large."""


@dataclass(frozen=True)
class Conv:
    """A convolution with a bias, a stride, zero padding (rows, columns) and groups, in channels-last memory."""

    weight: Tensor
    bias: Tensor
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    groups: int = 1

    def __call__(self, x: Tensor, relu: bool = False, add: Tensor | None = None) -> Tensor:
        """Convolve (N, C, H, W); add it to `add`, which is overwritten and returned; apply ReLU, if asked."""
        y: Tensor
        if x.device.type == "cpu" and add is not None and _FUSED_SUM is not None:
            rectifier = "relu" if relu else None
            y = _FUSED_SUM.binary(add, x, self.weight, self.bias, *self._form, "add", 1.0, rectifier, [], "")
        elif x.device.type == "cpu" and relu and add is None and _FUSED is not None:
            y = _FUSED(x, self.weight, self.bias, *self._form, "relu", [], "")
        else:
            y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
            y = y if add is None else add.add_(y)
            y = torch.relu_(y) if relu else y
        return y

    def relu6(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W) and limit the result to 0 to 6."""
        if x.device.type == "cpu" and _FUSED is not None:
            y: Tensor = _FUSED(x, self.weight, self.bias, *self._form, "hardtanh", [0.0, 6.0], "")
            return y
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups).clamp_(0, 6)

    @property
    def _form(self) -> tuple[list[int], list[int], list[int], int]:
        return list(self.padding), [self.stride] * 2, [1, 1], self.groups


def lean_conv(weight: Tensor, bias: Tensor | None, dtype: torch.dtype, stride: int = 1) -> Conv:
    """A convolution that keeps the map's size (over the stride), in a number format.

    Args:
        weight: (outputs, inputs, height, width), odd sides.
        bias: (outputs); zero if None.
        dtype: format of the weights.
        stride: of both axes.
    """
    bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    copied = weight.detach().to(dtype, memory_format=torch.channels_last, copy=True)
    return Conv(copied, bias.detach().to(dtype, copy=True), stride, padding)


def parameters(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that has both."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return conv.weight.detach(), conv.bias.detach()


def wide_conv(weight: Tensor, bias: Tensor | None, dtype: torch.dtype, *, often: bool) -> Conv | WinogradConv:
    """A 3x3 convolution that keeps the map's size, in the fastest form.

    Args:
        weight, bias, dtype: as `lean_conv`.
        often: whether it runs often enough to keep a larger, transformed weight.
    """
    direct = lean_conv(weight, bias, dtype)
    if dtype == torch.float32 and weight.device.type == "cpu" and min(weight.shape[:2]) >= WIDE:
        plain = weight.detach().clone(memory_format=torch.contiguous_format)
        return WinogradConv(transformed(plain) if often else plain, direct.bias)
    return direct


def folded_conv(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype, *, often: bool = False
) -> Conv | WinogradConv:
    """A convolution and the BatchNorm behind it, in eval mode, as one convolution; `often` as in `wide_conv`.

    `gamma (W x - mean) / sigma + beta = (gamma / sigma) W x + (beta - gamma mean / sigma)`, in double precision.
    """
    weight, bias = _without_norm(conv, norm)
    if often and weight.shape[2] == 3 and conv.stride[0] == 1 and weight.shape[0] <= WIDEST:
        return wide_conv(weight, bias, dtype, often=True)
    return lean_conv(weight, bias, dtype, conv.stride[0])


def _without_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what `conv` and `norm` do together, float32."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = norm.bias.double() - mean.double() * scale
    return weight.float(), bias.float()


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
        """Fold a ResNet; the weights are copied, in `dtype`; `often` as in `wide_conv`."""
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


@dataclass(frozen=True)
class SameLean:
    """A convolution with stride 2 that pads as `lite.SameConv` does.

    Its kernel has one more row and column of zeros in front. That makes the padding of even sides the same all around,
    and nothing need be copied.
    """

    conv: Conv

    @staticmethod
    def of(weight: Tensor, bias: Tensor, groups: int, dtype: torch.dtype) -> SameLean:
        wider = F.pad(weight.detach(), (1, 0, 1, 0)).to(dtype, memory_format=torch.channels_last)
        reach = weight.shape[2] // 2
        return SameLean(Conv(wider, bias.detach().to(dtype, copy=True), 2, (reach, reach), groups))

    def relu6(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W) and limit the result to 0 to 6."""
        odd = (x.shape[-1] % 2, x.shape[-2] % 2)
        return self.conv.relu6(F.pad(x, (0, odd[0], 0, odd[1])) if any(odd) else x)


@dataclass(frozen=True)
class LeanInverted:
    """An inverted residual block: `convs` with ReLU6 behind each, then `project`, added to the input if `adds`."""

    convs: tuple[Conv | SameLean, ...]
    project: Conv
    adds: bool

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs:
            y = conv.relu6(y)
        return self.project(y, add=x if self.adds else None)


@dataclass(frozen=True)
class LeanLite:
    """An EfficientNet-Lite for inference: the function of `lite.EfficientNetLite` in eval mode."""

    stem: Conv | SameLean
    levels: tuple[tuple[LeanInverted, ...], ...]

    @staticmethod
    def of(net: EfficientNetLite, dtype: torch.dtype) -> LeanLite:
        """Fold the network; the weights are copied, in `dtype`."""
        _, *levels = net.parts()
        return LeanLite(
            _relu6_conv(net.conv_stem, net.bn0, dtype),
            tuple(tuple(_lean_inverted(block, dtype) for block in blocks) for blocks in levels),
        )

    def __call__(self, image: Tensor) -> Levels:
        """Compute c2, c3, c4, c5 of (N, bands, H, W), as `EfficientNetLite.forward`."""
        x = self.stem.relu6(image)
        maps = []
        for blocks in self.levels:
            for block in blocks:
                x = block(x)
            maps.append(x)
        return tuple(maps)


def _lean_inverted(block: nn.Module, dtype: torch.dtype) -> LeanInverted:
    assert isinstance(block, InvertedBlock)
    pairs = [(block.depthwise_conv, block.bn1)]
    if block.expand_conv is not None and block.bn0 is not None:
        pairs.insert(0, (block.expand_conv, block.bn0))
    project = lean_conv(*_without_norm(block.project_conv, block.bn2), dtype)
    return LeanInverted(tuple(_relu6_conv(conv, norm, dtype) for conv, norm in pairs), project, block.adds)


def _relu6_conv(conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype) -> Conv | SameLean:
    weight, bias = _without_norm(conv, norm)
    if conv.stride[0] == 2:
        return SameLean.of(weight, bias, conv.groups, dtype)
    return replace(lean_conv(weight, bias, dtype), groups=conv.groups)


def lean_backbone(net: Backbone, dtype: torch.dtype, *, often: bool = False) -> LeanResNet | LeanLite:
    """Fold a backbone; arguments as `LeanResNet.of`."""
    return LeanLite.of(net, dtype) if isinstance(net, EfficientNetLite) else LeanResNet.of(net, dtype, often=often)
