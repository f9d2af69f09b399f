"""`glraster vectorize` beside its peers: `python benchmarks/vectorize.py [--side 20000] [--mask FILE] [--rounds 3]`.

All write an indexed GeoPackage of the same mask, each run a process of its own, in turn, round by round:

- `glraster`: the command; `simplified`: the same with `--simplify 1`;
- `gdal`: GDALPolygonize of pyogrio's GDAL in one transaction, called through ctypes;
- `python`: rasterio's `shapes` of the whole array, to geopandas, to a file (left out with `--quick`).

Printed are the seconds of the whole process (median of the rounds), its processor seconds and its peak memory, and
every median as a share of GDAL's. `--cold` instead measures the first run of glraster, which compiles, and the second.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from make_mask import make_mask


@dataclass(frozen=True)
class Cost:
    """What a process took: wall and processor seconds, peak MiB."""

    seconds: float
    processor: float
    mib: float


def polygonize_by_gdal(mask: str, output: str) -> None:
    """Run GDALPolygonize of the library that comes with pyogrio, with an index, in one transaction."""
    import pyogrio

    folder = Path(pyogrio.__file__).parent
    os.environ.setdefault("PROJ_DATA", str(folder / "proj_data"))
    gdal = ctypes.CDLL(str(next((folder.parent / "pyogrio.libs").glob("libgdal*"))))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int

    def call(name: str, kind: object, *arguments: tuple[object, object]) -> object:
        function = getattr(gdal, name)
        function.restype, function.argtypes = kind, [wanted for wanted, _ in arguments]
        return function(*(value for _, value in arguments))

    call("CPLSetConfigOption", None, (text, b"PROJ_DATA"), (text, os.environ["PROJ_DATA"].encode()))
    gdal.GDALAllRegister()
    source = call("GDALOpen", pointer, (text, mask.encode()), (number, 0))
    band = call("GDALGetRasterBand", pointer, (pointer, source), (number, 1))
    crs = call("GDALGetSpatialRef", pointer, (pointer, source))
    driver = call("GDALGetDriverByName", pointer, (text, b"GPKG"))
    sizes = [(number, 0)] * 4
    file = call("GDALCreate", pointer, (pointer, driver), (text, output.encode()), *sizes, (pointer, None))
    call("GDALDatasetStartTransaction", number, (pointer, file), (number, 0))
    layer = call(
        "GDALDatasetCreateLayer", pointer, (pointer, file), (text, b"out"), (pointer, crs), (number, 3), (pointer, None)
    )
    field = call("OGR_Fld_Create", pointer, (text, b"class"), (number, 0))
    call("OGR_L_CreateField", number, (pointer, layer), (pointer, field), (number, 1))
    nothing = (pointer, None)
    failed = call(
        "GDALPolygonize", number, (pointer, band), nothing, (pointer, layer), (number, 0), nothing, nothing, nothing
    )
    if failed:
        raise SystemExit("GDALPolygonize failed")
    call("GDALDatasetCommitTransaction", number, (pointer, file))
    call("GDALClose", None, (pointer, file))


def polygonize_by_python(mask: str, output: str) -> None:
    """What a Python user writes."""
    import geopandas as gpd
    import rasterio
    from rasterio.features import shapes
    from shapely.geometry import shape

    with rasterio.open(mask) as dataset:
        values, crs = dataset.read(1), dataset.crs
        found = [(int(value), shape(geometry)) for geometry, value in shapes(values, transform=dataset.transform)]
    frame = gpd.GeoDataFrame({"class": [value for value, _ in found]}, geometry=[g for _, g in found], crs=crs)
    frame.to_file(output, driver="GPKG")


PEERS = {"gdal": polygonize_by_gdal, "python": polygonize_by_python}


def commands(mask: Path, output: Path, quick: bool) -> dict[str, list[str]]:
    """Every contestant as a command line."""
    own = [sys.executable, "-m", "glraster_cli", "vectorize", str(mask), "-o", str(output), "--overwrite"]
    peer = [sys.executable, __file__, "--peer"]
    contest = {
        "glraster": own,
        "gdal": [*peer, "gdal", "--mask", str(mask), "--output", str(output)],
        "simplified": [*own, "--simplify", "1"],
    }
    return contest if quick else contest | {"python": [*peer, "python", "--mask", str(mask), "--output", str(output)]}


def measured(command: list[str], environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command as a process of its own."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def features_in(path: Path) -> int:
    import pyogrio

    return int(pyogrio.read_info(path, layer=0)["features"])


def compare(mask: Path, rounds: int, quick: bool) -> None:
    """Measure all in turn and print a table."""
    costs: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory(dir=mask.parent) as name:
        output = Path(name) / "out.gpkg"
        measured(commands(mask, output, quick=True)["glraster"])
        measured(commands(mask, output, quick=True)["simplified"])
        for _ in range(rounds):
            for contestant, command in commands(mask, output, quick).items():
                output.unlink(missing_ok=True)
                costs.setdefault(contestant, []).append(measured(command))
                print(f"{contestant}: {features_in(output)} polygons, {costs[contestant][-1]}", file=sys.stderr)
    gdal = statistics.median(cost.seconds for cost in costs["gdal"])
    print(f"{'':>12} {'seconds':>8} {'cpu s':>7} {'MiB':>6} {'of gdal':>8}")
    for contestant, found in costs.items():
        seconds, processor, mib = (
            statistics.median(getattr(cost, key) for cost in found) for key in ("seconds", "processor", "mib")
        )
        print(f"{contestant:>12} {seconds:8.2f} {processor:7.2f} {mib:6.0f} {seconds / gdal:8.2f}")


def cold_start(mask: Path) -> None:
    """Print what the first run costs, which compiles and fills the cache, and what the second one does."""
    with tempfile.TemporaryDirectory() as name:
        plain = commands(mask, Path(name) / "out.gpkg", quick=True)["glraster"]
        for options in ((), ("--simplify", "1", "--smooth", "--min-area", "3")):
            environment = {**os.environ, "NUMBA_CACHE_DIR": tempfile.mkdtemp(dir=name)}
            for run in ("first", "second"):
                cost = measured([*plain, *options], environment)
                what = " ".join(("vectorize", *options))
                print(f"{what}, {run} run: {cost.seconds:.1f} s, {cost.processor:.1f} processor seconds")


def main() -> None:
    """Run the benchmark, or one of the peers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000, help="pixels of the mask that is drawn")
    parser.add_argument("--mask", type=Path, help="a mask of your own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="leave out the slow peer")
    parser.add_argument("--cold", action="store_true", help="measure a run that compiles instead")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        PEERS[arguments.peer](str(arguments.mask), arguments.output)
        return
    with tempfile.TemporaryDirectory() as name:
        mask = arguments.mask or make_mask(Path(name) / "mask.tif", arguments.side)
        if arguments.cold:
            cold_start(mask)
        else:
            compare(mask, arguments.rounds, arguments.quick)


if __name__ == "__main__":
    main()
