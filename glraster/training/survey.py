"""Measure the images of a training and weigh its classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from glraster.catalog import CatalogUnion
from glraster.errors import CatalogError, UsageError
from glraster.labels.check import ClassPixels
from glraster.raster.grid import Window
from glraster.raster.reader import Scene

MOST_SAMPLED = 64
"""Scenes whose values are sampled, drawn evenly if there are more."""

_SIDE_PX, _PER_SIDE = 64, 4


@dataclass(frozen=True)
class ImageStatistics:
    """The images of a split: dtype, mean and standard deviation per band, and the working pixels of every pair."""

    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    areas: tuple[int, ...]

    @property
    def pixels(self) -> int:
        """Working pixels of all pairs."""
        return sum(self.areas)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ImageStatistics:
        """Read what `asdict` made of one."""
        return cls(record["dtype"], tuple(record["mean"]), tuple(record["std"]), tuple(record["areas"]))


class ImageSurvey:
    """Measures the images of a split while they are open, one after the other.

    Values are sampled at the catalog's ground sample distance, in 4 x 4 windows of 64 px per scene, of at most
    `MOST_SAMPLED` scenes. Memory: one window.
    """

    def __init__(self, bands: int, pairs: int) -> None:
        self._sampled = set(range(pairs))
        if pairs > MOST_SAMPLED:
            self._sampled = set(np.random.default_rng(0).choice(pairs, MOST_SAMPLED, replace=False).tolist())
        self._sums = _Sums(bands)
        self.areas: list[int] = []
        self._dtypes: set[str] = set()

    def add(self, number: int, scene: Scene, area: Window) -> None:
        """Measure the open image of pair `number`, of which working pixels `area` are used."""
        self.areas.append(area.size)
        self._dtypes.add(scene.dtype)
        if number in self._sampled:
            _add_values(self._sums, scene, area)

    def statistics(self, where: str) -> ImageStatistics:
        """The statistics of all images so far.

        Raises:
            CatalogError: about the catalog file `where`, if dtypes differ or no pixel is valid.
        """
        if len(self._dtypes) > 1:
            raise CatalogError(f"images differ in dtype: {', '.join(sorted(self._dtypes))}", where=where)
        if not self._sums.count:
            raise CatalogError("the images of splits.train have no valid pixel; check their nodata", where=where)
        mean, std = self._sums.moments()
        return ImageStatistics(min(self._dtypes), tuple(mean.tolist()), tuple(std.tolist()), tuple(self.areas))


def class_pixels(catalogs: CatalogUnion, labels: Sequence[int]) -> tuple[ClassPixels, ...]:
    """How often each class of a union occurs, from the pixels of each label.

    Pixels of a group are divided among its classes in proportion to the pixels that are surely theirs.
    """
    sure = np.array(labels[: len(catalogs.classes)], np.float64)
    pixels = sure.copy()
    for label, group in enumerate(catalogs.groups, start=len(sure)):
        members = list(group.members)
        pixels[members] += labels[label] * sure[members] / max(1.0, sure[members].sum())
    total = max(1.0, pixels.sum())
    return tuple(
        ClassPixels(c.id, c.name, round(count), count / total)
        for c, count in zip(catalogs.classes, pixels.tolist(), strict=True)
    )


def class_weights(how: str | Sequence[float], classes: Sequence[ClassPixels]) -> tuple[float, ...] | None:
    """How much every class counts in a loss.

    Args:
        how: "none", "inverse" to the share of a class in the training pixels, "sqrt" to its square root, or weights.
        classes: the classes and their shares.

    Returns:
        Weights whose mean over the classes that occur is 1; 0 for a class that does not; None for equal weights.

    Raises:
        UsageError: if there is not one weight per class.
    """
    if not isinstance(how, str):
        if len(how) != len(classes):
            names = ", ".join(c.name for c in classes)
            raise UsageError(f"class_weights has {len(how)} numbers for {len(classes)} classes: {names}")
        return tuple(how)
    if how == "none":
        return None
    power = 0.5 if how == "sqrt" else 1.0
    raw = [c.share**-power if c.pixels else 0.0 for c in classes]
    mean = sum(raw) / max(1, sum(weight > 0 for weight in raw))
    return tuple(weight / mean for weight in raw)


def class_offsets(strength: float, classes: Sequence[ClassPixels]) -> tuple[float, ...] | None:
    """What a loss adds to every class's logits: the logarithm of its share, times a strength.

    Source: Menon et al., Long-tail learning via logit adjustment, ICLR 2021, equation 10.

    Args:
        strength: 0 for none (None is returned), 1 for logits of classes that are all equally common.
        classes: the classes and their shares.

    Returns:
        One number per class; 0 for a class that does not occur.
    """
    if not strength:
        return None
    return tuple(strength * math.log(c.share) if c.pixels else 0.0 for c in classes)


class _Sums:
    """Running sums per band about a pivot near the mean: squares of large values would lose digits."""

    def __init__(self, bands: int) -> None:
        self.count = 0
        self._pivot: npt.NDArray[np.float64] | None = None
        self._first, self._second = np.zeros(bands), np.zeros(bands)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Add values (bands, n)."""
        if not values.size:
            return
        wide = values.astype(np.float64)
        if self._pivot is None:
            self._pivot = wide.mean(axis=1)
        wide -= self._pivot[:, None]
        self.count += wide.shape[1]
        self._first += wide.sum(axis=1)
        self._second += (wide**2).sum(axis=1)

    def moments(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and standard deviation per band."""
        assert self._pivot is not None
        offset = self._first / self.count
        return self._pivot + offset, np.sqrt(np.maximum(self._second / self.count - offset**2, 0))


def _add_values(sums: _Sums, scene: Scene, area: Window) -> None:
    height, width = min(_SIDE_PX, area.height), min(_SIDE_PX, area.width)
    for row in np.unique(np.linspace(0, area.height - height, _PER_SIDE).astype(int)):
        for column in np.unique(np.linspace(0, area.width - width, _PER_SIDE).astype(int)):
            image, valid = scene.read(Window(area.top + int(row), area.left + int(column), height, width))
            sums.add(image[:, valid])


def steps_to_see_all(pixels: int, context_px: int, batch: int) -> int:
    """Steps that show every training pixel once on average."""
    return math.ceil(max(1, round(pixels / context_px**2)) / batch)
