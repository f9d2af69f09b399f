"""The tool needs no module that only Unix has: as on Windows, `fcntl` and `resource` are not there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from maps import patches, write_map
from rasters import landscape, write_raster
from training.scenes import write_catalog

HIDDEN = """
import os, sys
import psutil  # which needs `resource` itself where it is there
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
for name in ("sched_getaffinity", "geteuid", "getuid", "fork", "mkfifo"):
    if hasattr(os, name):
        delattr(os, name)
from glraster_cli.main import main
main(sys.argv[1:])
"""


def run_without_unix(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", HIDDEN, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def test_segment(tmp_path: Path, model_file: Callable[..., Path]) -> None:
    scene = write_raster(tmp_path / "scene.tif", landscape(150, 200))
    mask, confidence = tmp_path / "mask.tif", tmp_path / "confidence.tif"
    run_without_unix("segment", scene, "-m", model_file(), "-o", mask, "--confidence", confidence)
    assert {path.name for path in tmp_path.iterdir()} == {scene.name, mask.name, "mask.tif.aux.xml", confidence.name}


def test_vectorize(tmp_path: Path) -> None:
    mask = write_map(tmp_path / "map.tif", patches(90, 120))
    run_without_unix("vectorize", mask, "-o", tmp_path / "map.gpkg", "--dissolve")
    assert {path.name for path in tmp_path.iterdir()} == {"map.tif", "map.gpkg"}


def test_train(tmp_path: Path) -> None:
    settings = ("stem=8", "width=8", "tile_px=64", "thumbnail_px=64", "batch=2", "steps=1", "warm_up=1")
    options = [part for setting in settings for part in ("--set", setting)]
    run_without_unix("train", write_catalog(tmp_path), "-o", tmp_path / "run", *options)
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert (tmp_path / "run" / "report.html").exists()
