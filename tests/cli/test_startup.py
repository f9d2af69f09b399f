"""A short command loads only what it uses."""

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
UNUSED = {"torch"}


def test_vectorize_loads_only_what_it_uses(tmp_path: Path) -> None:
    mask = write_raster(tmp_path / "mask.tif", blobs(40, 50, seed=1)[None], nodata=0)
    command = [sys.executable, "-c", RUN, "vectorize", str(mask), "-o", str(tmp_path / "out.gpkg"), "-q"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert UNUSED & set(json.loads(printed.splitlines()[-1])) == set()
