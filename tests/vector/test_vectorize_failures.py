"""Calls of `vectorize` that must fail: one line, a status, and nothing left behind; and runs that are cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from rasters import write_raster
from vector.masks import blobs


@pytest.fixture
def mask(tmp_path):
    return write_raster(tmp_path / "mask.tif", blobs(60, 80, seed=1)[None], nodata=0)


def contents(folder):
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def fails(tmp_path, run):
    def call(code, text, *arguments):
        before = contents(tmp_path)
        outcome = run("vectorize", *arguments)
        assert (outcome.code, outcome.out) == (code, ""), outcome.err
        assert len(outcome.err.splitlines()) == 1, outcome.err
        assert outcome.err.startswith("glraster: error: ")
        assert text in outcome.err
        assert contents(tmp_path) == before

    return call


def test_masks_that_are_none(tmp_path, fails):
    out = tmp_path / "out.gpkg"
    floating = write_raster(tmp_path / "float.tif", np.full((1, 9, 9), 0.5, np.float32))
    four = write_raster(tmp_path / "four.tif", np.ones((4, 9, 9), np.uint8), photometric="MINISBLACK")
    (tmp_path / "notes.tif").write_text("no raster")
    fails(1, "has the value 0.5", floating, "-o", out)
    fails(1, "bands", four, "-o", out)
    flat = write_raster(tmp_path / "flat.tif", np.ones((1, 9, 9), np.uint8), transform=Affine(1, 1, 5e5, 1, 1, 5e6))
    fails(1, "flat.tif: its transform gives pixels no area", flat, "-o", out)
    fails(1, "cannot be opened as a raster", tmp_path / "notes.tif", "-o", out)
    fails(1, "cannot be opened as a raster", tmp_path / "absent.tif", "-o", out)


def test_a_damaged_mask(mask, tmp_path, fails):
    mask.write_bytes(mask.read_bytes()[: mask.stat().st_size // 2])
    fails(1, "damaged", mask, "-o", tmp_path / "out.gpkg")


def test_outputs_that_cannot_be(mask, tmp_path, fails):
    (tmp_path / "exists.gpkg").write_text("mine")
    fails(1, "exists; use --overwrite", mask, "-o", tmp_path / "exists.gpkg")
    fails(1, "its folder does not exist", mask, "-o", tmp_path / "nowhere" / "out.gpkg")
    fails(2, "names no format", mask, "-o", tmp_path / "out.shp")
    (tmp_path / "link.gpkg").hardlink_to(mask)
    fails(2, "is an input", mask, "-o", tmp_path / "link.gpkg", "--overwrite")
    (tmp_path / "busy.gpkg.parts").mkdir()
    (tmp_path / "busy.gpkg.parts" / "notes.txt").write_text("not ours")
    fails(1, "is in the way", mask, "-o", tmp_path / "busy.gpkg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(mask, tmp_path, fails):
    (tmp_path / "locked").mkdir(mode=0o500)
    fails(1, "not writable", mask, "-o", tmp_path / "locked" / "out.gpkg")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("no such class", ["--classes", "watr"]),
        ("is no CRS", ["--dst-crs", "EPSG:1"]),
        ("must be positive", ["--simplify", "0"]),
        ("must be positive", ["--min-area", "-3"]),
        ("at least 1", ["--threads", "0"]),
        ("at least 1", ["--workers", "0"]),
        ("either --scheduler or --workers", ["--workers", "1", "--scheduler", "tcp://127.0.0.1:9"]),
    ],
)
def test_wrong_options(text, options, mask, tmp_path, fails):
    fails(2, text, mask, "-o", tmp_path / "out.gpkg", *options)


def test_options_that_do_not_fit_the_mask(mask, tmp_path, fails):
    bare = write_raster(tmp_path / "bare.png", blobs(9, 9, 1)[None], driver="PNG", crs=None, transform=None)
    other = write_raster(tmp_path / "other.tif", np.ones((1, 5, 5), np.uint8))
    out = tmp_path / "out.gpkg"
    fails(2, "has no CRS", bare, "-o", out, "--dst-crs", "EPSG:4326")
    fails(1, "does not lie on the grid", mask, "-o", out, "--confidence", other)
    fails(1, "outside the scene", mask, "-o", out, "--bounds", 0, 0, 1, 1)
    fails(2, "longitude and latitude", mask, "-o", tmp_path / "out.geojson", "--dst-crs", "EPSG:3857")


LIMITED = """
import resource, signal, sys
from glraster_cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))
from glraster.raster import class_raster
class_raster.BAND_PX = 40_000
main(sys.argv[1:])
"""


@pytest.mark.parametrize("options", [[], ["--dissolve"], ["--simplify", "1"]], ids=str)
@pytest.mark.parametrize("ending", ["gpkg", "parquet", "fgb"])
def test_a_file_that_cannot_grow_is_an_error_and_leaves_nothing(ending, options, tmp_path):
    """As on a full disk: every write fails from some point on."""
    mask = write_raster(tmp_path / "mask.tif", blobs(900, 900, seed=2, salt=0.3)[None], nodata=0, blockysize=10)
    call = ["vectorize", str(mask), "-o", str(tmp_path / f"out.{ending}"), *options]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *call], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"glraster: error: {tmp_path / 'out'}.{ending}: cannot be written")
    assert {path.name for path in tmp_path.iterdir()} == {"mask.tif"}


DYING = """
import os, signal, sys
from glraster.vector import output
from glraster_cli.main import main
take, left = output.record_batch, [int(sys.argv[1])]
def dying(*arguments):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return take(*arguments)
from glraster.vector import vectorize
vectorize.record_batch = dying
from glraster.raster import class_raster
class_raster.BAND_PX = 40_000
main(sys.argv[2:])
"""


@pytest.mark.parametrize("options", [[], ["--resume"]], ids=str)
def test_a_killed_run_leaves_nothing_that_looks_finished_and_can_be_repeated(options, tmp_path, run):
    mask = write_raster(tmp_path / "mask.tif", blobs(900, 300, seed=2)[None], nodata=0, blockysize=10)
    out = tmp_path / "out.gpkg"
    died = subprocess.run([sys.executable, "-c", DYING, "4", "vectorize", str(mask), "-o", str(out)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"mask.tif", "out.gpkg.parts"}
    assert run("vectorize", mask, "-o", out, *options).code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"mask.tif", "out.gpkg"}
    assert len(gpd.read_file(out, layer="out")) > 100


def test_two_runs_do_not_share_an_output(mask, tmp_path, run):
    import fcntl

    (tmp_path / "out.gpkg.parts").mkdir()
    with (tmp_path / "out.gpkg.parts" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = run("vectorize", mask, "-o", tmp_path / "out.gpkg")
    assert outcome.code == 1
    assert "another process" in outcome.err


def test_overwrite_replaces_and_keeps_the_old_file_until_then(mask, tmp_path, run):
    out = tmp_path / "out.gpkg"
    out.write_text("old")
    bad = run("vectorize", mask, "-o", out, "--overwrite", "--classes", "nonsense")
    assert (bad.code, out.read_text()) == (2, "old")
    started = time.time()
    assert run("vectorize", mask, "-o", out, "--overwrite").code == 0
    assert out.stat().st_mtime >= started - 1
    assert out.read_bytes()[:6] == b"SQLite"
