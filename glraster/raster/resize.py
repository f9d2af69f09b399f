"""Shrink a context window to the thumbnail that the global branch sees."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_FRACTION_BITS = 22


def thumbnail(image: npt.NDArray[np.generic], height: int, width: int) -> npt.NDArray[np.generic]:
    """Resize an image with an anti-aliased triangle filter.

    uint8 images are resized with the integer arithmetic of Pillow's `Image.resize(..., BILINEAR)`, bit by bit,
    because GLNet's published weights were trained on its output; other dtypes in float32. Rows are resized first, as
    Pillow did then (Pillow 13 turns the order for tall images, which moves some values by one).

    Args:
        image: (C, H, W).
        height: rows of the result.
        width: columns of the result.

    Returns:
        (C, height, width) in the dtype of `image`.
    """
    if image.shape[2] != width:
        image = _resize_last(image, width)
    if image.shape[1] != height:
        image = _resize_last(image.swapaxes(1, 2), height).swapaxes(1, 2)
    return np.ascontiguousarray(image)


def resize_weights(length: int, size: int) -> npt.NDArray[np.float32]:
    """The anti-aliased triangle filter from `length` to `size` pixels as a matrix, (size, length)."""
    taps, weights = _triangle(length, size)
    matrix = np.zeros((size, length))
    np.add.at(matrix, (np.arange(size), taps), weights)
    return matrix.astype(np.float32)


def _resize_last(image: npt.NDArray[np.generic], size: int) -> npt.NDArray[np.generic]:
    taps, weights = _triangle(image.shape[-1], size)
    lines = np.ascontiguousarray(np.moveaxis(image, -1, 0))
    if image.dtype != np.uint8:
        total = sum(w[:, None, None] * lines[t] for t, w in zip(taps, weights.astype(np.float32), strict=True))
        return np.moveaxis(np.asarray(total, image.dtype), 0, -1)
    fixed = np.where(weights < 0, -0.5, 0.5) + weights * (1 << _FRACTION_BITS)
    accumulated = np.full((size, *lines.shape[1:]), 1 << (_FRACTION_BITS - 1), np.int32)
    for tap, weight in zip(taps, fixed.astype(np.int32), strict=True):
        accumulated += weight[:, None, None] * lines[tap]
    return np.moveaxis(np.clip(accumulated >> _FRACTION_BITS, 0, 255).astype(np.uint8), 0, -1)


def _triangle(length: int, size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Source indices and weights, both (taps, size), of a triangle filter as wide as the shrinking asks."""
    scale = length / size
    support = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(np.intp), 0)
    stop = np.minimum((centres + support + 0.5).astype(np.intp), length)
    taps = first + np.arange(int((stop - first).max()))[:, None]
    weights = np.maximum(1.0 - np.abs((taps - centres + 0.5) / support), 0.0)
    weights[taps >= stop] = 0.0
    return np.minimum(taps, length - 1), weights / weights.sum(axis=0)
