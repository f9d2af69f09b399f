"""Intervals from drawing scenes."""

from __future__ import annotations

import numpy as np

from glraster.metrics import class_iou, mean_iou
from glraster.metrics.bootstrap import scene_intervals
from glraster.metrics.counts import overall_accuracy


def scenes(count, spread, seed=1):
    """Scenes of 1000 pixels in two classes, whose accuracy varies about 0.8."""
    rng = np.random.default_rng(seed)
    right = np.clip(rng.normal(0.8, spread, (count, 2)), 0, 1) * 500
    right = right.astype(np.int64)
    return np.stack([np.stack([right[:, 0], 500 - right[:, 0]], 1), np.stack([500 - right[:, 1], right[:, 1]], 1)], 1)


def accuracy(counts):
    return np.array([overall_accuracy(counts)])


def test_interval_has_the_width_that_the_spread_of_scenes_gives():
    counts = scenes(100, 0.1)
    (interval,) = scene_intervals(counts, accuracy)
    per_scene = np.trace(counts, axis1=1, axis2=2) / 1000
    expected = 1.96 * per_scene.std() / 10
    assert np.isclose((interval.high - interval.low) / 2, expected, rtol=0.1)
    assert np.isclose((interval.high + interval.low) / 2, per_scene.mean(), atol=0.005)


def test_equal_scenes_leave_no_doubt_and_the_same_seed_gives_the_same():
    (interval,) = scene_intervals(np.repeat(scenes(1, 0), 5, axis=0), accuracy)
    assert interval.low == interval.high
    assert scene_intervals(scenes(9, 0.2), accuracy) == scene_intervals(scenes(9, 0.2), accuracy)


def test_one_scene_gives_no_interval():
    assert scene_intervals(scenes(1, 0), lambda c: np.array([mean_iou(c), *class_iou(c)])) == [None] * 3


def test_a_class_in_few_scenes_has_none():
    counts = np.zeros((12, 3, 3), np.int64)
    counts[:, 0, 0] = 10
    counts[0, 2, 2] = 5
    found = scene_intervals(counts, class_iou)
    assert found[0] is not None
    assert found[1] is None
