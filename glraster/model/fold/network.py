"""The folded network: the guide reads the window, then come the tiles, then, in a full model, the refined branch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from glraster.config import Architecture, Branch
from glraster.errors import UsageError
from glraster.model.fold.lean import Conv, LeanLite, LeanResNet, lean_backbone, lean_conv, parameters, wide_conv
from glraster.model.fold.local import FoldedLocal, fold_local
from glraster.model.fold.taps import resizing, shifted, spread, tap_products
from glraster.model.fold.winograd import WinogradConv
from glraster.model.fpn import Shared, resize
from glraster.model.glnet import NO_GUIDE, ONLY_GUIDE, GLNet, Pyramid
from glraster.model.resnet import Levels
from glraster.model.sharing import Collage, Tiling, crop

FOLD_VERSION = 2
"""Version of this arithmetic: another version gives the same logits up to their last bits."""


@dataclass(frozen=True)
class LeanPyramid:
    """The backbone and pyramid of a branch up to ps2, unchanged but for its backbone; `other` as in `FPN.forward`."""

    backbone: LeanResNet | LeanLite
    lateral: tuple[Conv, ...]
    smooth1: tuple[Conv | WinogradConv, ...]
    smooth2: tuple[Conv | WinogradConv, ...]

    @staticmethod
    def of(pyramid: Pyramid, dtype: torch.dtype) -> LeanPyramid:
        fpn = pyramid.fpn
        return LeanPyramid(
            lean_backbone(pyramid.backbone, dtype),
            tuple(lean_conv(*parameters(layer), dtype) for layer in fpn.lateral),
            tuple(wide_conv(*parameters(layer), dtype, often=False) for layer in fpn.smooth1),
            tuple(wide_conv(*parameters(layer), dtype, often=False) for layer in fpn.smooth2),
        )

    def shared(self, image: Tensor, other: Shared | None = None) -> Shared:
        """c, ps0, ps1, ps2 of an image (1, bands, h, w)."""
        c = self.backbone(image)
        down = [self.lateral[3](_join(c, other, 0, 3))]
        for i in (2, 1, 0):
            size = c[i].shape[-2:]
            beside = resize(down[-1], size)
            beside = beside.clone() if beside is down[-1] else beside
            down.append(self.lateral[i](_join(c, other, 0, i), add=beside))
        ps0: Levels = tuple(reversed(down))
        ps1: Levels = tuple(conv(_join(ps0, other, 1, i)) for i, conv in enumerate(self.smooth1))
        return c, ps0, ps1, tuple(conv(_join(ps1, other, 2, i)) for i, conv in enumerate(self.smooth2))


@dataclass(frozen=True)
class Head:
    """A k x k convolution, to few channels, of four levels that are resized to the finest and concatenated.

    `finest` convolves level 0, `products` are the taps of the coarser ones; the bias is in `finest`.
    """

    finest: Conv
    products: tuple[Conv, ...]

    @staticmethod
    def of(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Head:
        """Split a weight (n, channels of four levels, coarsest first, k, k)."""
        coarse3, coarse2, coarse1, finest = weight.chunk(4, dim=1)
        products = (lean_conv(tap_products(w), None, dtype) for w in (coarse1, coarse2, coarse3))
        return Head(lean_conv(weight=finest, bias=bias, dtype=dtype), tuple(products))

    def __call__(self, levels: Levels) -> Tensor:
        """(N, C, h_i, w_i) per level to (N, n, h_0, w_0)."""
        total, size = self.finest(levels[0]), levels[0].shape[-2:]
        reach = self.finest.padding[0]
        for conv, level in zip(self.products, levels[1:], strict=True):
            rows, columns = (
                shifted(resizing(cells, side), reach).to(level)
                for cells, side in zip(level.shape[-2:], size, strict=True)
            )
            total += spread(conv(level), rows, columns)
        return total


@dataclass(frozen=True)
class FoldedBranch:
    """A branch that sees no other branch's maps, up to its own logits."""

    pyramid: LeanPyramid
    head: Head

    @staticmethod
    def of(pyramid: Pyramid, dtype: torch.dtype) -> FoldedBranch:
        classify = pyramid.fpn.classify
        return FoldedBranch(LeanPyramid.of(pyramid, dtype), Head.of(classify.weight, classify.bias, dtype))

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, classes, h/4, w/4), float32, of images (B, bands, h, w)."""
        return self.head(self.pyramid.shared(images)[3]).float()


@dataclass(frozen=True)
class GuideOutput:
    """The guide's logits (1, classes, h, w), float32, of a thumbnail, and the maps that tiles use."""

    logits: Tensor
    shared: Shared


class FoldedGLNet:
    """A GLNet for inference: `global_logits` and `tile_logits` as those of `GLNet`, in one number format.

    `run_guide` and `guided_logits` are the two halves of `tile_logits`, for callers that select tiles by the guide's
    logits. Weights are copies, on the device of the network they come from. Logits are float32.
    """

    def __init__(self, model: GLNet, branch: Branch, dtype: torch.dtype = torch.float32) -> None:
        """Fold a network for the logits of one branch.

        Args:
            model: in eval mode; it is not changed and may be dropped afterwards.
            branch: the branch whose logits are computed.
            dtype: number format of convolutions.

        Raises:
            UsageError: if the model lacks the branch.
        """
        if branch != "global" and model.local is None:
            raise UsageError(ONLY_GUIDE)
        if branch != "local" and model.guide is None:
            raise UsageError(NO_GUIDE)
        self.arch: Architecture = model.arch
        self.branch, self.dtype = branch, dtype
        with torch.inference_mode():
            self._guide = None if model.guide is None else FoldedBranch.of(model.guide, dtype)
            self._alone: FoldedBranch | None = None
            self._local: FoldedLocal | None = None
            self._refined: LeanPyramid | None = None
            self._context: Head | None = None
            if branch != "global":
                self._fold_tiles(model, branch)

    def _fold_tiles(self, model: GLNet, branch: Branch) -> None:
        local, aggregate = model.local, model.aggregate
        assert local is not None
        if model.guide is None:
            self._alone = FoldedBranch.of(local, self.dtype)
            return
        assert aggregate is not None
        if branch == "local":
            self._local = fold_local(local, local.fpn.classify.weight, local.fpn.classify.bias, False, self.dtype)
            return
        from_tile, from_window = aggregate.weight.chunk(2, dim=1)
        self._local = fold_local(local, from_tile, aggregate.bias, model.refined is not None, self.dtype)
        products = tap_products(from_window)
        if model.refined is None:
            self._context = Head.of(products, None, self.dtype)
            return
        fuse = model.refined.fpn.fuse
        assert fuse is not None
        assert fuse.bias is not None
        self._refined = LeanPyramid.of(model.refined, self.dtype)
        weight = torch.einsum("nm,mcyx->ncyx", products[:, :, 0, 0], fuse.weight)
        self._context = Head.of(weight, products[:, :, 0, 0] @ fuse.bias, self.dtype)

    @torch.inference_mode()
    def global_logits(self, thumbnail: Tensor) -> Tensor:
        """Classify the thumbnail (1, bands, h, w) with the guide alone: (1, classes, h/4, w/4), sizes rounded up."""
        return self.run_guide(thumbnail).logits

    @torch.inference_mode()
    def run_guide(self, thumbnail: Tensor) -> GuideOutput:
        """Run the guide on the thumbnail (1, bands, h, w) of a window.

        Raises:
            UsageError: if the network has none.
        """
        if self._guide is None:
            raise UsageError(NO_GUIDE)
        shared = self._guide.pyramid.shared(self._enter(thumbnail))
        return GuideOutput(self._guide.head(shared[3]).float(), shared)

    def guided_logits(self, guide: GuideOutput, tiles: Iterable[Tensor], tiling: Tiling) -> Iterator[Tensor]:
        """Classify some tiles of a window, or all: the logits that `tile_logits` gives for these tiles.

        Args:
            guide: of the window's thumbnail.
            tiles: batches (n, bands, tile_height, tile_width), in the order of `tiling`.
            tiling: where the tiles lie; at least one is there.

        Raises:
            UsageError: if the network has a refined branch, which needs all tiles, or no local one.
            ValueError: while iterating, if the tiles do not fit the tiling.
        """
        if self._local is None or self._refined is not None:
            raise UsageError("tiles cannot be selected: this needs a model of mode local, folded for its tiles")
        return self._guided_logits(guide.shared, tiles, tiling)

    def tile_logits(
        self, thumbnail: Tensor, tiles: Iterable[Tensor], tiling: Tiling, branch: Branch | None = None
    ) -> Iterator[Tensor]:
        """Classify the tiles of one context window; see `GLNet.tile_logits`.

        Raises:
            UsageError: if the network was folded for another branch.
            ValueError: while iterating, if the tiles do not fit the tiling.
        """
        if (self._local is None and self._alone is None) or (branch or self.branch) != self.branch:
            raise UsageError(f"the network was folded for the {self.branch} branch; fold it again for {branch!r}")
        return self._tile_logits(thumbnail, tiles, tiling)

    @torch.inference_mode()
    def _tile_logits(self, thumbnail: Tensor, tiles: Iterable[Tensor], tiling: Tiling) -> Iterator[Tensor]:
        if self._alone is not None:
            for _, batch in self._batches(tiles, tiling):
                yield self._alone(batch)
            return
        assert self._local is not None
        assert self._guide is not None
        image = self._enter(thumbnail)
        guide = self._guide.pyramid.shared(image)
        if self._refined is None or self._context is None:
            yield from self._guided_logits(guide, tiles, tiling)
            return
        sharing = self._local.share(guide, tiling)
        collage, votes = Collage(tiling, guide), []
        del guide
        for first, batch in self._batches(tiles, tiling):
            done = self._local(batch, sharing, first)
            collage.add(done.shared, first)
            votes.append(done.votes)
            del done  # free it before the next batch is computed
        del sharing
        merged = collage.merged()
        refined = self._refined.shared(image, merged)
        products = self._context(tuple(_join(refined[3], merged, 3, i) for i in range(4)))
        del collage, merged, refined
        first = 0
        for batch_votes in votes:
            yield self._with_context(batch_votes, products, tiling, first)
            first += batch_votes.shape[0]

    @torch.inference_mode()
    def _guided_logits(self, guide: Shared, tiles: Iterable[Tensor], tiling: Tiling) -> Iterator[Tensor]:
        assert self._local is not None
        sharing = self._local.share(guide, tiling)
        context = None if self._context is None else self._context(guide[3])
        for first, batch in self._batches(tiles, tiling):
            logits = self._local(batch, sharing, first).votes
            yield logits if context is None else self._with_context(logits, context, tiling, first)

    def _with_context(self, votes: Tensor, context: Tensor, tiling: Tiling, first: int) -> Tensor:
        """Add the global half of the aggregation, of which `context` (1, 9 n, H, W) are the products."""
        footprints = crop(context, tiling, first, votes.shape[0])
        rows, columns = (
            shifted(resizing(cells, side), 1).to(footprints)
            for cells, side in zip(footprints.shape[-2:], votes.shape[-2:], strict=True)
        )
        return votes + spread(footprints, rows, columns).float()

    def _batches(self, tiles: Iterable[Tensor], tiling: Tiling) -> Iterator[tuple[int, Tensor]]:
        done = 0
        for batch in tiles:
            first, done = done, done + batch.shape[0]
            if done > len(tiling) or tuple(batch.shape[-2:]) != (tiling.tile_height, tiling.tile_width):
                raise ValueError(f"tiles {first} to {done - 1}, {tuple(batch.shape)}, do not fit {tiling}")
            yield first, self._enter(batch)
        if done != len(tiling):
            raise ValueError(f"got {done} tiles of {len(tiling)}")

    def _enter(self, image: Tensor) -> Tensor:
        return image.to(self.dtype, memory_format=torch.channels_last)


def _join(levels: Levels, other: Shared | None, depth: int, i: int) -> Tensor:
    """Concatenate the two branches' maps, which have the same size here."""
    return levels[i] if other is None else torch.cat([levels[i], other[depth][i]], dim=1)
