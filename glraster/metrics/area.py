"""Class areas and accuracies from a sample of points, with their confidence intervals.

Source: Olofsson, Foody, Herold, Stehman, Woodcock and Wulder 2014, Good practices for estimating area and assessing
accuracy of land change, Remote Sensing of Environment 148, 42-57. Equation numbers are the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

Z_95 = 1.96
"""Standard errors in half a 95 % confidence interval."""


@dataclass(frozen=True)
class Estimates:
    """One value per class with half the width of its 95 % interval; NaN if the sample cannot estimate it."""

    values: FloatArray
    margins: FloatArray


@dataclass(frozen=True)
class AreaAssessment:
    """What a sample of points shows of a map.

    `area` is in the unit of the mapped areas; `users` and `producers` are accuracies, 0 to 1; `overall` and
    `overall_margin` the share of the area that is mapped right and half the width of its 95 % interval. `proportions`
    (classes, classes) is the estimated share of the area that is mapped as the row's class and is of the column's.
    """

    area: Estimates
    users: Estimates
    producers: Estimates
    overall: float
    overall_margin: float
    proportions: FloatArray


def assess_area(sample: npt.NDArray[np.int64], mapped: npt.NDArray[np.float64]) -> AreaAssessment:
    """Estimate areas and accuracies from points drawn at random within every mapped class (stratified).

    A simple random sample may be treated so too (post-stratification).

    Args:
        sample: (classes, classes) point counts; rows are mapped classes, columns true ones.
        mapped: area that the map gives to every class, in any unit.

    Raises:
        ValueError: if a mapped class was sampled by fewer than two points: it has no variance.
    """
    points = sample.sum(axis=1)
    thin = np.flatnonzero((mapped > 0) & (points < 2))
    if thin.size:
        raise ValueError(f"class {thin[0]} has {points[thin[0]]} points")
    strata = mapped > 0
    n = np.where(strata, np.maximum(points, 2), 2)[:, None].astype(np.float64)
    shares = np.where(strata[:, None], sample / n, 0.0)
    total = float(mapped.sum())
    weights = (mapped / total)[:, None]
    variances = shares * (1 - shares) / (n - 1)
    proportions = weights * shares  # eq. 4
    true = proportions.sum(axis=0)  # eq. 9
    margins = Z_95 * np.sqrt((weights**2 * variances).sum(axis=0))  # eq. 10, 11
    users, users_variance = np.diag(shares).copy(), np.diag(variances)  # eq. 2, 6
    return AreaAssessment(
        area=Estimates(total * true, total * margins),
        users=Estimates(np.where(strata, users, np.nan), np.where(strata, Z_95 * np.sqrt(users_variance), np.nan)),
        producers=_producers(mapped, shares, variances),
        overall=float(np.trace(proportions)),  # eq. 1
        overall_margin=float(Z_95 * np.sqrt((weights[:, 0] ** 2 * users_variance).sum())),  # eq. 5
        proportions=proportions,
    )


def _producers(mapped: FloatArray, shares: FloatArray, variances: FloatArray) -> Estimates:
    """Eq. 3 and 7: the share of every true class that the map shows as it."""
    true = (mapped[:, None] * shares).sum(axis=0)
    known = true > 0
    divisor = np.where(known, true, 1.0)
    accuracy = mapped * np.diag(shares) / divisor
    spread = mapped[:, None] ** 2 * variances
    own = np.diag(spread)
    variance = ((1 - accuracy) ** 2 * own + accuracy**2 * (spread.sum(axis=0) - own)) / divisor**2
    return Estimates(np.where(known, accuracy, np.nan), np.where(known, Z_95 * np.sqrt(variance), np.nan))
