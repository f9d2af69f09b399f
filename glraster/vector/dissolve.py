"""Collect all polygons of a class in one multipolygon."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from glraster.vector.polygons import Features, FloatArray

_HEAD = struct.Struct("<BII")
_MULTIPOLYGON = 6


@dataclass
class _Class:
    polygons: int = 0
    area_m2: float = 0.0
    perimeter_m: float = 0.0
    weighted: float = 0.0
    weight: float = 0.0


@dataclass
class Dissolver:
    """Polygons that wait in a file per class in `folder` until all are known. Memory: the largest class, at the end."""

    folder: Path
    _classes: dict[int, _Class] = field(default_factory=dict)

    def add(self, found: Features, confidence: FloatArray | None) -> None:
        """Take polygons; confidences are averaged by area."""
        for value in np.unique(found.value).tolist():
            chosen = np.flatnonzero(found.value == value)
            part, known = found.take(chosen), self._classes.setdefault(value, _Class())
            known.polygons += len(part)
            known.area_m2 += float(part.area_m2.sum())
            known.perimeter_m += float(part.perimeter_m.sum())
            if confidence is not None:
                measured = np.isfinite(confidence[chosen])
                weights = np.where(np.isfinite(part.area_m2), part.area_m2, 1.0)[measured]
                known.weighted += float((confidence[chosen][measured] * weights).sum())
                known.weight += float(weights.sum())
            with self._file(value).open("ab") as stream:
                stream.write(part.wkb.data)

    def features(self) -> Iterator[tuple[Features, FloatArray]]:
        """One multipolygon for every class, with its mean confidence."""
        for value, known in sorted(self._classes.items()):
            head = np.frombuffer(_HEAD.pack(1, _MULTIPOLYGON, known.polygons), np.uint8)
            wkb = np.empty(len(head) + self._file(value).stat().st_size, np.uint8)
            wkb[: len(head)] = head
            with self._file(value).open("rb") as stream:
                stream.readinto(wkb[len(head) :].data)
            self._file(value).unlink()
            values: npt.NDArray[np.int32] = np.array([value], np.int32)
            measures = np.array([known.area_m2]), np.array([known.perimeter_m])
            mean = known.weighted / known.weight if known.weight else np.nan
            yield Features(values, values, *measures, wkb, np.array([0, len(wkb)])), np.array([mean])

    def _file(self, value: int) -> Path:
        return self.folder / f"class_{value}.wkb"
