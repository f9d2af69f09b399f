"""Memory follows the width of the mask and its open polygons, not its height."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from rasters import write_raster
from vector.masks import blobs

MEASURE = """
import sys
import glraster
from glraster.raster import class_raster, source

class_raster.BAND_PX = 500_000
source.CACHE_BYTES = 8 * 2**20
print(glraster.vectorize(sys.argv[1], sys.argv[2]).peak_memory_bytes)
"""


def peak_bytes(folder, height: int) -> int:
    closed = blobs(500, 1000, seed=3)
    closed[-1] = 0  # no polygon goes on into the next repetition
    mask = write_raster(folder / f"{height}.tif", np.tile(closed, (height // 500, 1))[None], nodata=0, tiled=True)
    command = [sys.executable, "-c", MEASURE, str(mask), str(folder / f"{height}.gpkg")]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_mask_twenty_times_as_high_takes_little_more_memory(tmp_path):
    low, high = peak_bytes(tmp_path, 1000), peak_bytes(tmp_path, 20_000)
    # allocators of several threads hold on to some of what bands freed
    assert high < low + 100 * 2**20, (low / 2**20, high / 2**20)
