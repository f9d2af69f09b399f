"""The feature pyramid of GLNet, with or without the maps of the other branch.

Source: Chen et al., Collaborative Global-Local Networks for Memory-Efficient Segmentation of Ultra-High
Resolution Images, CVPR 2019; Lin et al., Feature Pyramid Networks, CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glraster.model.resnet import Levels

Shared = tuple[Levels, ...]
"""The maps that branches share: four depths (c, ps0, ps1, ps2) of four levels each, finest level first."""


@dataclass(frozen=True)
class Maps:
    """The output of one branch for an image of H x W pixels.

    `shared` goes to the other branch; `ps3` (N, 2 width, H/4, W/4) to the aggregation; `logits`
    (N, classes, H/4, W/4) are the branch's own. Sizes are rounded up.
    """

    shared: Shared
    ps3: Tensor
    logits: Tensor


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (N, C, H, W) bilinearly, without antialiasing, to (N, C, *size)."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


class FPN(nn.Module):
    """A feature pyramid: its four levels are concatenated into one map (ps3), which is classified.

    In the sharing form every layer also sees the other branch's map of the same depth and level, and one more
    3x3 convolution (`fuse`) reduces the doubled ps3 to its width. The pyramid is linear throughout.
    New weights are N(0, 0.01), biases 0.
    """

    def __init__(self, channels: Sequence[int], width: int, classes: int, sharing: bool) -> None:
        """Build it with new weights.

        Args:
            channels: channels of c2, c3, c4, c5.
            width: channels of ps0 and ps1; ps2 has half of it per level, ps3 twice.
            classes: channels of the logits.
            sharing: whether every layer also reads the other branch's maps.
        """
        super().__init__()
        fold, half = (2 if sharing else 1), width // 2
        self.lateral = nn.ModuleList(nn.Conv2d(c * fold, width, 1) for c in channels)
        self.smooth1 = nn.ModuleList(nn.Conv2d(width * fold, width, 3, padding=1) for _ in channels)
        self.smooth2 = nn.ModuleList(nn.Conv2d(width * fold, half, 3, padding=1) for _ in channels)
        self.fuse = nn.Conv2d(4 * half * fold, 4 * half, 3, padding=1) if sharing else None
        self.classify = nn.Conv2d(4 * half, classes, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None and not module.weight.is_meta:
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, c: Levels, other: Shared | None = None) -> Maps:
        """Run the pyramid.

        Args:
            c: c2, c3, c4, c5 of the backbone, (N, C, H/4, W/4) and coarser.
            other: the other branch's maps of the same ground, with as many channels, of any size; required in the
                sharing form, and refused in the other.

        Returns:
            The maps of this branch.

        Raises:
            ValueError: if `other` is missing, or given to the form that does not share.
        """
        if (other is None) != (self.fuse is None):
            raise ValueError("the sharing form needs the other branch's maps, and no other form takes them")
        ps0 = self._top_down(c, other)
        ps1 = tuple(conv(_join(ps0, other, 1, i)) for i, conv in enumerate(self.smooth1))
        ps2 = tuple(conv(_join(ps1, other, 2, i)) for i, conv in enumerate(self.smooth2))
        finest = ps2[0].shape[-2:]
        # coarsest first, as in the published weights
        ps3 = torch.cat([resize(_join(ps2, other, 3, i), finest) for i in (3, 2, 1, 0)], dim=1)
        if self.fuse is not None:
            ps3 = self.fuse(ps3)
        return Maps((c, ps0, ps1, ps2), ps3, self.classify(ps3))

    def _top_down(self, c: Levels, other: Shared | None) -> Levels:
        """Add each coarser map, resized, to the next finer one: (N, C, ...) per level to (N, width, ...)."""
        down = [self.lateral[3](_join(c, other, 0, 3))]
        for i in (2, 1, 0):
            lateral = self.lateral[i](_join(c, other, 0, i))
            down.append(resize(down[-1], lateral.shape[-2:]) + lateral)
        return tuple(reversed(down))


def _join(levels: Levels, other: Shared | None, depth: int, i: int) -> Tensor:
    """Concatenate the two branches' maps of level i: (N, C, H, W) to (N, 2 C, H, W)."""
    level = levels[i]
    if other is None:
        return level
    return torch.cat([level, resize(other[depth][i], level.shape[-2:])], dim=1)
