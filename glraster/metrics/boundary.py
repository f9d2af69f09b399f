"""Boundary F1: how well the outlines of a map follow those of the truth.

Source: Csurka, Larlus and Perronnin 2013, What is a good evaluation measure for semantic segmentation?, BMVC. There
every image has its score; here hits are counted over all images, so that blocks of a scene add up to the scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glraster.metrics.counts import Scores

BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.uint8]

_NONE = 255


@dataclass(frozen=True)
class Reach:
    """Which pixels are near: `half_widths[i]` columns to either side, i rows up or down.

    A tolerance of 3 px gives (3, 2, 2, 0):

        . . . # . . .   3 rows up: 0 columns to either side
        . # # # # # .
        . # # # # # .
        # # # o # # #   the pixel's own row: 3 columns
        . # # # # # .
        . # # # # # .
        . . . # . . .
    """

    half_widths: tuple[int, ...]

    @property
    def margin_px(self) -> int:
        """Pixels around a block that decide what counts inside it."""
        return max(len(self.half_widths) - 1, *self.half_widths) + 1


def reach(tolerance: float, pixel: tuple[float, float]) -> Reach:
    """The pixels within `tolerance` of a pixel, whose height and width are in the same unit.

    Args:
        tolerance: distance of pixel centres, in metres for example.
        pixel: height and width of a pixel.
    """
    height, width = pixel
    rows = range(math.floor(tolerance / height + 1e-9) + 1)
    return Reach(tuple(math.floor(math.sqrt(max(0.0, tolerance**2 - (i * height) ** 2)) / width + 1e-9) for i in rows))


@dataclass(frozen=True)
class BoundaryCounts:
    """Boundary pixels per class: `counts` (classes, 4) has predicted ones, those near a true one, true, near."""

    counts: npt.NDArray[np.int64]

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(self.counts + other.counts)


def boundary_counts(
    truth: IndexArray, prediction: IndexArray, classes: int, near: Reach, inner: tuple[slice, slice]
) -> BoundaryCounts:
    """Count the boundary pixels inside a part of a block.

    A pixel is on the boundary of its class if one of its four neighbours has another class. Pixels without a class
    in either raster are left out of both, and make no boundary.

    Args:
        truth: class indexes (H, W); `classes` and above is none.
        prediction: as `truth`.
        classes: how many.
        near: the tolerance.
        inner: rows and columns that count. The rest is surroundings: `near.margin_px` of them make the counts of
            blocks add up to those of the whole.

    Memory: a few arrays of the block's size.
    """
    known = (truth < classes) & (prediction < classes)
    edges = [np.where(known, values, _NONE) for values in (truth, prediction)]
    edges = [np.where(_on_boundary(values), values, _NONE) for values in edges]
    counts = np.zeros((classes, 4), np.int64)
    for c in np.unique(np.stack(edges)[:, *inner]):
        if c != _NONE:
            true, predicted = (values == c for values in edges)
            for column, (own, other) in zip((0, 2), ((predicted, true), (true, predicted)), strict=True):
                counts[c, column] = own[inner].sum()
                counts[c, column + 1] = (own & _dilate(other, near))[inner].sum()
    return BoundaryCounts(counts)


def class_boundary_f1(counts: BoundaryCounts) -> Scores:
    """F1 of every class: the harmonic mean of the shares of predicted and of true boundary pixels that have a match.

    NaN for a class without boundary in truth and prediction; 0 for one that only one of them has.
    """
    predicted, predicted_near, true, true_near = counts.counts.T.astype(np.float64)
    scores = np.where(predicted + true > 0, 0.0, np.nan)
    both = (predicted > 0) & (true > 0)
    precision, recall = predicted_near[both] / predicted[both], true_near[both] / true[both]
    total = precision + recall
    scores[both] = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return scores


def _on_boundary(values: IndexArray) -> BoolArray:
    edge = np.zeros(values.shape, bool)
    for turned, marked in ((values, edge), (values.T, edge.T)):
        first, second = turned[:-1], turned[1:]
        differs = (first != second) & (first != _NONE) & (second != _NONE)
        marked[:-1] |= differs
        marked[1:] |= differs
    return edge


def _dilate(mask: BoolArray, near: Reach) -> BoolArray:
    """Pixels that have one of the mask's within reach.

    A row has one within half a width if the running sum of the mask differs between the two ends of that span. The
    result for rows at distance i is that span's, shifted i rows up and down.
    """
    if not mask.any():
        return mask
    height, width = mask.shape
    widest = max(near.half_widths)
    sums = np.zeros((height, width + 2 * widest + 1), np.int32)
    np.cumsum(np.pad(mask, ((0, 0), (widest, widest))), axis=1, out=sums[:, 1:])
    dilated = np.zeros_like(mask)
    for i, half in enumerate(near.half_widths[:height]):
        first, last = widest - half, widest + half + 1
        wide = sums[:, last : last + width] > sums[:, first : first + width]
        dilated[i:] |= wide[: height - i]
        dilated[: height - i] |= wide[i:]
    return dilated
