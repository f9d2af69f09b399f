"""Draw a class mask like a land-cover map: `python benchmarks/make_mask.py OUT SIDE [--salt 0.002]`.

Seven classes, the largest of seven sums of four octaves of value noise, with single pixels of random class on top.
Drawn strip by strip: memory grows with the side, not with its square.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.windows import Window

CLASSES, STRIP = 7, 512
OCTAVES = ((700, 1.0), (160, 0.55), (40, 0.30), (12, 0.16))

Floats = npt.NDArray[np.float32]


def noise_rows(first: int, rows: int, side: int, seed: tuple[int, ...]) -> Floats:
    """Rows of the sum of all octaves of one class: (rows, side)."""
    total = np.zeros((rows, side), np.float32)
    for cell, amplitude in OCTAVES:
        y, x = np.arange(first, first + rows) / cell, np.arange(side) / cell
        top, bottom = int(y[0]), int(y[-1]) + 2
        knots = np.stack(
            [np.random.default_rng((*seed, cell, row)).random(int(x[-1]) + 2, np.float32) for row in range(top, bottom)]
        )
        along = _blend(knots.T, x.astype(np.float32)).T
        total += np.float32(amplitude) * _blend(along, (y - top).astype(np.float32))
    return total


def _blend(knots: Floats, at: Floats) -> Floats:
    """Values between the rows of `knots`, by smoothstep."""
    index = at.astype(np.intp)
    share = at - index
    share = (share * share * (3 - 2 * share))[:, None]
    return np.asarray(knots[index] * (1 - share) + knots[index + 1] * share)


def make_mask(path: Path, side: int, salt: float = 0.002, seed: int = 1) -> Path:
    """Write a mask of side x side half-metre pixels, classes 1 to 7."""
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint8", "nodata": 0}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    grid = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_500_000)}
    with rasterio.open(path, "w", **profile, **layout, **grid) as dataset:
        for first in range(0, side, STRIP):
            rows = min(STRIP, side - first)
            best = np.full((rows, side), -np.inf, np.float32)
            mask = np.zeros((rows, side), np.uint8)
            for number in range(1, CLASSES + 1):
                score = noise_rows(first, rows, side, (seed, number)) + np.float32(0.04 * (3 * number % CLASSES))
                mask[score > best] = number
                np.maximum(best, score, out=best)
            rng = np.random.default_rng((seed, first))
            grains = rng.random(mask.shape, np.float32) < salt
            mask[grains] = rng.integers(1, CLASSES + 1, int(grains.sum()))
            dataset.write(mask, 1, window=Window(0, first, side, rows))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("side", type=int)
    parser.add_argument("--salt", type=float, default=0.002)
    arguments = parser.parse_args()
    make_mask(arguments.out, arguments.side, arguments.salt)
