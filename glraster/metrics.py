"""How well a map agrees with the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Confusion = npt.NDArray[np.int64]
"""Pixel counts (classes, classes): rows are true classes, columns predicted ones."""


def confusion(truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], classes: int) -> Confusion:
    """Count pairs of true and predicted class indexes; an index of `classes` or above is none and does not count."""
    known = (truth < classes) & (prediction < classes)
    pairs = truth[known].astype(np.int64) * classes + prediction[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_iou(counts: Confusion) -> npt.NDArray[np.float64]:
    """Intersection over union of every class; NaN for one that neither truth nor prediction has."""
    hits = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    scores = np.full(len(hits), np.nan)
    np.divide(hits, union, out=scores, where=union > 0)
    return scores


def mean_iou(counts: Confusion, in_mean: Sequence[bool] | None = None) -> float:
    """Mean of `class_iou` over the classes that occur and, where given, count in the mean; NaN where none does."""
    scores = class_iou(counts)
    chosen = scores[np.isfinite(scores) & (True if in_mean is None else np.asarray(in_mean))]
    return float(chosen.mean()) if chosen.size else float("nan")
