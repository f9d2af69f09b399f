"""3x3 convolutions of wide maps with 36 instead of 144 products for every 4 x 4 outputs.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, F(4x4, 3x3): with the matrices
below, `Y = At [(G g Gt) . (Bt d B)] A` for an input patch d of 6 x 6, a kernel g, and an output patch Y of 4 x 4. The
product over channels is one matrix product for each of the 36 places. In float32 the error is 1e-5 of the largest
value; in bfloat16 it is too large.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_B_T = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
_G = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
_A_T = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
    (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
)

_TILE, _PATCH = 4, 6
_BUFFER = 4 << 20
"""Bytes of transformed patches at a time: few enough to stay in the cache between the steps."""


@dataclass(frozen=True)
class WinogradConv:
    """A zero-padded 3x3 convolution.

    `weight` is transformed, (36, C, outputs); or plain, (outputs, C, 3, 3), and transformed in every call: that takes a
    quarter of the memory and is for convolutions that run seldom. `bias` (outputs).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor, relu: bool = False, add: Tensor | None = None) -> Tensor:
        """Convolve channels-last (N, C, H, W), add `add`, a map of the result's shape, apply ReLU if `relu`."""
        weight = transformed(self.weight) if self.weight.dim() == 4 else self.weight
        n, c, height, width = x.shape
        outputs = weight.shape[2]
        rows, columns = -(-height // _TILE), -(-width // _TILE)
        padded = F.pad(x, (1, _TILE * columns - width + 1, 1, _TILE * rows - height + 1)).permute(0, 2, 3, 1)
        result = x.new_empty(n, rows, _TILE, columns, _TILE, outputs)
        whole = result.view(n, _TILE * rows, _TILE * columns, outputs)[:, :height, :width]
        before, after = _transforms(x)
        chunks = -(-rows * _PATCH**2 * n * columns * max(c, outputs) * x.element_size() // _BUFFER)
        step = -(-rows // min(rows, chunks))
        for row in range(0, rows, step):
            count = min(step, rows - row)
            lines = padded[:, _TILE * row : _TILE * (row + count) + 2]
            patches = lines.unfold(1, _PATCH, _TILE).unfold(2, _PATCH, _TILE).permute(4, 5, 0, 1, 2, 3)
            changed = before @ patches.reshape(_PATCH**2, -1)
            mixed = torch.bmm(changed.view(_PATCH**2, -1, c), weight)
            tiles = (after @ mixed.view(_PATCH**2, -1)).view(_TILE, _TILE, n, count, columns, outputs)
            torch.add(tiles.permute(2, 3, 0, 4, 1, 5), self.bias, out=result[:, row : row + count])
            # now, while they are in the cache
            place = slice(_TILE * row, min(_TILE * (row + count), height))
            if add is not None:
                whole[:, place] += add.permute(0, 2, 3, 1)[:, place]
            if relu:
                whole[:, place].relu_()
        return whole.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def transformed(weight: Tensor) -> Tensor:
    """A kernel (outputs, C, 3, 3) as (36, C, outputs)."""
    g = torch.tensor(_G, dtype=weight.dtype, device=weight.device)
    return torch.einsum("ay,bx,ocyx->abco", g, g, weight).flatten(0, 1).contiguous()


def _transforms(like: Tensor) -> tuple[Tensor, Tensor]:
    """The two-dimensional transforms of patches, (36, 36), and of products, (16, 36)."""
    b_t, a_t = (torch.tensor(matrix, dtype=torch.float64) for matrix in (_B_T, _A_T))
    return torch.kron(b_t, b_t).to(like), torch.kron(a_t, a_t).to(like)
