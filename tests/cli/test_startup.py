"""A short command loads only what it uses; packages that were put off are whole when somebody uses them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rasters import write_raster
from vector.masks import blobs

RUN = """
import json, sys
from glraster_cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps(sorted(sys.modules)))
"""
UNUSED = {
    "torch",
    "pandas.core",
    "geopandas.array",
    "scipy.linalg.blas",
    "boto3.session",
    "pyproj.crs",
    "pyarrow.compute",
}
USE = """
import sys
from glraster_cli.startup import defer_imports
defer_imports()
import pyogrio
assert "pandas.core" not in sys.modules
frame = pyogrio.read_dataframe(sys.argv[1], layer=0)
import geopandas, pandas, scipy.linalg.cython_blas, scipy.ndimage
assert isinstance(frame, geopandas.GeoDataFrame) and isinstance(frame, pandas.DataFrame)
assert scipy.linalg.norm([3, 4]) == 5 and scipy.linalg.cython_blas.__pyx_capi__
print(len(frame))
"""


def test_vectorize_loads_only_what_it_uses(tmp_path: Path) -> None:
    mask = write_raster(tmp_path / "mask.tif", blobs(40, 50, seed=1)[None], nodata=0)
    command = [sys.executable, "-c", RUN, "vectorize", str(mask), "-o", str(tmp_path / "out.gpkg"), "-q"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert UNUSED & set(json.loads(printed.splitlines()[-1])) == set()


def test_deferred_packages_load_when_they_are_used(tmp_path: Path) -> None:
    mask = write_raster(tmp_path / "mask.tif", blobs(40, 50, seed=1)[None], nodata=0)
    polygons = tmp_path / "out.gpkg"
    making = [sys.executable, "-m", "glraster_cli", "vectorize", str(mask), "-o", str(polygons), "--json"]
    made = subprocess.run(making, capture_output=True, text=True, check=True)
    used = subprocess.run([sys.executable, "-c", USE, str(polygons)], capture_output=True, text=True, check=True)
    assert int(used.stdout) == json.loads(made.stdout)["polygons"]
