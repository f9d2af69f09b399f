"""What the images of a split hold: their type, the mean and spread of their values, and how many pixels there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from glraster.catalog import Catalog, Pair
from glraster.errors import CatalogError, UsageError
from glraster.labels.check import ClassPixels
from glraster.labels.scenes import open_image
from glraster.raster.grid import Window
from glraster.raster.reader import Scene

MOST_SAMPLED = 64
"""Scenes whose values are looked at, drawn evenly where there are more."""

_SIDE_PX, _PER_SIDE = 64, 4


@dataclass(frozen=True)
class Survey:
    """The images of a split: dtype, mean and standard deviation per band, and working pixels of all pairs."""

    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: int

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Survey:
        """Read what `asdict` made of one."""
        return cls(record["dtype"], tuple(record["mean"]), tuple(record["std"]), record["pixels"])


def survey(catalog: Catalog, pairs: Sequence[Pair]) -> Survey:
    """Open every image and look at the values of some.

    Args:
        catalog: where the pairs come from.
        pairs: what is looked at; of more than `MOST_SAMPLED` the values of so many.

    Returns:
        The survey; values are sampled at the catalog's ground sample distance, in 4 x 4 windows of 64 px per scene.

    Raises:
        CatalogError: where an image cannot be read, dtypes differ, or no pixel is valid.

    Memory: one window.
    """
    chosen = set(range(len(pairs)))
    if len(pairs) > MOST_SAMPLED:
        chosen = set(np.random.default_rng(0).choice(len(pairs), MOST_SAMPLED, replace=False).tolist())
    sums, pixels, dtypes = _Sums(catalog.bands), 0, set()
    for number, pair in enumerate(pairs):
        scene, area = open_image(catalog, pair)
        with scene:
            pixels += area.size
            dtypes.add(scene.dtype)
            if number in chosen:
                _add_values(sums, scene, area)
    if len(dtypes) > 1:
        raise CatalogError(f"images differ in dtype: {', '.join(sorted(dtypes))}", where=catalog.source)
    if not sums.count:
        raise CatalogError("the images of splits.train have no valid pixel; check their nodata", where=catalog.source)
    mean, std = sums.moments()
    return Survey(dtypes.pop(), tuple(mean.tolist()), tuple(std.tolist()), pixels)


def class_weights(wanted: str | Sequence[float], found: Sequence[ClassPixels]) -> tuple[float, ...] | None:
    """How much every class counts in a loss.

    Args:
        wanted: "none", "inverse" to the share of a class in the training pixels, "sqrt" to its square root, or weights.
        found: the classes and their shares.

    Returns:
        Weights whose mean over the classes that occur is 1; 0 for a class that does not; None for equal weights.

    Raises:
        UsageError: where there is not one weight per class.
    """
    if not isinstance(wanted, str):
        if len(wanted) != len(found):
            names = ", ".join(c.name for c in found)
            raise UsageError(f"class_weights has {len(wanted)} numbers for {len(found)} classes: {names}")
        return tuple(wanted)
    if wanted == "none":
        return None
    power = 0.5 if wanted == "sqrt" else 1.0
    raw = [c.share**-power if c.pixels else 0.0 for c in found]
    mean = sum(raw) / max(1, sum(weight > 0 for weight in raw))
    return tuple(weight / mean for weight in raw)


def class_offsets(strength: float, found: Sequence[ClassPixels]) -> tuple[float, ...] | None:
    """What a loss adds to every class's logits: the logarithm of its share, times a strength.

    Args:
        strength: 0 for none (None is returned), 1 for logits that take all classes for equally common.
        found: the classes and their shares.

    Returns:
        One number per class; 0 for a class that does not occur.
    """
    if not strength:
        return None
    return tuple(strength * math.log(c.share) if c.pixels else 0.0 for c in found)


class _Sums:
    """Running sums per band about a pivot near the mean, so that large values lose no digits."""

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
