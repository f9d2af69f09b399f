"""A small command loads only what it uses, and leaves its process as any import would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rasters import write_raster
from vector.masks import blobs

LOADED = """
import json, sys
from glraster_cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps([name for name in sys.modules if vars(sys.modules[name]).get("__file__")]))
"""
UNUSED = {"torch", "pandas", "geopandas", "scipy.linalg", "boto3", "pyproj", "pyarrow.compute"}
AFTERWARDS = """
import sys
from glraster_cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code
from pyproj import CRS
import boto3, geopandas, pandas, pyogrio, pyproj.transformer, rasterio.session, scipy.linalg.cython_blas, scipy.ndimage
assert all(type(module).__name__ != "_StandIn" for module in sys.modules.values())
assert CRS.from_epsg(32633) == pyproj.crs.CRS("EPSG:32633")
assert isinstance(pyogrio.read_dataframe(sys.argv[3], layer=0), geopandas.GeoDataFrame)
assert rasterio.session.boto3.session.Session is boto3.session.Session
assert scipy.linalg.norm([3, 4]) == 5 and scipy.linalg.cython_blas.__pyx_capi__
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    mask = write_raster(tmp_path / "mask.tif", blobs(40, 50, seed=1)[None], nodata=0)
    return ["-o", str(tmp_path / "out.gpkg"), str(mask), "-q"]


def in_a_process(code: str, arguments: list[str]) -> str:
    command = [sys.executable, "-c", code, "vectorize", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_vectorize_loads_only_what_it_uses(arguments: list[str]) -> None:
    loaded = json.loads(in_a_process(LOADED, arguments).splitlines()[-1])
    assert UNUSED & set(loaded) == set()


def test_what_was_put_off_is_whole_afterwards(arguments: list[str]) -> None:
    pytest.importorskip("boto3")
    in_a_process(AFTERWARDS, arguments)
