"""What a window costs in bytes and seconds: reading, computing, the part, its task, assembly.

`python benchmarks/scaling.py [SIDE]` draws ramps with a grain, SIDE x SIDE px (4096 if absent), for the default model.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import cloudpickle
import numpy as np
import rasterio

from glraster.model.default import model_path
from glraster.raster.assemble import Assembly
from glraster.raster.opening import gdal_session
from glraster.raster.parts import PartFolder
from glraster.workflows.prepare import prepared
from glraster.workflows.segment import _BLOCK
from glraster.workflows.windows import WindowCounts
from glraster.workflows.worker import Finished, WindowsTask, call_of


def draw(path: Path, side: int) -> None:
    """Smooth ramps with a grain, so that compressed blocks have a usual size."""
    grain = np.random.default_rng(0).integers(0, 24, (3, side, side), dtype=np.uint8)
    ramp = (np.add.outer(np.arange(side), 2 * np.arange(side)) // 16 % 200).astype(np.uint8)
    form = {"driver": "GTiff", "count": 3, "height": side, "width": side, "dtype": "uint8", "crs": "EPSG:32633"}
    layout = {"tiled": True, "compress": "deflate", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5.3e6)}
    with rasterio.open(path, "w", **form, **layout) as dataset:
        dataset.write(grain + ramp)


def main(side: int) -> None:
    with tempfile.TemporaryDirectory() as name, gdal_session():
        folder = Path(name)
        draw(folder / "scene.tif", side)
        with prepared(str(folder / "scene.tif"), folder / "mask.tif", model_path(None), None) as job:
            measure(job, folder)


def measure(job, folder: Path) -> None:
    predictor = job.predictor()
    parts = PartFolder(folder, job.spec.architecture.classes)
    spent = dict.fromkeys(("read", "compute", "write"), 0.0)
    for place in job.plan.wanted:
        marks = [time.perf_counter()]
        image, _ = job.scene.read(job.plan.windows.window(*place))
        marks.append(time.perf_counter())
        cells = predictor.window_scores(image).cells
        marks.append(time.perf_counter())
        parts.write(*place, cells)
        marks.append(time.perf_counter())
        for step, seconds in zip(spent, np.diff(marks), strict=True):
            spent[step] += seconds
    started = time.perf_counter()
    assembly = Assembly(job.scene.grid, job.plan.windows, parts)
    for block in job.plan.region.blocks(*_BLOCK):
        assembly.scores(block)
    assembled = time.perf_counter() - started
    windows, (height, width) = len(job.plan.wanted), job.plan.window_px
    task = WindowsTask(call_of(job), job.fingerprint(), folder, "0" * 32, job.plan.wanted[:8])
    answer = Finished(WindowCounts(done=8), "tcp://127.0.0.1:40000", 1)
    pixels, on_disk = job.plan.region.size, (folder / "scene.tif").stat().st_size
    print(f"{windows} windows of {width} x {height} px, {pixels / windows / 1e6:.2f} MPx of the scene each")
    print(f"seconds per window: {', '.join(f'{step} {s / windows:.3f}' for step, s in spent.items())}")
    print(f"seconds per window: assembly {assembled / windows:.3f}, {pixels / assembled / 1e6:.1f} MPx/s")
    print(f"pixels per window: {image.nbytes / 1e6:.2f} MB; of the file: {on_disk / windows / 1e6:.2f} MB")
    print(f"part: {parts.file(*place).stat().st_size / 1e6:.3f} MB")
    print(f"task of 8 windows: {len(cloudpickle.dumps(task))} bytes, answer: {len(cloudpickle.dumps(answer))} bytes")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4096)
