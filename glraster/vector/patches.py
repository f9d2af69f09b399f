"""Number the patches of a band of a class raster, and measure them and their common borders.

A *patch* is a connected set of pixels of one class: a face, or with 8-connectivity all faces that touch at corners.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glraster.vector.arcs import NONE, Int32Array, unite
from glraster.vector.compiled import compiled, int64

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RowMetrics:
    """Of every row of the raster, from its first row on: area of a pixel, its width (at its upper edge) and height."""

    first_row: int
    area: FloatArray
    width: FloatArray
    height: FloatArray


class BandPatches(NamedTuple):
    """The patches of one band of rows, with labels local to it: of the row above the band, of its last row; value and
    area of every label; pairs of labels with the length of their common border.
    """

    above: Int32Array
    below: Int32Array
    value: Int32Array
    area: FloatArray
    borders: tuple[Int32Array, Int32Array, FloatArray]


def band_patches(
    pixels: npt.NDArray[Any], blank: int, metrics: RowMetrics, first_row: int, diagonal: bool
) -> BandPatches:
    """Number and measure the patches of a band.

    Args:
        pixels: with the row above the band, as for `trace`.
        blank: value of pixels without class.
        metrics: sizes of the rows of the raster, or of this band's.
        first_row: of the band.
        diagonal: whether patches that touch at a corner are one.

    Memory: 8 bytes per pixel, besides what is returned.
    """
    labels, count = number_patches(pixels, diagonal)
    rows = slice(first_row - metrics.first_row, first_row - metrics.first_row + len(pixels) - 1)
    area = np.zeros(count)
    value = np.empty(count, np.int32)
    _measure_patches(pixels, labels, _padded(metrics.area[rows], len(pixels) - 1), value, area)
    borders = _common_borders(pixels, labels, blank, (metrics.width[rows], metrics.height[rows]))
    return BandPatches(labels[0].copy(), labels[-1].copy(), value, area, borders)


def with_new_values(pixels: npt.NDArray[Any], values: npt.NDArray[Any], diagonal: bool) -> npt.NDArray[Any]:
    """A band again, with the row above it, every pixel with the new value of its label."""
    labels, _ = number_patches(pixels, diagonal)
    merged: npt.NDArray[Any] = values.astype(pixels.dtype)[labels]
    return merged


def number_patches(pixels: npt.NDArray[Any], diagonal: bool) -> tuple[Int32Array, int]:
    """Labels 0, 1, 2, ... of the patches of one value in a band, and how many there are."""
    labels = np.empty(pixels.shape, np.int32)
    parent = np.empty(pixels.size, np.int32)
    count = _number(pixels, labels, parent, diagonal)
    return labels, count


@compiled
def _number(pixels: Any, labels: Any, parent: Int32Array, diagonal: bool) -> int:
    rows, columns = pixels.shape
    used = 0
    for r in range(rows):
        for c in range(columns):
            value, label = pixels[r, c], int64(NONE)
            if r > 0 and pixels[r - 1, c] == value:
                label = int64(labels[r - 1, c])
            if c > 0 and pixels[r, c - 1] == value:
                west = int64(labels[r, c - 1])
                if label != NONE and label != west:
                    unite(parent, label, west)
                label = west
            if label == NONE:
                label = used
                parent[used] = used
                used += 1
            labels[r, c] = label
            if diagonal and r > 0:
                if c > 0 and pixels[r - 1, c - 1] == value:
                    unite(parent, label, int64(labels[r - 1, c - 1]))
                if c + 1 < columns and pixels[r - 1, c + 1] == value:
                    unite(parent, label, int64(labels[r - 1, c + 1]))
    count = 0
    for i in range(used):
        if parent[i] == i:
            parent[i] = -1 - count
            count += 1
        else:
            root = parent[i]
            while root >= 0 and parent[root] >= 0:
                root = parent[root]
            parent[i] = parent[root]
    for r in range(rows):
        for c in range(columns):
            labels[r, c] = -1 - parent[labels[r, c]]
    return count


@compiled
def _measure_patches(pixels: Any, labels: Any, row_area: Any, value: Any, area: Any) -> None:
    """Sum up areas; the row above the band is another band's and counts nothing."""
    for r in range(len(labels)):
        for c in range(labels.shape[1]):
            value[labels[r, c]] = pixels[r, c]
            if r > 0:
                area[labels[r, c]] += row_area[r - 1]


def _common_borders(
    pixels: npt.NDArray[Any], labels: Int32Array, blank: int, sizes: tuple[FloatArray, FloatArray]
) -> tuple[Int32Array, Int32Array, FloatArray]:
    """Pairs of labels of different patches with the length of their common border."""
    rows = len(pixels) - 1
    width, height = (_padded(size, rows) for size in sizes)
    filled = pixels != blank
    level = (labels[1:] != labels[:-1]) & filled[1:] & filled[:-1]
    upright = (labels[1:, 1:] != labels[1:, :-1]) & filled[1:, 1:] & filled[1:, :-1]
    one = np.concatenate([labels[1:][level], labels[1:, 1:][upright]])
    two = np.concatenate([labels[:-1][level], labels[1:, :-1][upright]])
    length = np.concatenate([width[np.nonzero(level)[0]], height[np.nonzero(upright)[0]]])
    return summed(np.minimum(one, two), np.maximum(one, two), length)


def summed(one: Int32Array, two: Int32Array, length: FloatArray) -> tuple[Int32Array, Int32Array, FloatArray]:
    key = one.astype(np.int64) << 32 | two
    keys, index = np.unique(key, return_inverse=True)
    sums: FloatArray = np.bincount(index, length, len(keys)).astype(np.float64)
    return (keys >> 32).astype(np.int32), (keys & 0xFFFFFFFF).astype(np.int32), sums


def _padded(values: FloatArray, length: int) -> FloatArray:
    return np.pad(values, (0, length - len(values)))
