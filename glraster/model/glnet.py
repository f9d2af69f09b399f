"""GLNet: a global branch reads the context window, a local branch every tile, and they share their maps.

Source: Chen et al., Collaborative Global-Local Networks for Memory-Efficient Segmentation of Ultra-High
Resolution Images, CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glraster.config import Architecture, Branch, Mode
from glraster.errors import UsageError
from glraster.model.fpn import FPN, Maps, Shared, resize
from glraster.model.lite import LITE, STEM, EfficientNetLite
from glraster.model.resnet import BACKBONES, ResNet
from glraster.model.sharing import Collage, Tiling, crop, crop_shared

ONLY_GUIDE = "this model has a global branch only: use the global branch's logits"
NO_GUIDE = "this model sees tiles only, and no context: use the local branch's logits"

Backbone = ResNet | EfficientNetLite


def new_backbone(name: str, bands: int, stem: int) -> Backbone:
    """A backbone with new weights: a key of `BACKBONES` or `LITE`; the latter have one stem only."""
    return EfficientNetLite(name, bands) if name in LITE else ResNet(name, bands, stem)


class Pyramid(nn.Module):
    """One branch: a backbone and the feature pyramid on it."""

    def __init__(self, arch: Architecture, sharing: bool) -> None:
        super().__init__()
        self.backbone = new_backbone(arch.backbone, arch.bands, arch.stem)
        self.fpn = FPN(self.backbone.channels, arch.width, arch.classes, sharing)

    def forward(self, image: Tensor, other: Shared | None = None) -> Maps:
        """Run the branch on an image (N, bands, H, W); the sharing form takes the other branch's maps."""
        maps: Maps = self.fpn(self.backbone(image), other)
        return maps


@dataclass(frozen=True)
class Gathered:
    """What the refined branch needs of all tiles: `merged` maps, and `votes` (n, classes, h/4, w/4) per batch."""

    merged: Shared
    votes: list[Tensor]


class GLNet(nn.Module):
    """The network in one of its modes; rasters and training are other modules.

    - "global": `guide`, a global branch alone.
    - "local": `guide`, and `local`, which reads tiles and the guide's maps; `aggregate` joins the two.
    - "full": also `refined`, a global branch that reads the thumbnail and the merged maps of all tiles;
      `aggregate` joins it with `local`.
    - "tiles": `local` alone, which reads tiles and nothing else: a plain feature pyramid.

    Inputs are scaled floats. `global_logits` and `tile_logits` are for inference: they switch gradients off, and
    the caller puts the network into eval mode. Training calls the parts: the branches, `local_maps`, `gather`,
    `tile_votes`, `window_votes`.
    """

    guide: Pyramid | None
    local: Pyramid | None
    refined: Pyramid | None
    aggregate: nn.Conv2d | None

    def __init__(self, arch: Architecture) -> None:
        """Build it with new weights, drawn from torch's random state.

        Args:
            arch: mode, channels and backbone.

        Raises:
            ValueError: if the architecture is impossible.
        """
        super().__init__()
        _check(arch)
        self.arch = arch
        alone = arch.mode == "tiles"
        self.guide = None if alone else Pyramid(arch, sharing=False)
        self.local = Pyramid(arch, sharing=not alone) if arch.mode != "global" else None
        self.refined = Pyramid(arch, sharing=True) if arch.mode == "full" else None
        self.aggregate = None
        if arch.mode in ("local", "full"):
            self.aggregate = nn.Conv2d(4 * arch.width, arch.classes, 3, padding=1)
            if not self.aggregate.weight.is_meta:
                nn.init.normal_(self.aggregate.weight, std=0.01)

    @torch.inference_mode()
    def global_logits(self, thumbnail: Tensor) -> Tensor:
        """Classify the thumbnail with the guide alone.

        Args:
            thumbnail: (1, bands, h, w), the context window downsampled.

        Returns:
            (1, classes, h/4, w/4), sizes rounded up.

        Raises:
            UsageError: if the model has no global branch.
        """
        if self.guide is None:
            raise UsageError(NO_GUIDE)
        maps: Maps = self.guide(thumbnail)
        return maps.logits

    def tile_logits(
        self, thumbnail: Tensor, tiles: Iterable[Tensor], tiling: Tiling, branch: Branch = "full"
    ) -> Iterator[Tensor]:
        """Classify the tiles of one context window.

        "local" gives the logits of the local branch, "full" those of the aggregation: with the guide in a local
        model, with the refined branch in a full one. A full model reads all tiles before the first logits come, and
        holds `classes` channels of each; otherwise memory is one batch.

        Args:
            thumbnail: (1, bands, h, w), the context window downsampled.
            tiles: batches (n, bands, tile_height, tile_width) at full resolution, in the order of `tiling`.
            tiling: where the tiles lie in the window.
            branch: "local" or "full".

        Returns:
            (n, classes, tile_height/4, tile_width/4) per batch, in the same order, sizes rounded up.

        Raises:
            UsageError: if the model lacks the branch; mode "tiles" has "local" only, and does not read the thumbnail.
            ValueError: while iterating, if the tiles do not fit the tiling.
        """
        if self.local is None:
            raise UsageError(ONLY_GUIDE)
        if branch not in ("local", "full"):
            raise UsageError(f"tiles have no {branch!r} logits: use 'local' or 'full'")
        if self.guide is None and branch != "local":
            raise UsageError(NO_GUIDE)
        return self._tile_logits(thumbnail, tiles, tiling, branch)

    @torch.inference_mode()
    def _tile_logits(
        self, thumbnail: Tensor, tiles: Iterable[Tensor], tiling: Tiling, branch: Branch
    ) -> Iterator[Tensor]:
        guide: Maps | None = None if self.guide is None else self.guide(thumbnail)
        if branch == "full" and self.refined is not None:
            assert guide is not None
            gathered = self.gather(tiles, guide, tiling)
            context: Maps = self.refined(thumbnail, gathered.merged)
            for first, votes in _numbered(gathered.votes):
                yield votes + self.window_votes(context.ps3, tiling, first, votes.shape)
            return
        for first, maps in self.local_maps(tiles, guide, tiling):
            logits = maps.logits
            if branch == "full" and guide is not None:
                logits = self.tile_votes(maps.ps3)
                logits += self.window_votes(guide.ps3, tiling, first, logits.shape)
            del maps  # free them before the next batch is computed
            yield logits

    def local_maps(self, tiles: Iterable[Tensor], guide: Maps | None, tiling: Tiling) -> Iterator[tuple[int, Maps]]:
        """Run the local branch over batches of tiles.

        Args:
            tiles: batches (n, bands, tile_height, tile_width), in the order of `tiling`.
            guide: the guide's maps of the window; None in mode "tiles".
            tiling: where the tiles lie.

        Yields:
            Index of a batch's first tile, and the batch's maps.

        Raises:
            ValueError: if the tiles do not fit the tiling.
        """
        assert self.local is not None
        done = 0
        for first, batch in _numbered(tiles):
            done = first + batch.shape[0]
            if done > len(tiling) or tuple(batch.shape[-2:]) != (tiling.tile_height, tiling.tile_width):
                raise ValueError(f"tiles {first} to {done - 1}, {tuple(batch.shape)}, do not fit {tiling}")
            shared = None if guide is None else crop_shared(guide.shared, tiling, first, batch.shape[0])
            yield first, self.local(batch, shared)
        if done != len(tiling):
            raise ValueError(f"got {done} tiles of {len(tiling)}")

    def gather(self, tiles: Iterable[Tensor], guide: Maps, tiling: Tiling) -> Gathered:
        """Run the local branch over all tiles of a window, and merge their maps for the refined branch.

        Memory is the guide's maps twice, and `classes` channels per tile. Arguments and errors: `local_maps`.
        """
        collage = Collage(tiling, guide.shared)
        votes = []
        for first, maps in self.local_maps(tiles, guide, tiling):
            collage.add(maps.shared, first)
            votes.append(self.tile_votes(maps.ps3))
            del maps  # free them before the next batch is computed
        return Gathered(collage.merged(), votes)

    # The aggregation is one convolution over [local ps3, global ps3]. The convolution of a concatenation is a sum,
    # so the local half can be computed long before the global half is known.

    def tile_votes(self, ps3: Tensor) -> Tensor:
        """The local half of the aggregation: (n, 2 width, h, w) to (n, classes, h, w)."""
        assert self.aggregate is not None
        return F.conv2d(ps3, self.aggregate.weight[:, : 2 * self.arch.width], padding=1)

    def window_votes(self, ps3: Tensor, tiling: Tiling, first: int, shape: torch.Size) -> Tensor:
        """The global half of the aggregation; arguments as `window_context`, (n, classes, h, w) returned."""
        assert self.aggregate is not None
        context = self.window_context(ps3, tiling, first, shape)
        weight = self.aggregate.weight[:, 2 * self.arch.width :]
        return F.conv2d(context, weight, self.aggregate.bias, padding=1)

    @staticmethod
    def window_context(ps3: Tensor, tiling: Tiling, first: int, shape: torch.Size) -> Tensor:
        """A global branch's last map, cropped to `shape[0]` tiles and resized to their `shape[2:]` cells.

        Args:
            ps3: (1, 2 width, H, W).
            tiling: where the tiles lie.
            first: index of the first tile.
            shape: (n, _, h, w).

        Returns:
            (n, 2 width, h, w).
        """
        return resize(crop(ps3, tiling, first, shape[0]), shape[2:])


def _numbered(batches: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Pair every batch with the index of its first tile."""
    first = 0
    for batch in batches:
        yield first, batch
        first += batch.shape[0]


def _check(arch: Architecture) -> None:
    if arch.mode not in get_args(Mode):
        raise ValueError(f"unknown mode {arch.mode!r}: use {', '.join(get_args(Mode))}")
    if arch.backbone not in (*BACKBONES, *LITE):
        raise ValueError(f"unknown backbone {arch.backbone!r}: use {', '.join((*BACKBONES, *LITE))}")
    if arch.backbone in LITE and arch.stem != STEM:
        raise ValueError(f"{arch.backbone} has a stem of {STEM} channels, not {arch.stem}")
    if min(arch.bands, arch.classes, arch.stem) < 1 or arch.width < 2 or arch.width % 2:
        raise ValueError(f"bands, classes and stem must be positive and the width positive and even: {arch}")
