"""Boundary F1 by its definition, and the same from blocks as from the whole."""

from __future__ import annotations

import numpy as np
import pytest

from glraster.metrics.boundary import BoundaryCounts, boundary_counts, class_boundary_f1, reach

CLASSES = 3


def patches(seed, shape=(60, 84), side=7):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, CLASSES, (-(-shape[0] // side), -(-shape[1] // side)))
    return coarse.repeat(side, 0).repeat(side, 1)[: shape[0], : shape[1]].astype(np.uint8)


def by_definition(truth, prediction, tolerance, pixel):
    """Counts with every distance between boundary pixels written out."""
    known = (truth < CLASSES) & (prediction < CLASSES)
    found = np.zeros((CLASSES, 4), np.int64)
    edges = []
    for values in (truth, prediction):
        own = []
        for c in range(CLASSES):
            places = []
            for row, column in np.argwhere(known & (values == c)):
                for y, x in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                    inside = 0 <= y < values.shape[0] and 0 <= x < values.shape[1]
                    if inside and known[y, x] and values[y, x] != c:
                        places.append((row, column))
                        break
            own.append(np.array(places).reshape(-1, 2) * pixel)
        edges.append(own)
    for c in range(CLASSES):
        true, predicted = edges[0][c], edges[1][c]
        for column, (own, other) in zip((0, 2), ((predicted, true), (true, predicted)), strict=True):
            distance = np.sqrt(((own[:, None] - other[None]) ** 2).sum(-1)) if len(own) and len(other) else None
            found[c, column] = len(own)
            found[c, column + 1] = 0 if distance is None else (distance.min(axis=1) <= tolerance + 1e-9).sum()
    return found


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (0.5, 0.5), (2.0, 0.7)], ids=str)
@pytest.mark.parametrize("tolerance", [0.4, 1.0, 2.3, 5.0])
def test_counts_are_those_of_the_definition(tolerance, pixel):
    truth, prediction = patches(1), np.roll(patches(1), (2, 3), (0, 1))
    truth[20:30, 40:60] = 255
    prediction[:5, :5] = 255
    whole = (slice(None), slice(None))
    counted = boundary_counts(truth, prediction, CLASSES, reach(tolerance, pixel), whole)
    assert np.array_equal(counted.counts, by_definition(truth, prediction, tolerance, pixel))


@pytest.mark.parametrize("block", [5, 16, 31])
def test_blocks_add_up_to_the_whole(block):
    truth, prediction = patches(2), np.roll(patches(2), 3, 1)
    near = reach(4.0, (1.0, 1.5))
    margin = near.margin_px
    total = BoundaryCounts(np.zeros((CLASSES, 4), np.int64))
    for top in range(0, truth.shape[0], block):
        for left in range(0, truth.shape[1], block):
            first = max(0, top - margin), max(0, left - margin)
            wide = np.s_[first[0] : top + block + margin, first[1] : left + block + margin]
            inner = np.s_[top - first[0] : top - first[0] + block, left - first[1] : left - first[1] + block]
            total += boundary_counts(truth[wide], prediction[wide], CLASSES, near, inner)
    whole = boundary_counts(truth, prediction, CLASSES, near, (slice(None), slice(None)))
    assert np.array_equal(total.counts, whole.counts)


def test_a_shift_within_the_tolerance_is_perfect_and_one_beyond_is_not():
    truth = np.zeros((40, 40), np.uint8)
    truth[10:30, 10:30] = 1
    whole = (slice(None), slice(None))
    scores = [
        class_boundary_f1(boundary_counts(truth, np.roll(truth, 2, 0), 2, reach(tolerance, (1, 1)), whole))
        for tolerance in (2.0, 1.0)
    ]
    assert np.array_equal(scores[0], [1, 1])
    assert (scores[1] < 1).all()
    assert (scores[1] > 0).all()


def test_classes_without_boundary_have_no_score_and_those_of_one_map_only_have_none_met():
    counts = BoundaryCounts(np.array([[0, 0, 0, 0], [5, 0, 0, 0], [0, 0, 5, 0], [4, 2, 8, 2]]))
    scores = class_boundary_f1(counts)
    assert np.isnan(scores[0])
    assert scores[1:3].tolist() == [0, 0]
    assert scores[3] == pytest.approx(2 * 0.5 * 0.25 / 0.75)
