"""The maps ps1 and ps2 of level 0, computed only where the merge into the window reads them: point 6 of `fold`.

Shrinking a tile's map into its footprint bilinearly, without antialiasing, reads two rows and two columns for every
cell. Shrinking commutes with mixing channels, so a convolution shrunk is a sum over taps of shifted maps shrunk, mixed:
every cell reads 5 x 5 bilinear samples of ps0, of which 3 x 3 make ps1 and all make ps2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from glraster.model.fold.lean import Conv, lean_conv
from glraster.model.fold.taps import resizing, shifted, spread, tap_products

SPARSE = 3
"""Sampling is faster if the footprint has at most a third of the tile's cells along each axis."""


@dataclass(frozen=True)
class Samples:
    """Samples of a tile map at k x k taps around the places that D reads, k = 2 reach + 1.

    `cells` and `shares` (k r k s, 4): the four neighbours of every sample in the flattened map and their weights, in
    the order row, row tap, column, column tap. `rows` (r, k, r), `columns` (s, k, s): tap matrices of the same samples
    in a footprint that was resized to the tile.
    """

    cells: Tensor
    shares: Tensor
    rows: Tensor
    columns: Tensor

    @staticmethod
    def lay(size: tuple[int, int], shrinking: list[Tensor], reach: int) -> Samples:
        """The samples of a map of `size`, given the matrices of D for rows and columns."""
        rows, row_shares = _neighbours(shrinking[0], reach)
        columns, column_shares = _neighbours(shrinking[1], reach)
        cells = rows[:, None, :, None] * size[1] + columns[None, :, None, :]
        shares = row_shares[:, None, :, None] * column_shares[None, :, None, :]
        through = [torch.einsum("iy,ytc->itc", d, shifted(resizing(d.shape[0], d.shape[1]), reach)) for d in shrinking]
        return Samples(cells.reshape(-1, 4), shares.reshape(-1, 4), *through)

    def of_tile(self, maps: Tensor) -> Tensor:
        """Sample channels-last maps (B, C, h, w): (B, C, k r, k s)."""
        b, c, h, w = maps.shape
        table = maps.permute(0, 2, 3, 1).reshape(b * h * w, c)
        first = torch.arange(b, device=maps.device)[:, None, None] * (h * w)
        shares = self.shares.to(table).repeat(b, 1)
        cells = (self.cells.to(maps.device) + first).reshape(-1, 4)
        sampled = F.embedding_bag(cells, table, mode="sum", per_sample_weights=shares)
        (r, k, _), (s, _, _) = self.rows.shape, self.columns.shape
        return sampled.view(b, k * r, k * s, c).permute(0, 3, 1, 2)

    def of_footprint(self, products: Tensor) -> Tensor:
        """A convolution of footprints resized to the tile, from the products of its taps.

        (B, k k n, r, s) to (B, n, r, s).
        """
        return spread(products, self.rows.to(products), self.columns.to(products))


@dataclass(frozen=True)
class Places:
    """The samples of a tile's finest map that D reads, at 3 x 3 and 5 x 5 taps."""

    three: Samples
    five: Samples


def sample_places(size: tuple[int, int], footprint: tuple[int, int]) -> Places | None:
    """The samples of a tile map (h, w) for a footprint (r, s).

    None if sampling is slower, or if it reaches cells that the padding between S1 and S2 changes.
    """
    shrinking = [resizing(side, cells) for side, cells in zip(size, footprint, strict=True)]
    if any(SPARSE * d.shape[0] > d.shape[1] or bool(d[:, 0].any() or d[:, -1].any()) for d in shrinking):
        return None
    return Places(Samples.lay(size, shrinking, 1), Samples.lay(size, shrinking, 2))


def _neighbours(shrinking: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Per cell and tap, two neighbours on the long axis and their weights, zero beyond its ends: (k r, 2)."""
    length = shrinking.shape[1]
    first = (shrinking > 0).int().argmax(dim=1)
    pair = torch.stack([first, (first + 1).clamp(max=length - 1)], dim=1)
    share = shrinking.gather(1, pair)
    places = pair[:, None, :] + torch.arange(-reach, reach + 1)[None, :, None]
    shares = share[:, None, :] * ((places >= 0) & (places < length))
    return places.clamp(0, length - 1).reshape(-1, 2), shares.reshape(-1, 2)


@dataclass(frozen=True)
class Sampled:
    """A convolution at the places: `own` takes samples of the tile, `foreign` makes the products of a footprint."""

    own: Conv
    foreign: Conv

    @staticmethod
    def of(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Sampled:
        """Split a weight (outputs, [own, foreign] inputs, k, k)."""
        own, foreign = weight.chunk(2, dim=1)
        conv = lean_conv(own, bias, dtype)
        strided = Conv(conv.weight, conv.bias, weight.shape[2])  # every block of k x k samples makes one cell
        return Sampled(strided, lean_conv(tap_products(foreign), None, dtype))

    def __call__(self, maps: Tensor, footprints: Tensor, samples: Samples) -> Tensor:
        return self.own(samples.of_tile(maps), add=samples.of_footprint(self.foreign(footprints)))


@dataclass(frozen=True)
class Sampler:
    """S1 and S2 * S1 of the tile's ps0 and the guide's, and the products of S2 for the guide's ps1."""

    smooth1: Sampled
    smooth2: Sampled
    foreign2: Conv

    def __call__(self, ps0: Tensor, foreign: tuple[Tensor, Tensor], places: Places) -> tuple[Tensor, Tensor]:
        """Compute ps1 and ps2 at the footprint's cells.

        Args:
            ps0: (B, W, h, w), channels-last.
            foreign: footprints cut out of the guide's ps0 and ps1, (B, W, r, s).
            places: of these sizes.

        Returns:
            (B, W, r, s) and (B, W/2, r, s).
        """
        ps2 = self.smooth2(ps0, foreign[0], places.five)
        ps2 += places.three.of_footprint(self.foreign2(foreign[1]))
        return self.smooth1(ps0, foreign[0], places.three), ps2


def fold_sampler(smooth1: tuple[Tensor, Tensor], smooth2: tuple[Tensor, Tensor], dtype: torch.dtype) -> Sampler:
    """Compose the sampler's kernels.

    Args:
        smooth1, smooth2: weight (outputs, [own, foreign] inputs, 3, 3) and bias of S1 and S2 of level 0.
        dtype: number format.
    """
    (weight1, bias1), (weight2, bias2) = smooth1, smooth2
    own2, foreign2 = weight2.chunk(2, dim=1)
    twice = F.conv_transpose2d(own2.double(), weight1.double()).float()
    bias = bias2 + own2.sum((2, 3)) @ bias1
    products = lean_conv(tap_products(foreign2), None, dtype)
    return Sampler(Sampled.of(weight1, bias1, dtype), Sampled.of(twice, bias, dtype), products)
