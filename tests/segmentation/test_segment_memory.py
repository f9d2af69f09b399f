"""Memory follows the context window, not the scene."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rasters import landscape, write_raster

MEASURE = """
import sys
from glraster.process import peak_memory_bytes
from glraster.raster import source
from glraster.segmentation.segment import SegmentOptions, segment

source.CACHE_BYTES = 8 * 2**20  # GDAL's cache fills as it may: made smaller than either scene
scene, mask, model, branch = sys.argv[1:]
segment(scene, mask, model, SegmentOptions(branch=branch))
print(peak_memory_bytes())
"""


def peak_bytes(scene: Path, model: Path, branch: str) -> int:
    command = [sys.executable, "-c", MEASURE, *map(str, (scene, scene.with_name("mask.tif"), model, branch))]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def scene_of(folder: Path, height: int, width: int) -> Path:
    folder.mkdir()
    pixels = np.tile(landscape(1000, 500), (1, height // 1000, width // 500))
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "LZW"}
    return write_raster(folder / "scene.tif", pixels, **layout)


@pytest.mark.parametrize(
    ("branch", "small", "large"),
    [("global", (1000, 1000), (3000, 4000)), ("full", (1000, 500), (1000, 1500))],
    ids=["12 MPx through the global branch", "1.5 MPx through both"],
)
def test_larger_scene_takes_no_more_memory(branch, small, large, tmp_path, model_file):
    model = model_file("local", context_px=500, tile_px=320, thumbnail_px=64)
    peaks = [peak_bytes(scene_of(tmp_path / f"{size}", *size), model, branch) for size in (small, large)]
    assert peaks[1] < 1.1 * peaks[0], [f"{peak / 2**20:.0f} MiB" for peak in peaks]
