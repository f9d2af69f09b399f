"""Class masks made by code, and their polygons by band-wise tracing and by GDAL."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import shapes
from shapely.geometry import shape

from glraster.vector.ground import NoGround
from glraster.vector.polygons import Placement, features
from glraster.vector.simplify import Simplification, simplify_band
from glraster.vector.stitch import Coverage
from glraster.vector.trace import trace

Mask = npt.NDArray[np.integer]
Found = list[tuple[int, shapely.Geometry]]

BLANK = 0


def blobs(height: int, width: int, seed: int, salt: float = 0.02, classes: int = 4) -> Mask:
    """Rounded patches of classes 1 to n, with single pixels of any class or none."""
    rng = np.random.default_rng(seed)
    field = rng.standard_normal((classes, height + 12, width + 12))
    for axis in (1, 2):
        field = sum(np.roll(field, shift, axis) for shift in range(-int(rng.integers(1, 5)), 5))
    mask = (field.argmax(axis=0) + 1)[6:-6, 6:-6].astype(np.uint8)
    grains = rng.random(mask.shape) < salt
    mask[grains] = rng.integers(0, classes + 1, int(grains.sum()))
    return mask


def noise(height: int, width: int, seed: int, classes: int = 3) -> Mask:
    return np.random.default_rng(seed).integers(0, classes + 1, (height, width)).astype(np.int32)


def checkerboard(height: int, width: int) -> Mask:
    return (np.indices((height, width)).sum(axis=0) % 2 + 1).astype(np.uint8)


def spiral(side: int) -> Mask:
    """A path of class 1, one pixel wide, that winds inwards through class 2."""
    mask = np.full((side, side), 2, np.uint8)
    row = column = 0
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    lengths = [side - 1, *(n for k in range(side - 1, 0, -2) for n in (k, k))]
    for turn, length in enumerate(lengths):
        for _ in range(length):
            mask[row, column] = 1
            row, column = row + steps[turn % 4][0], column + steps[turn % 4][1]
    mask[row, column] = 1
    return mask


def rivers(height: int, width: int) -> Mask:
    """One part that spans everything, with a hole for every second pixel of every second row."""
    mask = np.ones((height, width), np.uint8)
    mask[1:-1:2, 1:-1:2] = 2
    return mask


def padded(mask: Mask) -> Mask:
    per_word = 8 // mask.itemsize
    columns = -(-(mask.shape[1] + 2) // per_word) * per_word
    pixels = np.full((mask.shape[0] + 2, columns), BLANK, mask.dtype)
    pixels[1:-1, 1 : 1 + mask.shape[1]] = mask
    return pixels


def polygons(mask: Mask, rows: int, how: Simplification | None = None, diagonal: bool = False) -> Found:
    """The polygons of a mask, traced in bands of so many rows, in pixel coordinates."""
    pixels = padded(mask)
    coverage = Coverage(pixels.shape[1], BLANK, diagonal)
    placement = Placement(
        Affine.identity(), NoGround(), multi=diagonal, reach_px=how.reach_px if how and how.smooth else 0
    )
    found: Found = []
    for first in range(1, len(pixels), rows):
        band = trace(pixels[first - 1 : first + rows].copy(), first - 1, -1, diagonal)
        coverage.add(band if how is None else simplify_band(band, BLANK, how))
        if how is not None:
            coverage.mend_seam(how)
        faces = coverage.closed_faces(last=first + rows >= len(pixels))
        for part in features(faces, coverage.borders(), placement):
            ends = part.offsets
            wkb = [part.wkb[ends[i] : ends[i + 1]].tobytes() for i in range(len(part))]
            found += zip(part.value.tolist(), shapely.from_wkb(wkb), strict=True)
        coverage.forget()
    return found


def gdal_polygons(mask: Mask, connectivity: int = 4) -> Found:
    return [
        (int(value), shape(geometry)) for geometry, value in shapes(mask, mask=mask != BLANK, connectivity=connectivity)
    ]


def as_set(found: Found) -> list[tuple[int, bytes]]:
    """Classes and geometries in an order and a form of their own: no vertex on a straight line, rings sorted."""
    return sorted((value, shapely.to_wkb(shapely.normalize(shapely.simplify(g, 0)))) for value, g in found)
