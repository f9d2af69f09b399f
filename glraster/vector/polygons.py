"""Turn the rings of closed faces into polygons in well-known binary, with their area and perimeter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from glraster.vector.compiled import compiled, inlined, int64
from glraster.vector.ground import Ground
from glraster.vector.rings import Borders, Int64Array, ring_vertices, round_rings
from glraster.vector.stitch import Faces

FloatArray = npt.NDArray[np.float64]
Reproject = Callable[[FloatArray], FloatArray]

BATCH_BYTES = 16 * 2**20
_POLYGON, _MULTIPOLYGON = 3, 6


@dataclass(frozen=True)
class Placement:
    """Where lattice points lie: `transform` to the raster's CRS, how to measure there, and the way to the output's CRS.

    `multi` makes every feature a multipolygon; `reach_px` is how far from corners their rounding begins, 0 for none.
    """

    transform: Affine
    ground: Ground
    reproject: Reproject | None = None
    multi: bool = False
    reach_px: float = 0.0


@dataclass(frozen=True)
class Features:
    """Some features: pixel `value` (n,), `label` of each one's faces (n,), `area_m2` and `perimeter_m` (n,), and their
    geometries in well-known binary, one after the other in `wkb`, with (n + 1,) `offsets`.

    Areas and perimeters are NaN if the CRS has no metres.
    """

    value: npt.NDArray[np.int32]
    label: npt.NDArray[np.int32]
    area_m2: FloatArray
    perimeter_m: FloatArray
    wkb: npt.NDArray[np.uint8]
    offsets: Int64Array

    def __len__(self) -> int:
        return len(self.value)

    def take(self, rows: npt.NDArray[np.intp]) -> Features:
        """Some of the features, in ascending order."""
        sizes = np.diff(self.offsets)
        is_taken = np.zeros(len(self), bool)
        is_taken[rows] = True
        offsets = np.concatenate([[0], np.cumsum(sizes[rows])])
        measures = (self.area_m2[rows], self.perimeter_m[rows])
        return Features(self.value[rows], self.label[rows], *measures, self.wkb[np.repeat(is_taken, sizes)], offsets)


def features(faces: Faces, borders: Borders, placement: Placement) -> Iterator[Features]:
    """Geometries of closed faces, in batches of about `BATCH_BYTES`, or of one feature that is larger.

    Outer rings run counter-clockwise on the map. Memory: about twice the batch.
    """
    if not len(faces.rings):
        return
    first_ring = np.flatnonzero(np.diff(faces.feature, prepend=-1))
    ends = np.append(first_ring[1:], len(faces.rings))
    ring_bytes = 16 * (faces.rings.size + 1) + 22
    total = np.cumsum(ring_bytes)[ends - 1]
    batch = total // BATCH_BYTES
    for number in np.unique(batch):
        members = np.flatnonzero(batch == number)
        rings = np.arange(first_ring[members[0]], ends[members[-1]])
        yield _batch(faces, rings, borders, placement)


def _batch(faces: Faces, members: npt.NDArray[np.intp], borders: Borders, placement: Placement) -> Features:
    """The features that consist of these rings."""
    rings = faces.rings.take(members)
    face, feature = faces.face[members], faces.feature[members]
    offsets = np.concatenate([[0], np.cumsum(rings.size + 1)])
    xy = np.empty((offsets[-1], 2))
    level = np.empty(len(xy), np.uint8)
    ring_vertices(borders, rings.halves, (rings.begin, rings.end), xy, level)
    if placement.reach_px:
        xy, offsets = _rounded(xy, level, offsets, placement.reach_px)
    xy = _placed(xy, placement.transform)
    flipped = placement.transform.determinant > 0
    first_ring = np.flatnonzero(np.diff(feature, prepend=-1))
    area, length = placement.ground.measure(xy, offsets)
    area_m2 = np.abs(np.add.reduceat(area, first_ring))
    perimeter_m = np.add.reduceat(length, first_ring)
    if placement.reproject is not None:
        xy = placement.reproject(xy)
    first_of_face = np.flatnonzero(np.diff(face, prepend=-1))
    wkb, ends = _well_known_binary(xy, offsets, first_of_face, first_ring, (placement.multi, flipped))
    value = faces.value[members][first_ring]
    return Features(value, feature[first_ring], area_m2, perimeter_m, wkb, ends)


def _rounded(
    xy: FloatArray, level: npt.NDArray[np.uint8], offsets: Int64Array, reach_px: float
) -> tuple[FloatArray, Int64Array]:
    level[offsets[1:] - 1] = 0
    rounded = np.empty((len(xy) + 2 * int(np.count_nonzero(level)), 2))
    ends = np.empty_like(offsets)
    round_rings(xy, level, offsets, reach_px, rounded, ends)
    return rounded[: ends[-1]], ends


def _placed(xy: FloatArray, transform: Affine) -> FloatArray:
    if transform.b == 0 and transform.d == 0:
        xy *= (transform.a, transform.e)
        xy += (transform.c, transform.f)
        return xy
    x, y = xy.T
    return np.stack(
        [transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f], axis=1
    )


def _well_known_binary(
    xy: FloatArray,
    offsets: Int64Array,
    first_of_face: npt.NDArray[np.intp],
    first_of_feature: npt.NDArray[np.intp],
    form: tuple[bool, bool],
) -> tuple[npt.NDArray[np.uint8], Int64Array]:
    """Geometries of rings; `form` is whether to write multipolygons, and whether to turn rings around."""
    rings = len(offsets) - 1
    ring_bytes = 4 + 16 * np.diff(offsets)
    ring_bytes[first_of_face] += 9
    if form[0]:
        ring_bytes[first_of_feature] += 9
    sizes = np.add.reduceat(ring_bytes, first_of_feature)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    faces = np.append(first_of_face, rings)
    parts = np.searchsorted(faces, np.append(first_of_feature, rings))
    buffer = np.empty(ends[-1], np.uint8)
    _write(xy.reshape(-1).view(np.uint8), offsets, faces, parts, form, buffer)
    return buffer, ends


@inlined
def _put(buffer: Any, at: int, value: int) -> int:
    for byte in range(4):
        buffer[at + byte] = (value >> (8 * byte)) & 255
    return at + 4


@inlined
def _put_head(buffer: Any, at: int, kind: int, count: int) -> int:
    buffer[at] = 1
    return _put(buffer, _put(buffer, at + 1, kind), count)


@compiled
def _write(raw: Any, offsets: Any, faces: Any, parts: Any, form: tuple[bool, bool], buffer: Any) -> None:
    """Write geometries: the rings of face i begin at `faces[i]`, the faces of feature k at `parts[k]`."""
    at, polygon, multipolygon = int64(0), int64(_POLYGON), int64(_MULTIPOLYGON)
    for feature in range(len(parts) - 1):
        if form[0]:
            at = _put_head(buffer, at, multipolygon, parts[feature + 1] - parts[feature])
        for face in range(parts[feature], parts[feature + 1]):
            at = _put_head(buffer, at, polygon, faces[face + 1] - faces[face])
            for ring in range(faces[face], faces[face + 1]):
                begin, end = offsets[ring], offsets[ring + 1]
                at = _put(buffer, at, end - begin)
                if not form[1]:
                    for i in range(16 * (end - begin)):
                        buffer[at + i] = raw[16 * begin + i]
                    at += 16 * (end - begin)
                    continue
                for vertex in range(end - 1, begin - 1, -1):
                    for i in range(16):
                        buffer[at + i] = raw[16 * vertex + i]
                    at += 16
