"""The folded local branch: from tiles to their votes, and to the maps that the refined branch merges.

`fold` explains the algebra and its notation. Level 0 is folded (points 5 and 6); if it is too small for that, it is
computed like the coarser levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from glraster.model.fold.border import LEAST, RING, Chain, Strips, chain
from glraster.model.fold.lean import Conv, LeanLite, LeanResNet, lean_backbone, lean_conv, parameters, wide_conv
from glraster.model.fold.sampling import Places, Sampler, fold_sampler, sample_places
from glraster.model.fold.taps import composed_products, resizing, shifted, shifted_twice, spread, tap_products
from glraster.model.fold.winograd import WinogradConv
from glraster.model.fpn import Shared, resize
from glraster.model.glnet import Pyramid
from glraster.model.resnet import Levels
from glraster.model.sharing import Tiling, crop

Size = tuple[int, int]


@dataclass(frozen=True)
class Layer:
    """A convolution over [own, foreign] maps: `own` has the bias, `foreign` makes the products of its taps."""

    own: Conv | WinogradConv
    foreign: Conv

    @staticmethod
    def of(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Layer:
        own, foreign = weight.chunk(2, dim=1)
        products = lean_conv(tap_products(foreign), None, dtype)
        if weight.shape[2] == 1:
            return Layer(lean_conv(own, bias, dtype), products)
        return Layer(wide_conv(own, bias, dtype, often=True), products)


@dataclass(frozen=True)
class Finest:
    """E * F * S2 * S1 at level 0: `down` (9x1, to 9 n channels), `across` (the sum of nine shifts), `border`.

    `foreign` makes the products of the guide's [ps0, ps1, ps2] for 81 taps; `constant` (n, 9, 9) is the contribution of
    the biases of S1 and S2, at every distance from the border.
    """

    down: Conv
    across: Conv
    foreign: Conv
    border: Chain
    constant: Tensor


@dataclass(frozen=True)
class Forms:
    """Sizes of a tile's maps and of their footprints per level, and the tap matrices between them."""

    tile: tuple[Size, ...]
    footprint: tuple[Size, ...]
    folded: bool
    places: Places | None

    def matrices(self, i: int) -> list[Tensor]:
        """The matrices that resize a footprint of level i to the tile's map, for rows and columns."""
        return [resizing(cells, side) for cells, side in zip(self.footprint[i], self.tile[i], strict=True)]

    def to_finest(self, i: int) -> list[Tensor]:
        """The matrices that resize a tile's map of level i to its finest one, for rows and columns."""
        return [resizing(cells, side) for cells, side in zip(self.tile[i], self.tile[0], strict=True)]


@dataclass(frozen=True)
class Sharing:
    """The guide's part in the tiles of a window: products of its maps per level, (1, channels, H_i, W_i).

    `sources` is [ps0, ps1, ps2] of level 0, of which `finest` has the products.
    """

    tiling: Tiling
    forms: Forms
    lateral: Levels
    smooth1: dict[int, Tensor]
    smooth2: dict[int, Tensor]
    votes: dict[int, Tensor]
    finest: Tensor | None
    sources: Tensor | None


@dataclass(frozen=True)
class Tiles:
    """The result of a batch of tiles: votes (B, n, h_0, w_0), float32, and, in a full model, maps to merge."""

    votes: Tensor
    shared: Shared


@dataclass(frozen=True)
class FoldedLocal:
    """The local branch up to the votes of one head; `sampler` if the maps are merged."""

    backbone: LeanResNet | LeanLite
    lateral: tuple[Layer, ...]
    smooth1: tuple[Layer, ...]
    smooth2: tuple[Layer, ...]
    votes: tuple[Layer, ...]
    offset: Tensor
    bias: Tensor
    finest: Finest
    sampler: Sampler | None

    def share(self, guide: Shared, tiling: Tiling) -> Sharing:
        """Compute the products that all tiles of a window use; the guide's maps are c, ps0, ps1, ps2."""
        c, ps0, ps1, ps2 = guide
        forms = self._forms(tiling, tuple((level.shape[-2], level.shape[-1]) for level in c))
        dense = range(1 if forms.folded else 0, 4)
        sources = torch.cat([ps0[0], ps1[0], ps2[0]], dim=1) if forms.folded else None
        return Sharing(
            tiling=tiling,
            forms=forms,
            lateral=tuple(layer.foreign(level) for layer, level in zip(self.lateral, c, strict=True)),
            smooth1={i: self.smooth1[i].foreign(ps0[i]) for i in dense},
            smooth2={i: self.smooth2[i].foreign(ps1[i]) for i in dense},
            votes={i: self.votes[i].foreign(ps2[i]) for i in dense},
            finest=None if sources is None else self.finest.foreign(sources),
            sources=sources,
        )

    def _forms(self, tiling: Tiling, sizes: tuple[Size, ...]) -> Forms:
        tile = [(-(-tiling.tile_height // 4), -(-tiling.tile_width // 4))]
        for _ in range(3):
            tile.append((-(-tile[-1][0] // 2), -(-tile[-1][1] // 2)))
        spans = [tiling.footprints(size, 0, 1)[0] for size in sizes]
        footprint = tuple((rows.stop - rows.start, columns.stop - columns.start) for rows, columns in spans)
        places = None if self.sampler is None else sample_places(tile[0], footprint[0])
        folded = min(tile[0]) >= LEAST and (self.sampler is None or places is not None)
        return Forms(tuple(tile), footprint, folded, places)

    def __call__(self, images: Tensor, sharing: Sharing, first: int) -> Tiles:
        """Run tiles `first`, `first` + 1, ... of the window, (B, bands, h, w)."""
        count = images.shape[0]

        def cut(maps: Tensor) -> Tensor:
            return crop(maps, sharing.tiling, first, count)

        c = self.backbone(images)
        ps0 = self._top_down(c, tuple(cut(level) for level in sharing.lateral))
        ps1, ps2 = {}, {}
        for i in sharing.smooth1:
            rows, columns = (shifted(matrix, 1).to(images) for matrix in sharing.forms.matrices(i))
            ps1[i] = self.smooth1[i].own(ps0[i], add=spread(cut(sharing.smooth1[i]), rows, columns))
            ps2[i] = self.smooth2[i].own(ps1[i], add=spread(cut(sharing.smooth2[i]), rows, columns))
        votes = self._offset(sharing.forms)
        for i, level in ps2.items():
            votes = votes + self._level_votes(i, level, cut(sharing.votes[i]), sharing.forms)
        sources = None
        if sharing.finest is not None and sharing.sources is not None:
            sources = cut(sharing.sources)
            votes = votes + self._finest_votes(ps0[0], cut(sharing.finest), sources, sharing.forms)
        if self.sampler is None:
            return Tiles(votes, ())
        if sources is not None and sharing.forms.places is not None:
            width = ps0[0].shape[1]
            foreign = (sources[:, :width], sources[:, width : 2 * width])
            ps1[0], ps2[0] = self.sampler(ps0[0], foreign, sharing.forms.places)
        return Tiles(votes, (c, ps0, *(tuple(levels[i] for i in range(4)) for levels in (ps1, ps2))))

    def _top_down(self, c: Levels, foreign: Levels) -> Levels:
        down: list[Tensor] = []
        for i in (3, 2, 1, 0):
            beside = resize(foreign[i], c[i].shape[-2:])  # never an alias of `foreign`: crops are copies
            if down:
                beside += resize(down[-1], c[i].shape[-2:])
            down.append(self.lateral[i].own(c[i], add=beside))
        return tuple(reversed(down))

    def _level_votes(self, i: int, ps2: Tensor, foreign: Tensor, forms: Forms) -> Tensor:
        """E * F on one level, own and foreign: (B, W/2, h_i, w_i) and (B, 49 n, r_i, s_i) to (B, n, h_0, w_0)."""
        up, up_foreign = forms.to_finest(i), forms.matrices(i)
        own = spread(self.votes[i].own(ps2), *(shifted_twice(matrix).to(ps2) for matrix in up))
        through = (shifted_twice(a @ b).to(ps2) for a, b in zip(up, up_foreign, strict=True))
        return own.float() + spread(foreign, *through).float()

    def _finest_votes(self, ps0: Tensor, products: Tensor, sources: Tensor, forms: Forms) -> Tensor:
        """E * F * S2 * S1 on level 0: own (B, W, h, w), products and sources of the footprint (B, ..., r, s)."""
        finest, (rows, columns) = self.finest, (matrix.to(ps0) for matrix in forms.matrices(0))
        votes = finest.across(finest.down(ps0)).float()
        votes += spread(products, shifted(rows, 4), shifted(columns, 4)).float()
        ends = [torch.cat([matrix[:RING], matrix[-RING:]])[:, None] for matrix in (rows, columns)]
        across = spread(sources, ends[0], columns[:, None])
        along = spread(sources, rows[:, None], ends[1])
        foreign = Strips((across[:, :, :RING], across[:, :, RING:], along[..., :RING], along[..., RING:]))
        finest.border.add(Strips.joined(Strips.of(ps0), foreign), votes)
        return votes

    def _offset(self, forms: Forms) -> Tensor:
        """The contribution of the biases: (n, h_0, w_0)."""
        ones = self.offset.new_ones(1, 1, *forms.tile[0])
        offset = F.conv2d(ones, self.offset, self.bias, padding=1)[0]
        if not forms.folded:
            return offset
        constant = self.finest.constant
        middle = constant.shape[-1] // 2
        for axis, side in ((1, forms.tile[0][0]), (2, forms.tile[0][1])):
            cells = torch.arange(side, device=constant.device)
            near = torch.where(cells < side - middle, cells.clamp(max=middle), cells - side + 2 * middle + 1)
            constant = constant.index_select(axis, near)
        return offset + constant


def fold_local(pyramid: Pyramid, head: Tensor, bias: Tensor | None, merges: bool, dtype: torch.dtype) -> FoldedLocal:
    """Fold the local branch under one head.

    Args:
        pyramid: the local branch.
        head: E (n, 2 W, 3, 3): the branch's own classifier, or the local half of the aggregation.
        bias: of the head.
        merges: whether a refined branch needs the maps.
        dtype: number format of convolutions.
    """
    fpn = pyramid.fpn
    assert fpn.fuse is not None
    assert fpn.fuse.bias is not None
    lateral, smooth1, smooth2 = (
        tuple(Layer.of(*parameters(conv), dtype) for conv in convs) for convs in (fpn.lateral, fpn.smooth1, fpn.smooth2)
    )
    fuses = fpn.fuse.weight.chunk(4, dim=1)[::-1]  # finest first, as levels are
    finest1, finest2 = parameters(fpn.smooth1[0]), parameters(fpn.smooth2[0])
    return FoldedLocal(
        backbone=lean_backbone(pyramid.backbone, dtype, often=True),
        lateral=lateral,
        smooth1=smooth1,
        smooth2=smooth2,
        votes=tuple(_level_votes(head, fuse, dtype) for fuse in fuses),
        offset=torch.einsum("nmyx,m->nyx", head, fpn.fuse.bias)[:, None],
        bias=head.new_zeros(head.shape[0]) if bias is None else bias.clone(),
        finest=fold_finest(head, fuses[0], finest2, finest1, dtype),
        sampler=fold_sampler(finest1, finest2, dtype) if merges else None,
    )


def _level_votes(head: Tensor, fuse: Tensor, dtype: torch.dtype) -> Layer:
    own, foreign = (lean_conv(composed_products(head, part), None, dtype) for part in fuse.chunk(2, dim=1))
    return Layer(own, foreign)


def fold_finest(
    head: Tensor, fuse: Tensor, smooth2: tuple[Tensor, Tensor], smooth1: tuple[Tensor, Tensor], dtype: torch.dtype
) -> Finest:
    """Compose the chain of level 0.

    Args:
        head: E (n, M, 3, 3).
        fuse: F (M, [own, foreign], 3, 3) of level 0.
        smooth2, smooth1: weight (outputs, [own, foreign], 3, 3) and bias of S2 and S1.
        dtype: number format.
    """
    (weight2, bias2), (weight1, bias1) = smooth2, smooth1
    own_fuse, foreign_fuse = fuse.chunk(2, dim=1)
    own2, foreign2 = weight2.chunk(2, dim=1)
    classes, width = head.shape[0], weight1.shape[1] // 2

    def backwards(cells: Tensor, cut: Callable[[Tensor], Tensor]) -> Tensor:
        behind = cut(F.conv_transpose2d(cells, head))
        to_ps2 = F.conv_transpose2d(behind, foreign_fuse)
        behind = cut(F.conv_transpose2d(behind, own_fuse))
        to_ps1 = F.conv_transpose2d(behind, foreign2)
        behind = cut(F.conv_transpose2d(behind, own2))
        to_ps0 = F.conv_transpose2d(behind, weight1)
        return torch.cat([to_ps0, F.pad(to_ps1, (1,) * 4), F.pad(to_ps2, (2,) * 4)], dim=1)

    kernels = chain(backwards, classes, head)
    own, foreign = kernels.inner[:, :width], kernels.inner[:, width:]
    shifts = torch.eye(9 * classes, device=head.device).view(9, classes, 9 * classes).permute(1, 2, 0)[:, :, None]
    small = bias1[:, None, None].expand(-1, LEAST, LEAST)
    small = F.conv2d(small[None], own2, bias2, padding=1)
    small = F.conv2d(F.conv2d(small, own_fuse, padding=1), head, padding=1)
    return Finest(
        down=lean_conv(own.permute(3, 0, 1, 2).reshape(9 * classes, width, 9, 1), None, dtype),
        across=lean_conv(shifts, None, dtype),
        foreign=lean_conv(tap_products(foreign), None, dtype),
        border=kernels.to(dtype),
        constant=small[0],
    )
