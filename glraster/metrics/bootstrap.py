"""Confidence intervals by the bootstrap over scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
LEVEL = 0.95

_ENOUGH = 0.5


@dataclass(frozen=True)
class Interval:
    """The 95 % confidence interval of a score."""

    low: float
    high: float


def scene_intervals(
    counts: npt.NDArray[np.int64], statistic: Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]], seed: int = 0
) -> list[Interval | None]:
    """Percentile intervals of scores, drawing as many scenes as there are with replacement, 2000 times.

    Scenes are drawn instead of pixels, because pixels of one scene depend on each other far more than scenes do.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.

    Args:
        counts: (scenes, ...) what the scores are computed from, one entry per scene.
        statistic: scores (n,) from the sum of the entries of the scenes drawn.
        seed: decides the draws.

    Returns:
        An interval for every score; None if there are fewer than two scenes, or if less than half of the draws
        have the score.
    """
    rng = np.random.default_rng(seed)
    scenes = len(counts)
    if scenes < 2:
        return [None] * len(np.atleast_1d(statistic(counts.sum(axis=0))))
    flat = counts.reshape(scenes, -1)
    draws = rng.multinomial(scenes, np.full(scenes, 1 / scenes), RESAMPLES) @ flat
    scores = np.stack([np.atleast_1d(statistic(draw.reshape(counts.shape[1:]))) for draw in draws])
    return [_interval(column) for column in scores.T]


def _interval(scores: npt.NDArray[np.float64]) -> Interval | None:
    known = scores[np.isfinite(scores)]
    if known.size < _ENOUGH * scores.size:
        return None
    low, high = np.percentile(known, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return Interval(float(low), float(high))
