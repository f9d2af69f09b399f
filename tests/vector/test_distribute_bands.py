"""Bands that a cluster's workers trace give the features of a serial run, in its order."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
from rasters import write_raster
from vector.masks import blobs

import glraster
from glraster.cluster.worker import Fingerprint, Opening, Work, open_once
from glraster.cluster.worker import run as run_on_worker
from glraster.raster import class_raster
from glraster.vector import distributed as distributed_bands
from glraster.vector.bands import traced_bands
from glraster.vector.distributed import band_runner, mask_call, mask_fingerprint, open_mask
from glraster.vector.job import VectorizeOptions, open_job

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


def test_a_cluster_by_the_command_line(mask, cluster, tmp_path, run):
    for name, options in (("serial", ()), ("far", ("--scheduler", cluster.name))):
        outcome = run("vectorize", mask, "-o", tmp_path / f"{name}.fgb", "--simplify", 1, "--layer", "a", *options)
        assert (outcome.code, outcome.err) == (0, "")
    assert rows_of(tmp_path / "serial.fgb") == rows_of(tmp_path / "far.fgb")
    assert {path.name for path in tmp_path.iterdir()} == {"serial.fgb", "far.fgb"}


@pytest.mark.parametrize("bounds", [None, BOUNDS], ids=str)
def test_a_band_read_alone_is_the_one_of_a_sweep(bounds, mask):
    with class_raster.ClassRaster(str(mask), bounds) as raster:
        above, top, bottom = None, raster.region.top, raster.region.bottom
        whole = raster.band(top, bottom - top)
        for first in range(top, bottom, 7):
            rows = min(7, bottom - first)
            pixels = raster.band(first, 7, above)
            above = pixels[rows]
            np.testing.assert_array_equal(raster.band(first, 7), pixels)
            np.testing.assert_array_equal(whole[first - top :][: len(pixels)], pixels)


@pytest.mark.parametrize("min_area", [None, 3.0])
def test_a_worker_opens_a_mask_once(min_area, mask, monkeypatch):
    """What a worker does, in this process."""
    opened, raster = [], class_raster.ClassRaster
    monkeypatch.setattr(distributed_bands, "ClassRaster", lambda *a, **k: opened.append(a) or raster(*a, **k))
    with open_job(str(mask), "-", VectorizeOptions(min_area_m2=min_area)) as job:
        near = list(traced_bands(job, band_runner(job, None)))
        assert len(near) == (BANDS if min_area is None else 2 * BANDS)
        opening = Opening(open_mask, mask_call(job))
        far = list(traced_bands(job, InTurn(opening, mask_fingerprint(job.mask, None))))
    open_once.cache_clear()
    assert len(far) == len(near)
    assert all(map(same, far, near))
    assert len(opened) == 1


@dataclass(frozen=True)
class InTurn:
    """A runner that does here what a worker does."""

    opening: Opening
    fingerprint: Fingerprint

    def map(self, function, tasks):
        yield from (run_on_worker(Work(function, self.opening, self.fingerprint, task)) for task in tasks)


def same(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_workers_get_the_address_of_a_mask_with_its_query():
    name = "https://host/mask.tif?signature=1"
    mask = SimpleNamespace(name=name, path="https://host/mask.tif?...")
    assert mask_call(SimpleNamespace(mask=mask, options=VectorizeOptions())).mask == name


def test_threads_and_workers_exclude_each_other(mask, tmp_path, run):
    outcome = run("vectorize", mask, "-o", tmp_path / "out.gpkg", "--workers", 2, "--threads", 2)
    assert outcome.code == 2
    assert "leave it out" in outcome.err
