"""A trained GLNet in its inference form: the same logits with a quarter of the operations.

From c2..c5 to the logits the network is linear, so its operations can be reordered. Notation: level i = 0..3
has h_i x w_i cells in a tile, R resizes, C crops a tile's footprint out of a map of the window, D shrinks into it, `*`
is a zero-padded convolution. W = width, n = classes; the second term of each sum is the other branch's (`foreign`).

    ps0_i = L_i c_i + R ps0_{i+1} + R C (L'_i g_i)          g: c2..c5 of the guide
    ps1_i = S1_i * ps0_i + S1'_i * R C (ps0 of the guide)
    ps2_i = S2_i * ps1_i + S2'_i * R C (ps1 of the guide)
    votes = E * sum_i [F_i * R ps2_i + F'_i * R R C (ps2 of the guide)]

1. A convolution of concatenated maps is the sum of two. So the aggregation splits into a local and a global half, and
   only n channels of each tile are held until the refined branch has run.
2. L'_i is 1x1 and commutes with C and R: it is applied once to the window's small map.
3. S * R C m is a sum over taps of shifted, resized products of the small map m (`taps`): the products are made once
   for a window, a tile takes two small matrix products. So do coarse levels seen by E * F: n channels instead of 4 W.
4. E * F on its own is one convolution with 49 instead of 25 taps, exact at the border (`taps.shifted_twice`).
5. At level 0, with 3/4 of all cells, ps1 and ps2 are not needed themselves: E * F * S2 * S1 is one 9x9 convolution
   from W to n channels, done as 9x1 to 9 n channels and a sum of nine shifts; `border` makes it exact in the outer
   three cells.
6. The refined branch sees ps1_0 and ps2_0 only through D, which reads about every fifth cell: they are computed only
   there, S1 from 3x3 and S2 * S1 from 5x5 taps sampled by D.
7. BatchNorm becomes part of the convolution before it; ReLU, ReLU6 and sums are fused into it (`lean`).

A network of mode tiles has neither guide nor aggregation: of all this it uses 3 for its coarse levels, and 7.

Multiply-adds of a tile of 508 px with ResNet-50, W = 256, n = 7: backbone 21.3 G; pyramid 12 G instead of 118.7 G.
"""

from glraster.model.fold.network import FOLD_VERSION, FoldedGLNet, GuideOutput

__all__ = ["FOLD_VERSION", "FoldedGLNet", "GuideOutput"]
