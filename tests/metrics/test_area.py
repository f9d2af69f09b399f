"""Areas from points: the worked example that Olofsson et al. 2014 publish, and what must hold of any sample."""

from __future__ import annotations

import numpy as np
import pytest

from glraster.metrics.area import assess_area

# section 5: deforestation, forest gain, stable forest, stable non-forest; rows are mapped classes
MAPPED_PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
SAMPLE = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
HECTARES = MAPPED_PIXELS * 30**2 / 1e4


def test_areas_are_the_published_ones():
    found = assess_area(SAMPLE, HECTARES)
    assert found.area.values.round().tolist() == [21_158, 11_686, 285_770, 581_386]
    assert found.area.margins.round().tolist() == [6_158, 3_756, 15_510, 16_282]


def test_accuracies_are_the_published_ones():
    found = assess_area(SAMPLE, HECTARES)
    assert round(found.overall, 2) == 0.95
    assert round(found.overall_margin, 2) == 0.02
    assert found.users.values.round(2).tolist() == [0.88, 0.73, 0.93, 0.96]
    assert found.users.margins.round(2).tolist() == [0.07, 0.10, 0.04, 0.02]
    assert found.producers.values.round(2).tolist() == [0.75, 0.85, 0.93, 0.96]


def test_producers_margins_agree_with_a_simulation():
    """Draw samples of the example's size from its own shares: the spread is what the formula says."""
    rng = np.random.default_rng(8)
    found = assess_area(SAMPLE, HECTARES)
    shares = SAMPLE / SAMPLE.sum(axis=1, keepdims=True)
    drawn = [
        assess_area(
            np.stack([rng.multinomial(n, p) for n, p in zip(SAMPLE.sum(axis=1), shares, strict=True)]), HECTARES
        )
        for _ in range(3000)
    ]
    spread = 1.96 * np.std([d.producers.values for d in drawn], axis=0)
    assert np.allclose(spread, found.producers.margins, rtol=0.08)
    assert np.allclose(1.96 * np.std([d.area.values for d in drawn], axis=0), found.area.margins, rtol=0.06)


def test_intervals_hold_the_true_area_of_nearly_all_samples():
    """Of 1000 samples of a known map, 95 % intervals hold the true area in about 950."""
    rng = np.random.default_rng(12)
    shares = np.array([[0.8, 0.15, 0.05], [0.1, 0.85, 0.05], [0.2, 0.1, 0.7]])
    mapped = np.array([20.0, 50.0, 30.0])
    true = mapped @ shares
    drawn = [assess_area(np.stack([rng.multinomial(60, row) for row in shares]), mapped).area for _ in range(1000)]
    held = np.mean([abs(a.values - true) <= a.margins for a in drawn], axis=0)
    assert ((held > 0.92) & (held < 0.975)).all()


def test_areas_add_up_to_the_map():
    rng = np.random.default_rng(3)
    sample = rng.integers(2, 40, (5, 5))
    mapped = rng.random(5) * 100
    found = assess_area(sample, mapped)
    assert found.area.values.sum() == pytest.approx(mapped.sum())
    assert found.proportions.sum() == pytest.approx(1)


def test_a_perfect_sample_gives_the_mapped_areas_without_doubt():
    found = assess_area(np.diag([10, 20, 30]), np.array([1.0, 2.0, 3.0]))
    assert found.area.values.tolist() == [1, 2, 3]
    assert not found.area.margins.any()
    assert found.overall == 1


def test_a_class_that_is_true_but_never_mapped_has_area_and_no_users_accuracy():
    found = assess_area(np.array([[8, 0, 2], [0, 10, 0], [0, 0, 0]]), np.array([10.0, 10.0, 0.0]))
    assert found.area.values.tolist() == pytest.approx([8, 10, 2])
    assert np.isnan(found.users.values[2])
    assert found.producers.values[2] == 0


@pytest.mark.parametrize("points", [0, 1])
def test_a_mapped_class_needs_two_points(points):
    with pytest.raises(ValueError, match="class 1"):
        assess_area(np.array([[5, 0], [0, points]]), np.array([1.0, 1.0]))
