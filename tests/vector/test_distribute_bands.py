"""Bands that a cluster's workers trace give the features of a serial run, in its order."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from contextlib import closing
from dataclasses import replace

import dask
import geopandas as gpd
import numpy as np
import pytest
from rasters import write_raster
from vector.masks import blobs

import glraster
from glraster.cluster import client as cluster
from glraster.cluster.client import AHEAD, connected
from glraster.errors import ClusterError, SceneError
from glraster.raster import class_raster
from glraster.vector import distribute_bands
from glraster.vector import distributed as band_worker
from glraster.vector.bands import Tracing, traced_bands
from glraster.vector.distribute_bands import far_bands
from glraster.vector.job import prepared

H, W, ROWS = 300, 200, 10
BANDS = H // ROWS
BOUNDS = (500_010, 5_299_860, 500_080, 5_299_990)


@pytest.fixture(scope="module")
def mask(tmp_path_factory):
    """A mask with a grain, which makes small parts; beside it a raster on its grid, confidence.tif."""
    folder = tmp_path_factory.mktemp("mask")
    percent = np.random.default_rng(0).integers(0, 101, (1, H, W)).astype(np.uint8)
    write_raster(folder / "confidence.tif", percent, nodata=255)
    return write_raster(folder / "mask.tif", blobs(H, W, seed=4)[None], nodata=0, blockysize=5)


@pytest.fixture(autouse=True)
def _narrow_bands(monkeypatch):
    monkeypatch.setattr(class_raster, "BAND_PX", 208 * ROWS)


def rows_of(path):
    """Everything in a file of features, in its order."""
    frame = gpd.read_file(path)
    return frame.geometry.to_wkb().tolist(), frame.drop(columns="geometry").astype(str).to_numpy().tolist()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"simplify_m": 1.0},
        {"min_area_m2": 3.0},
        {"confidence": "confidence.tif"},
        {"min_area_m2": 3.0, "simplify_m": 1.0, "smooth": True, "connectivity": 8, "confidence": "confidence.tif"},
        {"bounds": BOUNDS, "min_area_m2": 3.0},
        {"dissolve": True},
    ],
    ids=str,
)
def test_features_and_their_order_are_those_of_a_serial_run(options, mask, cluster, tmp_path):
    if "confidence" in options:
        options = options | {"confidence": mask.with_name("confidence.tif")}
    found = []
    for name, crew in (("serial", None), ("far", cluster)):
        output = tmp_path / f"{name}.fgb"
        glraster.vectorize(mask, output, cluster=crew, **options, layer="polygons")
        found.append(rows_of(output))
    assert found[0] == found[1]
    assert len(found[0][0]) >= 4


def test_two_processes_by_the_command_line(mask, tmp_path, run):
    for name, options in (("serial", ()), ("far", ("--workers", 2))):
        outcome = run("vectorize", mask, "-o", tmp_path / f"{name}.fgb", "--simplify", 1, "--layer", "a", *options)
        assert (outcome.code, outcome.err) == (0, "")
    assert rows_of(tmp_path / "serial.fgb") == rows_of(tmp_path / "far.fgb")
    assert {path.name for path in tmp_path.iterdir()} == {"serial.fgb", "far.fgb"}


@pytest.mark.parametrize("bounds", [None, BOUNDS], ids=str)
def test_a_band_read_alone_is_the_one_of_a_sweep(bounds, mask):
    with class_raster.ClassRaster(str(mask), bounds) as raster:
        for top, pixels in raster.bands(7):
            np.testing.assert_array_equal(raster.band(top, 7), pixels)


# --- bands ahead, and who is lost ----------------------------------------------------------------------------------


def same(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_no_more_bands_are_under_way_than_workers_need(mask, cluster, monkeypatch):
    handed, submit = [], cluster.submit
    monkeypatch.setattr(cluster, "submit", lambda *call: handed.append(call) or submit(*call))
    with prepared(str(mask), "-", None) as job, closing(far_bands(job, cluster)) as bands:
        for taken, _ in enumerate(bands, start=1):
            assert len(handed) <= taken + AHEAD * 2
    assert (taken, len(handed)) == (BANDS, BANDS)


def test_tasks_are_called_off_when_nobody_takes_their_bands(mask, cluster):
    with prepared(str(mask), "-", None) as job, closing(far_bands(job, cluster)) as bands:
        next(bands)
    until = time.monotonic() + 30
    while any(cluster._client.who_has().values()):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_bands_come_through_the_scheduler_where_workers_cannot_be_reached(mask, cluster, monkeypatch):
    asked, gather = [], cluster._client.gather
    monkeypatch.setattr(cluster._client, "gather", lambda f, direct: asked.append(direct) or gather(f, direct=direct))
    with prepared(str(mask), "-", None) as job:
        near = list(traced_bands(job))
        for reached in (True, False):
            monkeypatch.setattr(cluster, "_reaches_workers", lambda reached=reached: reached)
            assert all(map(same, far_bands(job, cluster), near))
    assert asked == [True] * BANDS + [False] * BANDS


def test_the_bands_of_a_lost_worker_are_traced_again(mask):
    """Two bands wait on each worker for their turn when one of them is killed."""
    with connected(workers=2) as crew, prepared(str(mask), "-", None) as job:
        near = list(traced_bands(job))
        with closing(far_bands(job, crew)) as bands:
            found = [next(bands)]
            time.sleep(1)
            (doomed, *_) = crew._client.run(os.getpid).values()
            os.kill(doomed, signal.SIGKILL)
            found += bands
    assert len(found) == BANDS
    assert all(map(same, found, near))


def test_a_band_that_ends_its_workers_is_an_error(mask, monkeypatch):
    def deadly(_: object) -> None:
        os.kill(os.getpid(), 9)

    fatal = dask.config.set({"distributed.scheduler.allowed-failures": 0})
    with fatal, connected(workers=1) as doomed, prepared(str(mask), "-", None) as job:
        doomed._client.submit(int, 1).result()
        monkeypatch.setattr(doomed, "agreed", lambda *_: {})
        monkeypatch.setattr(distribute_bands, "trace", deadly)
        with pytest.raises(ClusterError, match=r"a band of the mask ended one worker after another.*tiled copy"):
            list(far_bands(job, doomed))


def test_a_cluster_that_loses_all_workers_is_told(mask, monkeypatch):
    """A task is under way and its worker does not come back."""
    monkeypatch.setattr(cluster, "WORKERS_S", 1)
    monkeypatch.setattr(cluster.Cluster, "workers", [])
    monkeypatch.setattr(cluster.Cluster, "agreed", lambda *_: {})
    alone = cluster.Cluster(type("Client", (), {"status": "running", "submit": None})(), "tcp://nobody")
    monkeypatch.setattr(alone, "submit", lambda *_: None)
    monkeypatch.setattr(alone, "result", lambda *_: time.sleep(2))
    monkeypatch.setattr(alone, "forget", lambda _: None)
    with prepared(str(mask), "-", None) as job, pytest.raises(ClusterError, match="has had no worker for 1 s"):
        list(far_bands(job, alone))


# --- what the user can put right -----------------------------------------------------------------------------------


def far(mask, cluster, output, **options):
    return glraster.vectorize(mask, output, cluster=cluster, **options)


@pytest.fixture
def elsewhere(monkeypatch):
    """Workers are told to look for a mask under a name that they do not see."""
    call_of = distribute_bands.call_of
    monkeypatch.setattr(distribute_bands, "call_of", lambda job: replace(call_of(job), mask="/elsewhere/mask.tif"))


@pytest.mark.usefixtures("elsewhere")
def test_a_worker_that_does_not_see_the_mask_is_named(mask, cluster, tmp_path):
    with pytest.raises(ClusterError, match=r"worker tcp://.*/elsewhere/mask\.tif.*under the name they have here"):
        far(mask, cluster, tmp_path / "out.gpkg")
    assert list(tmp_path.iterdir()) == []


def test_a_worker_of_another_version_is_named(mask, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(band_worker, "__version__", "99")
    monkeypatch.setattr(cluster, "_answers", {})
    with pytest.raises(ClusterError, match=r'worker tcp://.*would compute another map: versions is \[.*, not \["99"'):
        far(mask, cluster, tmp_path / "out.gpkg")


def test_a_worker_without_these_functions_is_named(mask, cluster, tmp_path, monkeypatch):
    def unknown(_: object) -> None:
        importlib.import_module("glraster.none_of_its_modules")

    monkeypatch.setattr(distribute_bands, "describe", unknown)
    monkeypatch.setattr(cluster, "_answers", {})
    with pytest.raises(ClusterError, match=r"worker tcp://.*has no glraster or another version of it"):
        far(mask, cluster, tmp_path / "out.gpkg")


def test_a_damaged_mask_is_the_error_of_a_serial_run(mask, cluster, tmp_path):
    content = mask.read_bytes()
    (tmp_path / "mask.tif").write_bytes(content[: len(content) // 2])
    for crew in (None, cluster):
        with pytest.raises(SceneError, match="cannot be read") as raised:
            far(tmp_path / "mask.tif", crew, tmp_path / "out.gpkg")
    assert any(note.startswith("on worker tcp://") for note in raised.value.__notes__)
    assert {path.name for path in tmp_path.iterdir()} == {"mask.tif"}


def test_dask_that_is_not_installed_is_told(mask, tmp_path, monkeypatch, run):
    monkeypatch.setitem(sys.modules, "distributed", None)
    outcome = run("vectorize", mask, "-o", tmp_path / "out.gpkg", "--workers", 2)
    assert outcome.code == 2
    assert "pip install 'glraster[dask]'" in outcome.err


def test_threads_and_workers_exclude_each_other(mask, tmp_path, run):
    outcome = run("vectorize", mask, "-o", tmp_path / "out.gpkg", "--workers", 2, "--threads", 2)
    assert outcome.code == 2
    assert "leave it out" in outcome.err


def test_a_worker_opens_a_mask_once(mask, monkeypatch):
    opened = []
    monkeypatch.setattr(
        band_worker, "ClassRaster", lambda *a, **k: opened.append(a) or class_raster.ClassRaster(*a, **k)
    )
    with prepared(str(mask), "-", None) as job:
        here = band_worker.fingerprint(job.mask, None)
        task = band_worker.BandTask(band_worker.call_of(job), here, Tracing.of(job), 0)
        near = list(traced_bands(job))
        assert all(same(band_worker.trace(replace(task, top=ROWS * i)), band) for i, band in enumerate(near))
    band_worker._masks.close()
    assert len(opened) == 1
