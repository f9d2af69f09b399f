"""The scores of published benchmarks, counted as they count."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glraster.metrics.counts import Confusion, class_iou, overall_accuracy


@dataclass(frozen=True)
class DeepGlobeScores:
    """mIoU over the named classes of DeepGlobe's land cover, in two counts.

    `authors` is what GLNet's released code prints: pixels of unknown class stay in the matrix, so that a class mapped
    on them counts as wrong, and a class that does not occur has an IoU of 0. `strict` leaves out the pixels whose
    true class is unknown, and classes that do not occur. `..._iou` are per named class, in the order of `classes`.
    """

    classes: tuple[str, ...]
    authors: float
    strict: float
    authors_iou: tuple[float, ...]
    strict_iou: tuple[float, ...]


@dataclass(frozen=True)
class InriaScores:
    """IoU of the class building and pixel accuracy of a city, or of all (`city` is "overall")."""

    city: str
    iou: float
    accuracy: float


def deepglobe_scores(counts: Confusion, names: Sequence[str], unknown: int) -> DeepGlobeScores:
    """Score as DeepGlobe's land cover is scored.

    Sources: Demir et al. 2018, DeepGlobe 2018 (mean over the named classes); GLNet's released code for `authors`.

    Args:
        counts: pixels of all scenes, the unknown class included.
        names: of all classes.
        unknown: index of the unknown class.
    """
    named = [i for i in range(len(names)) if i != unknown]
    authors = np.nan_to_num(class_iou(counts)[named])
    known = counts.copy()
    known[unknown] = 0
    strict = class_iou(known)[named]
    return DeepGlobeScores(
        classes=tuple(names[i] for i in named),
        authors=float(authors.mean()),
        strict=float(np.nanmean(strict)) if np.isfinite(strict).any() else float("nan"),
        authors_iou=tuple(authors.tolist()),
        strict_iou=tuple(strict.tolist()),
    )


def inria_scores(counts: Sequence[Confusion], scenes: Sequence[str], building: int) -> tuple[InriaScores, ...]:
    """Score as the Inria benchmark does: pixels of a city's scenes are pooled, and those of all.

    Source: Maggiori et al. 2017, Can semantic labeling methods generalize to any city?, IGARSS.

    Args:
        counts: one matrix per scene.
        scenes: their names, a city and a number: austin1, tyrol-w12.
        building: index of the class building.

    Returns:
        One for every city, in the order of the alphabet, and "overall" last.
    """
    cities: dict[str, list[Confusion]] = {}
    for name, scene in zip(scenes, counts, strict=True):
        cities.setdefault(city_of(name), []).append(scene)
    pooled = {city: np.sum(members, axis=0) for city, members in sorted(cities.items())}
    pooled["overall"] = np.sum(list(counts), axis=0)
    return tuple(
        InriaScores(city, float(class_iou(total)[building]), overall_accuracy(total)) for city, total in pooled.items()
    )


def city_of(scene: str) -> str:
    """The city that a scene's name begins with: all before the first number."""
    city = re.match(r"\D+(?=\d)", scene)
    return city.group().rstrip("-_") if city else scene
