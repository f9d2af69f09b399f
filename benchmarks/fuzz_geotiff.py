"""Mutate heads of small GeoTIFFs and read them as scenes: `python benchmarks/fuzz_geotiff.py [--runs N --seconds S]`.

A scene may be read, or refused with a GlrasterError of one line; everything else is a finding: another exception, a
crash, a hang, more than `MEMORY_BYTES`. GDAL is C++, so the cases run in child processes with limits. A finding is its
seed: `--first SEED --runs 1` repeats it. Prints one line of JSON with the counts.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MEMORY_BYTES = 3 * 2**30
SECONDS_PER_CASE = 20
_HEAD = 2048
_LIMITS = (0, 1, 2, 3, 4, 8, 16, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)

TIFF_FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "deflate"},
    {"compress": "lzw", "predictor": 2},
    {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "jpeg", "photometric": "ycbcr"},
    {"bigtiff": "yes", "interleave": "band"},
    {"compress": "packbits", "nodata": 7},
    {"dtype": "float32", "compress": "zstd", "predictor": 3},
    {"dtype": "uint16", "endianness": "big", "compress": "lerc"},
    {"crs": None, "alpha": "yes"},
    {"driver": "COG", "blocksize": 128, "compress": "webp"},
)
"""Creation options of the small rasters whose heads are mutated."""


def write_tiffs(folder: Path) -> list[Path]:
    """Write one small GeoTIFF of every form, pixels that tell their place."""
    import numpy as np
    import rasterio
    import rasterio.shutil
    from affine import Affine

    folder.mkdir(exist_ok=True)
    rows, columns = np.mgrid[:48, :64]
    pixels = np.stack([(rows * 5 + columns * 3 + band * 40) % 256 for band in range(3)])
    paths = []
    for i, form in enumerate(TIFF_FORMS):
        path, options = folder / f"form_{i}.tif", dict(form)
        profile = {"driver": "GTiff", "count": 3, "height": 48, "width": 64, "dtype": "uint8", "crs": "EPSG:32633"}
        profile["transform"] = Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000)
        is_cog = options.pop("driver", "") == "COG"
        profile |= {} if is_cog else options
        with rasterio.open(folder / "plain.tif" if is_cog else path, "w", **profile) as dataset:
            dataset.write(pixels.astype(profile["dtype"]))
        if is_cog:
            rasterio.shutil.copy(folder / "plain.tif", path, driver="COG", **options)
        paths.append(path)
    return paths


def mutate_tiff(content: bytes, seed: int) -> bytes:
    """One to six changes to a file, most of them to numbers in its head; sometimes it is cut off."""
    chance, data = random.Random(seed), bytearray(content)
    order = "<" if data[:2] == b"II" else ">"
    for _ in range(chance.randint(1, 6)):
        reach = min(len(data), _HEAD) if chance.random() < 0.9 else len(data)
        kind, at = chance.randrange(6), chance.randrange(2, max(3, reach - 8))
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at : at + 2] = struct.pack(f"{order}H", chance.choice(_LIMITS) & 0xFFFF)
        elif kind == 2:
            data[at : at + 4] = struct.pack(f"{order}I", chance.choice(_LIMITS))
        elif kind == 3:
            data[at : at + 4] = struct.pack(f"{order}I", chance.randrange(2**32))
        elif kind == 4:
            source = chance.randrange(2, reach)
            data[at : at + 12] = data[source : source + 12]
        elif len(data) > 64 and chance.random() < 0.3:
            del data[chance.randrange(16, len(data)) :]
        if len(data) < 16:
            break
    return bytes(data)


def read_scene(path: Path) -> str:
    """All that `segment` asks of a scene; "read", or "refused" where it says so in a GlrasterError."""
    from glraster.errors import GlrasterError
    from glraster.raster.grid import Window
    from glraster.raster.reader import Scene
    from glraster.raster.source import gdal_session

    try:
        with gdal_session(), Scene(str(path), None, 3) as scene:
            scene.identity()
            if scene.gsd_m is not None:
                scene.resample_to(0.6)
            rows, columns = scene.grid.rows.working, scene.grid.columns.working
            scene.read(Window(max(0, rows - 40), max(0, columns - 40), 64, 64))
            scene.read(Window(0, 0, 64, 64))
            scene.read_valid(Window(0, 0, min(64, scene.shape[0]), min(64, scene.shape[1])))
            scene.sample(16, 2)
    except GlrasterError as error:
        if "\n" in str(error):
            raise RuntimeError(f"an error of several lines: {error}") from error
        return "refused"
    return "read"


def fuzz_geotiff(first: int, runs: int, seconds: float) -> dict[str, Any]:
    """Run mutations in child processes; after a crash or hang the next child goes on behind the case that did it."""
    counts: dict[str, Any] = {"read": 0, "refused": 0, "findings": []}
    seed, end = first, first + runs
    stop = time.monotonic() + seconds
    while seed < end and time.monotonic() < stop:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            command = [sys.executable, __file__, "--child", folder, "--first", str(seed)]
            command += ["--runs", str(min(end - seed, 2000)), "--seconds", str(max(1.0, stop - time.monotonic()))]
            with log.open("w") as stream, subprocess.Popen(command, stdout=stream, stderr=subprocess.PIPE) as child:
                ended = _watch(child, log)
                told = child.stderr.read().decode(errors="replace") if child.stderr else ""
            lines = log.read_text().splitlines()
        done = [line.split() for line in lines if line and line.count(" ") == 1]
        for _, what in done:
            counts[what] += 1
        seed += len(done)
        if ended:
            last = told.strip().splitlines()[-1:] or [""]
            counts["findings"].append({"seed": seed, "end": ended, "told": last[0][:200]})
            seed += 1
    return {"target": "geotiff", "tried": counts["read"] + counts["refused"] + len(counts["findings"]), **counts}


def _watch(child: subprocess.Popen[bytes], log: Path) -> str:
    """How a child ended, "" where well; one that makes no step for too long is stopped."""
    size, since = -1, time.monotonic()
    while child.poll() is None:
        time.sleep(0.05)
        now = log.stat().st_size
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > SECONDS_PER_CASE:
            child.kill()
            child.wait()
            return "hang"
    return "" if child.returncode == 0 else f"status {child.returncode}"


def _read_cases(folder: Path, first: int, runs: int, seconds: float) -> None:
    limit_process()
    sources = [path.read_bytes() for path in write_tiffs(folder / "forms")]
    target, stop = folder / "case.tif", time.monotonic() + seconds
    for seed in range(first, first + runs):
        if time.monotonic() > stop:
            return
        target.write_bytes(mutate_tiff(sources[seed % len(sources)], seed))
        print(seed, read_scene(target), flush=True)


def limit_process(memory_bytes: int = MEMORY_BYTES) -> None:
    """Bound this process's memory, and let it write no core file."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--runs", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        _read_cases(chosen.child, chosen.first, chosen.runs, chosen.seconds)
        return
    counts = fuzz_geotiff(chosen.first, chosen.runs, chosen.seconds)
    print(json.dumps(counts))
    sys.exit(1 if counts["findings"] else 0)


if __name__ == "__main__":
    main()
