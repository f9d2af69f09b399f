"""Confusion matrices, and the scores of classes that follow from them.

Every score is NaN if it is undefined: the recall of a class that the truth does not have, for example.
Sources: Everingham et al. 2010, The Pascal VOC Challenge (IoU); Long, Shelhamer and Darrell 2015, Fully Convolutional
Networks (frequency-weighted IoU); van Rijsbergen 1979 (F1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Confusion = npt.NDArray[np.int64]
"""Pixel counts (classes, classes): rows are true classes, columns predicted ones.

Further rows, for IoU alone, are of pixels that are of none of the classes: what they are predicted as is wrong.
"""

Scores = npt.NDArray[np.float64]
"""One score for every class, NaN if it is undefined."""


def confusion(
    truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], classes: int, rows: int | None = None
) -> Confusion:
    """Count pairs of true and predicted class indexes; an index beyond `classes`, or `rows` of truths, is none."""
    rows = classes if rows is None else rows
    known = (truth < rows) & (prediction < classes)
    pairs = truth[known].astype(np.int64) * classes + prediction[known]
    return np.bincount(pairs, minlength=rows * classes).reshape(rows, classes)


def class_iou(counts: Confusion) -> Scores:
    """Intersection over union of every class; NaN for one that neither truth nor prediction has."""
    hits = np.diag(counts)
    return _share(hits, counts.sum(axis=0) + counts.sum(axis=1)[: len(hits)] - hits)


def mean_iou(counts: Confusion, in_mean: Sequence[bool] | None = None) -> float:
    """Mean of `class_iou` over the classes that occur and that `in_mean` counts; NaN if there is none."""
    scores = class_iou(counts)
    counted = scores[np.isfinite(scores) & (True if in_mean is None else np.asarray(in_mean))]
    return float(counted.mean()) if counted.size else float("nan")


def class_precision(counts: Confusion) -> Scores:
    """Share of the pixels mapped as a class that are of it (user's accuracy)."""
    return _share(np.diag(counts), counts.sum(axis=0))


def class_recall(counts: Confusion) -> Scores:
    """Share of the pixels of a class that are mapped as it (producer's accuracy)."""
    return _share(np.diag(counts), counts.sum(axis=1))


def class_f1(counts: Confusion) -> Scores:
    """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN)."""
    return _share(2 * np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1))


def overall_accuracy(counts: Confusion) -> float:
    """Share of all pixels whose class is right; NaN without pixels."""
    return float(_share(np.trace(counts)[None], counts.sum()[None])[0])


def frequency_weighted_iou(counts: Confusion) -> float:
    """Mean of `class_iou` weighted by how often the truth has each class; NaN without pixels."""
    total = counts.sum()
    return float(np.nansum(class_iou(counts) * counts.sum(axis=1)) / total) if total else float("nan")


def _share(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> Scores:
    shares = np.full(len(whole), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
