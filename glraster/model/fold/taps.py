"""Convolutions of resized maps without computing the resized map.

A k x k convolution of a map that was cropped and resized bilinearly is a sum over taps of products: mix the channels of
the small map for every tap (`1x1` convolution, once), then shift and resize each tap's result. Shifting, resizing and
zero padding are separable into rows and columns, so the sum over taps is two matrix products: `spread`.

A *tap matrix* (rows, slots, cells) holds for every slot the weights by which cells of the small axis make a row of the
large one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resizing(cells: int, size: int) -> Tensor:
    """The matrix (size, cells) that resizes an axis as `fpn.resize` does: bilinear, edges repeated."""
    if cells == size:
        return torch.eye(cells)
    return F.interpolate(torch.eye(cells)[None], size=size, mode="linear", align_corners=False)[0].T.contiguous()


def shifted(matrix: Tensor, reach: int) -> Tensor:
    """Tap matrix of one convolution: slot k has row y + k - reach of `matrix` (rows, cells), zero beyond its ends.

    Returns:
        (rows, 2 reach + 1, cells).
    """
    rows = matrix.shape[0]
    padded = F.pad(matrix, (0, 0, reach, reach))
    return torch.stack([padded[k : k + rows] for k in range(2 * reach + 1)], dim=1)


def shifted_twice(matrix: Tensor) -> Tensor:
    """Tap matrix of two 3-tap convolutions in a row, with zero padding before each: (rows, 7, cells).

    Slots 0 to 4 are shifts by -2 to 2. A path that leaves the map with the first tap and comes back with the second
    goes through the padding: it is subtracted in the first row (slot 5: taps -1, +1) and in the last (slot 6: +1, -1).
    """
    back = torch.zeros(matrix.shape[0], 2, matrix.shape[1])
    back[0, 0] = -matrix[0]
    back[-1, 1] = -matrix[-1]
    return torch.cat([shifted(matrix, 2), back], dim=1)


def slots_of_two() -> Tensor:
    """The slots of `shifted_twice` that a pair of taps (outer, inner) belongs to: (3, 3, 7) of zeros and ones."""
    slots = torch.zeros(3, 3, 7)
    for outer in range(3):
        for inner in range(3):
            slots[outer, inner, outer + inner] = 1
    slots[0, 2, 5] = 1
    slots[2, 0, 6] = 1
    return slots


def spread(products: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sum the taps' products, each shifted and resized by its slot of the tap matrices.

    Args:
        products: (B, kx ky n, I, J), channels-last; channel order: column slot, row slot, output.
        rows: (H, ky, I).
        columns: (W, kx, J).

    Returns:
        (B, n, H, W), channels-last: sum over slots and cells of rows · products · columns.
    """
    b, channels, i, j = products.shape
    (h, ky, _), (w, kx, _) = rows.shape, columns.shape
    n = channels // (kx * ky)
    flat = products.permute(0, 2, 3, 1).reshape(b * i, j * kx, ky * n)
    across = torch.matmul(columns.permute(0, 2, 1).reshape(w, j * kx), flat)  # (B I, W, ky n)
    across = across.view(b, i, w, ky, n).permute(0, 1, 3, 2, 4).reshape(b, i * ky, w * n)
    down = torch.matmul(rows.permute(0, 2, 1).reshape(h, i * ky), across)  # (B, H, W n)
    return down.view(b, h, w, n).permute(0, 3, 1, 2)


def tap_products(weight: Tensor) -> Tensor:
    """A convolution's weight (n, C, ky, kx) as the 1x1 weight (kx ky n, C, 1, 1) of its taps' products."""
    n, c, ky, kx = weight.shape
    return weight.permute(3, 2, 0, 1).reshape(kx * ky * n, c, 1, 1)


def composed_products(outer: Tensor, inner: Tensor) -> Tensor:
    """Two 3x3 convolutions in a row as the 1x1 weight (49 n, C, 1, 1) that goes with `shifted_twice`.

    Args:
        outer: (n, M, 3, 3), applied last.
        inner: (M, C, 3, 3), applied first.
    """
    slots = slots_of_two().to(outer.device, torch.float64)
    paths = torch.einsum("nmyx,mcvu->nyxcvu", outer.double(), inner.double())
    mixed = torch.einsum("nyxcvu,yvp,xuq->qpnc", paths, slots, slots)
    return mixed.reshape(-1, inner.shape[1], 1, 1).float()
