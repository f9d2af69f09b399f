"""Class maps made by code, with a truth that differs from them in a known way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from rasters import HALF_METRE, UTM, write_raster

from glraster.config import LandClass
from glraster.raster.writer import CLASSES_TAG, classes_json

CLASSES = (
    LandClass(3, "building & roof", (200, 30, 30)),
    LandClass(7, "bare land", (180, 150, 90)),
    LandClass(1, "water", (40, 90, 200)),
)
IDS = tuple(c.id for c in CLASSES)

IdArray = npt.NDArray[np.uint8]


def patches(height: int, width: int, seed: int = 1, side: int = 23, ids: tuple[int, ...] = IDS) -> IdArray:
    """Square patches of random class ids."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(ids, (-(-height // side), -(-width // side)))
    return coarse.repeat(side, 0).repeat(side, 1)[:height, :width].astype(np.uint8)


def disturbed(ids: IdArray, share: float = 0.2, seed: int = 2, choices: tuple[int, ...] = IDS) -> IdArray:
    """The same map with that share of its pixels drawn anew."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(ids.shape) < share, rng.choice(choices, ids.shape), ids).astype(np.uint8)


def write_map(path: Path, ids: IdArray, classes: tuple[LandClass, ...] = CLASSES, **profile: Any) -> Path:
    """Write a mask as `segment` does: class ids, nodata 255, the classes in a tag."""
    import rasterio

    write_raster(path, ids[None], **({"nodata": 255} | profile))
    if classes:
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(**{CLASSES_TAG: classes_json(classes), "GLRASTER_MODEL": "0123456789ab"})
    return path


def write_truth(path: Path, ids: IdArray, **profile: Any) -> Path:
    """Write a truth that says nothing of its values."""
    return write_raster(path, ids[None], **profile)


def write_shapes(path: Path, shapes: list[Any], values: list[Any], column: str = "class", crs: str = UTM) -> Path:
    """Write geometries with one attribute."""
    pyogrio.raw.write(
        path,
        shapely.to_wkb(np.array(shapes, dtype=object)),
        [np.array(values, dtype=object if isinstance(values[0], str) else None)],
        [column],
        geometry_type=shapes[0].geom_type,
        crs=crs,
    )
    return path


def pixel_boxes(ids: IdArray, side: int) -> tuple[list[Any], list[int]]:
    """A polygon for every square patch of a map of half-metre pixels."""
    boxes, values = [], []
    for top in range(0, ids.shape[0], side):
        for left in range(0, ids.shape[1], side):
            piece = ids[top : top + side, left : left + side]
            first, last = HALF_METRE @ (left, top), HALF_METRE @ (left + piece.shape[1], top + piece.shape[0])
            boxes.append(shapely.box(first[0], last[1], last[0], first[1]))
            values.append(int(piece[0, 0]))
    return boxes, values
