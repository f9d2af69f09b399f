"""A small command loads no torch."""

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
UNUSED = {"torch"}


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
