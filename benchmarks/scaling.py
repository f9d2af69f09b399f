"""What a window and a band cost in bytes and seconds: reading, computing, what is kept or sent, what the client does.

`python benchmarks/scaling.py [SIDE]` draws ramps with a grain, SIDE x SIDE px (4096 if absent), for the default model,
and `python benchmarks/scaling.py --bands [SIDE]` a class mask for `vectorize`.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import rasterio

from glraster.cluster.worker import Opening, Work, as_json
from glraster.model.checkpoint import model_path
from glraster.raster.source import gdal_session
from glraster.segmentation.assemble import Assembly
from glraster.segmentation.distributed import WindowsResult, WindowsTask, compute_task, open_scene, scene_call
from glraster.segmentation.job import segment_job
from glraster.segmentation.parts import PartFolder
from glraster.segmentation.windows import WindowCounts
from glraster.segmentation.write_map import BLOCK
from glraster.vector.bands import MaskRasters, band_tasks, measure_band, row_metrics, trace_band
from glraster.vector.job import VectorizeOptions
from glraster.vector.job import open_job as open_mask_job
from glraster.vector.sieve import new_values
from glraster.vector.vectorize import _batches, _Tally, _write_file


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
        with segment_job(str(folder / "scene.tif"), folder / "mask.tif", model_path(None), None) as job:
            measure(job, folder)


def measure(job, folder: Path) -> None:
    predictor = job.predictor()
    parts = PartFolder(folder, job.spec.architecture.classes)
    spent = dict.fromkeys(("read", "compute", "write"), 0.0)
    for place in job.plan.places:
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
    for block in job.plan.region.blocks(*BLOCK):
        assembly.scores(block)
    assembled = time.perf_counter() - started
    windows, (height, width) = len(job.plan.places), job.plan.window_px
    task = WindowsTask(str(folder), "0" * 32, job.plan.places[:8])
    work = Work(compute_task, Opening(open_scene, scene_call(job)), as_json(job.fingerprint()), task)
    answer = WindowsResult(WindowCounts(done=8), "tcp://127.0.0.1:40000", 1)
    pixels, on_disk = job.plan.region.size, (folder / "scene.tif").stat().st_size
    print(f"{windows} windows of {width} x {height} px, {pixels / windows / 1e6:.2f} MPx of the scene each")
    print(f"seconds per window: {', '.join(f'{step} {s / windows:.3f}' for step, s in spent.items())}")
    print(f"seconds per window: assembly {assembled / windows:.3f}, {pixels / assembled / 1e6:.1f} MPx/s")
    print(f"pixels per window: {image.nbytes / 1e6:.2f} MB; of the file: {on_disk / windows / 1e6:.2f} MB")
    print(f"part: {parts.file(*place).stat().st_size / 1e6:.3f} MB")
    print(f"task of 8 windows: {len(cloudpickle.dumps(work))} bytes, answer: {len(cloudpickle.dumps(answer))} bytes")


def draw_mask(path: Path, side: int) -> None:
    """Four classes in rounded patches some 30 px wide, one pixel in a thousand of any class."""
    rng = np.random.default_rng(0)
    form = {"driver": "GTiff", "count": 1, "height": side, "width": side, "dtype": "uint8", "crs": "EPSG:32633"}
    layout = {"tiled": True, "compress": "deflate", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5.3e6)}
    with rasterio.open(path, "w", nodata=255, blockxsize=512, blockysize=512, **form, **layout) as dataset:
        phase = rng.random((4, 6)) * 6.28
        columns = np.arange(side) / 13
        for top in range(0, side, 512):
            rows = np.arange(top, min(side, top + 512))[:, None] / 13
            field = [
                np.sin(rows * (1 + p[0] / 9) + p[1] + np.sin(columns / 3 + p[2]))
                + np.sin(columns * (1 + p[3] / 9) + p[4] + np.sin(rows / 3 + p[5]))
                for p in phase
            ]
            mask = np.argmax(field, axis=0).astype(np.uint8)
            grains = rng.random(mask.shape) < 0.001
            mask[grains] = rng.integers(0, 4, int(grains.sum()))
            dataset.write(mask, 1, window=rasterio.windows.Window(0, top, side, len(rows)))


def measure_bands(side: int) -> None:
    """The bands of a mask, plain, simplified, and with small parts merged."""
    with tempfile.TemporaryDirectory() as name, gdal_session():
        mask = Path(name) / "mask.tif"
        draw_mask(mask, side)
        print(f"mask of {side} x {side} px, {mask.stat().st_size / 1e6:.1f} MB")
        for options in ({}, {"simplify_m": 1.0}, {"simplify_m": 1.0, "min_area_m2": 4.0}):
            for _ in range(2):  # the first time, what is compiled is loaded
                told = bands_cost(mask, VectorizeOptions(**options, overwrite=True))
            print(f"{options or 'plain'}: {told}")


def bands_cost(mask: Path, options: VectorizeOptions) -> str:
    """What a worker does for a band, what it sends, and what the client does, in the order of a run."""
    spent = dict.fromkeys(("measure", "trace", "client"), 0.0)
    sent = dict.fromkeys(("parts", "values", "band"), 0)

    def timed(step: str, function: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        found = function(*arguments)
        spent[step] += time.perf_counter() - started
        return found

    output = mask.with_name("polygons.gpkg")
    with open_mask_job(str(mask), str(output), options) as job:
        rasters, tasks = MaskRasters(job.mask, None), list(band_tasks(job))
        if options.min_area_m2:
            sizes = row_metrics(job)
            parts = [timed("measure", measure_band, rasters, replace(task, metrics=sizes)) for task in tasks]
            sent["parts"] = len(pickle.dumps(parts))
            merged = timed("client", new_values, parts, job.mask.blank, options.min_area_m2)
            tasks = [replace(task, values=new.astype(job.mask.pixel)) for task, new in zip(tasks, merged, strict=True)]
            sent["values"] = sum(task.values.nbytes for task in tasks)
        bands = [timed("trace", trace_band, rasters, task) for task in tasks]
        sent["band"] = len(pickle.dumps(bands))
        timed("client", _write_file, job, _batches(job, iter(bands), _Tally(), lambda *_: None), _Tally())
    count, side = len(tasks), job.mask.region.width
    seconds = ", ".join(f"{step} {s / count:.3f}" for step, s in spent.items())
    sizes_told = ", ".join(f"{what} {n / count / 1e6:.2f}" for what, n in sent.items())
    return f"{count} bands of {tasks[0].rows} x {side} px; seconds per band: {seconds}; MB per band: {sizes_told}"


if __name__ == "__main__":
    bands = sys.argv[1:2] == ["--bands"]
    side = int(sys.argv[-1]) if sys.argv[-1].isdecimal() else 4096
    measure_bands(side) if bands else main(side)
