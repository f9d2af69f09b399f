"""Scores of a confusion matrix are those that scikit-learn computes from the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from glraster.metrics import class_iou, confusion, mean_iou
from glraster.metrics.counts import (
    class_f1,
    class_precision,
    class_recall,
    frequency_weighted_iou,
    overall_accuracy,
)

CLASSES = 5


@pytest.fixture
def pixels():
    rng = np.random.default_rng(5)
    truth = rng.choice(CLASSES, 4000, p=(0.5, 0.3, 0.15, 0.04, 0.01)).astype(np.uint8)
    prediction = np.where(rng.random(4000) < 0.6, truth, rng.integers(0, CLASSES, 4000)).astype(np.uint8)
    return truth, prediction


def test_confusion_is_that_of_scikit_learn(pixels):
    assert np.array_equal(confusion(*pixels, CLASSES), reference.confusion_matrix(*pixels))


def test_confusion_leaves_out_pixels_without_class(pixels):
    truth, prediction = pixels
    holes = np.random.default_rng(6).random((2, truth.size)) < 0.2
    known = ~holes.any(axis=0)
    counted = confusion(np.where(holes[0], 255, truth), np.where(holes[1], 255, prediction), CLASSES)
    assert np.array_equal(counted, reference.confusion_matrix(truth[known], prediction[known]))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (class_iou, reference.jaccard_score),
        (class_f1, reference.f1_score),
        (class_precision, reference.precision_score),
        (class_recall, reference.recall_score),
    ],
    ids=["IoU", "F1", "precision", "recall"],
)
def test_class_scores_are_those_of_scikit_learn(ours, theirs, pixels):
    assert np.allclose(ours(confusion(*pixels, CLASSES)), theirs(*pixels, average=None), rtol=0, atol=1e-12)


def test_means_are_those_of_scikit_learn(pixels):
    counts = confusion(*pixels, CLASSES)
    assert mean_iou(counts) == pytest.approx(reference.jaccard_score(*pixels, average="macro"))
    assert frequency_weighted_iou(counts) == pytest.approx(reference.jaccard_score(*pixels, average="weighted"))
    assert overall_accuracy(counts) == pytest.approx(reference.accuracy_score(*pixels))


def test_scores_without_meaning_are_nan_and_leave_the_mean_alone():
    counts = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    assert np.isnan(class_iou(counts)[2])
    assert np.isnan(class_recall(counts)[2])
    assert mean_iou(counts) == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert mean_iou(counts, (True, False, True)) == pytest.approx(6 / 9)


def test_no_pixels_give_no_score():
    nothing = np.zeros((2, 2), np.int64)
    assert np.isnan([mean_iou(nothing), overall_accuracy(nothing), frequency_weighted_iou(nothing)]).all()
