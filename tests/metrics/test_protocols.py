"""Benchmarks are counted as they count."""

from __future__ import annotations

import numpy as np
import pytest

from glraster.metrics.protocols import city_of, deepglobe_scores, inria_scores

NAMES = ("unknown", "urban", "water")


def test_deepglobe_counts_unknown_pixels_as_the_authors_do_and_not_at_all():
    counts = np.array([[50, 30, 20], [0, 80, 20], [10, 10, 80]])
    found = deepglobe_scores(counts, NAMES, unknown=0)
    assert found.classes == ("urban", "water")
    assert found.authors_iou == pytest.approx((80 / (100 + 120 - 80), 80 / (100 + 120 - 80)))
    # a named pixel that is mapped as unknown is still missed
    assert found.strict_iou == pytest.approx((80 / (100 + 90 - 80), 80 / (100 + 100 - 80)))
    assert found.authors == pytest.approx(np.mean(found.authors_iou))
    assert found.strict == pytest.approx(np.mean(found.strict_iou))


def test_deepglobe_takes_an_absent_class_for_zero_only_in_the_authors_count():
    counts = np.array([[5, 0, 0], [0, 10, 0], [0, 0, 0]])
    found = deepglobe_scores(counts, NAMES, unknown=0)
    assert found.authors == 0.5
    assert found.strict == 1.0


def test_deepglobe_finds_unknown_at_any_index():
    counts = np.array([[80, 20, 0], [10, 80, 10], [30, 20, 50]])
    found = deepglobe_scores(counts, ("urban", "water", "unknown"), unknown=2)
    assert found.authors_iou == pytest.approx((80 / 140, 80 / 140))
    assert found.strict_iou == pytest.approx((80 / 110, 80 / 120))


def test_inria_pools_the_scenes_of_a_city():
    scenes = {"tyrol-w12": [[70, 10], [5, 15]], "austin1": [[50, 0], [0, 50]], "tyrol-w3": [[90, 0], [10, 0]]}
    found = {s.city: s for s in inria_scores([np.array(c) for c in scenes.values()], list(scenes), building=1)}
    assert list(found) == ["austin", "tyrol-w", "overall"]
    assert (found["austin"].iou, found["austin"].accuracy) == (1, 1)
    assert found["tyrol-w"].iou == pytest.approx(15 / (15 + 10 + 15))
    assert found["tyrol-w"].accuracy == pytest.approx(175 / 200)
    assert found["overall"].iou == pytest.approx(65 / (65 + 10 + 15))


@pytest.mark.parametrize(
    ("scene", "city"), [("austin1", "austin"), ("tyrol-w12", "tyrol-w"), ("vienna_3_mask", "vienna"), ("kyiv", "kyiv")]
)
def test_city_is_what_a_name_begins_with(scene, city):
    assert city_of(scene) == city
