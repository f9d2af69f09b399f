"""Masks, truths and labels behind HTTP: what the local files give, few bytes, retries, one line, and no secret told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyogrio
import pytest
import rasterio.shutil
from maps import CLASSES, disturbed, patches, pixel_boxes, write_map, write_shapes, write_truth
from rasters import HALF_METRE, landscape, write_raster, write_vrt
from remote.range_server import serve

from glraster.raster.reader import Scene

SIDE = 1024
SECRET = "geheim"
FIELDS = ("classes", "confusion", "miou", "accuracy", "boundary_f1", "pixels", "ignored_pixels")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A large mask as a COG that hardly shrinks, and a map with its truths, of which one lies on another grid."""
    folder = tmp_path_factory.mktemp("served")
    noisy = disturbed(patches(SIDE, SIDE), share=0.9)
    write_map(folder / "plain.tif", noisy, tiled=True)
    rasterio.shutil.copy(folder / "plain.tif", folder / "large.tif", driver="COG", BLOCKSIZE=256, COMPRESS="DEFLATE")
    (folder / "plain.tif").unlink()
    ids = patches(120, 150)
    write_map(folder / "map.tif", disturbed(ids))
    write_truth(folder / "truth.tif", ids)
    write_truth(folder / "moved.tif", ids, transform=HALF_METRE @ rasterio.Affine.translation(9, 4))
    write_shapes(folder / "truth.gpkg", *pixel_boxes(ids, 23))
    write_raster(folder / "scene.tif", landscape(120, 150))
    return folder


@pytest.fixture
def server(folder):
    with serve(folder) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Pauses between retries that a test can wait for."""
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")


def features(path):
    """Geometries and classes of a vector file, in the order of the file."""
    _, _, geometries, columns = pyogrio.raw.read(path, layer=0)
    return geometries.tolist(), [column.tolist() for column in columns]


def scores(*arguments):
    """What `evaluate` found, without the names of what was compared; in a process of its own.

    pyogrio keeps Python waiting while it reads, also the server of this process.
    """
    command = [sys.executable, "-m", "glraster_cli", "evaluate", *map(str, arguments), "--json"]
    outcome = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=60, check=False)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    found = json.loads(outcome.stdout)
    return {key: found[key] for key in FIELDS}


def test_polygons_of_a_remote_mask_are_those_of_the_local_one(server, folder, tmp_path, run):
    server.traffic.failures = [503, 502]
    for mask, name in ((f"{server.url}/map.tif", "far.gpkg"), (folder / "map.tif", "near.gpkg")):
        outcome = run("vectorize", mask, "-o", tmp_path / name)
        assert (outcome.code, outcome.err) == (0, "")
    assert features(tmp_path / "far.gpkg") == features(tmp_path / "near.gpkg")
    assert set(features(tmp_path / "far.gpkg")[1][1]) == {c.name for c in CLASSES}
    assert (server.traffic.failures, server.traffic.names) == ([], {"map.tif"})


def test_a_small_extent_of_a_large_mask_reads_a_small_share_of_its_bytes(server, folder, tmp_path, run):
    (left, top), (right, bottom) = HALF_METRE @ (300, 500), HALF_METRE @ (400, 600)
    bounds = ["--bounds", *map(str, (left, bottom, right, top))]
    assert run("vectorize", f"{server.url}/large.tif", "-o", tmp_path / "out.gpkg", *bounds).code == 0
    size = (folder / "large.tif").stat().st_size
    assert 0 < server.traffic.bytes_sent < 0.2 * size
    assert server.traffic.ranges < 15
    assert server.traffic.names == {"large.tif"}, "side-cars were looked for"


def test_a_preview_of_a_large_mask_reads_it_twice_at_most(server, folder, tmp_path, run):
    assert run("preview", f"{server.url}/large.tif", "-o", tmp_path / "out.png", "--size", "256").code == 0
    assert server.traffic.bytes_sent < 2 * (folder / "large.tif").stat().st_size
    assert server.traffic.names == {"large.tif"}


@pytest.mark.parametrize("cuts", [1, 3])
def test_connections_cut_in_the_middle_are_read_again(cuts, server, folder, tmp_path, run):
    server.traffic.cuts, server.traffic.cut_from = cuts, 50_000
    for mask, name in ((f"{server.url}/large.tif", "far.fgb"), (folder / "large.tif", "near.fgb")):
        outcome = run("vectorize", mask, "-o", tmp_path / name, "--classes", "1")
        assert (outcome.code, outcome.err) == (0, "")
    assert server.traffic.cuts == 0
    assert features(tmp_path / "far.fgb") == features(tmp_path / "near.fgb")


def test_a_scene_whose_whole_window_is_cut_is_read_again(server, folder):
    server.traffic.cuts, server.traffic.cut_from = 2, 50_000
    with Scene(f"{server.url}/large.tif", None, 1) as far, Scene(str(folder / "large.tif"), None, 1) as near:
        for got, wanted in zip(far.read(far.extent), near.read(near.extent), strict=True):
            assert np.array_equal(got, wanted)
    assert server.traffic.cuts == 0


def test_an_end_of_cut_connections_is_told_in_one_line(server, tmp_path, run):
    server.traffic.cuts, server.traffic.cut_from = 10**6, 50_000
    outcome = run("vectorize", f"{server.url}/large.tif", "-o", tmp_path / "out.fgb")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert f"{server.url}/large.tif: cannot be read" in outcome.err
    assert server.traffic.requests < 60
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("truth", "how"), [("truth.tif", ()), ("truth.gpkg", ()), ("moved.tif", ("--resample",))], ids=str
)
def test_a_remote_map_and_a_remote_truth_are_judged_like_local_ones(truth, how, server, folder):
    server.traffic.failures = [503, 503]
    far = scores(f"{server.url}/map.tif", f"{server.url}/{truth}", *how)
    assert server.traffic.failures == []
    assert far == scores(folder / "map.tif", folder / truth, *how)


def test_polygons_of_a_failing_server_are_asked_for_again(server, folder):
    server.traffic.failures = [0] * 4 + [503, 500, 502]
    assert scores(folder / "map.tif", f"{server.url}/truth.gpkg") == scores(folder / "map.tif", folder / "truth.gpkg")
    assert server.traffic.failures == []


def test_a_local_vrt_of_a_remote_mask_is_read_like_it(server, folder, tmp_path, run):
    vrt = write_vrt(tmp_path / "mask.vrt", [(f"/vsicurl/{server.url}/map.tif", 1, "Byte")], 120, 150, relative=False)
    server.traffic.failures = [503]
    assert run("vectorize", vrt, "-o", tmp_path / "far.fgb").code == 0
    assert server.traffic.failures == []
    assert run("vectorize", folder / "map.tif", "-o", tmp_path / "near.fgb").code == 0
    assert features(tmp_path / "far.fgb")[0] == features(tmp_path / "near.fgb")[0]


@pytest.fixture
def catalog(tmp_path, folder):
    """Write a catalog of scenes that lie below an address, one for each split."""

    def write(address):
        for name in ("scene", "truth"):
            shutil.copy(folder / f"{name}.tif", folder / f"{name}_2.tif")
        classes = "\n".join(f"  - {{id: {c.id}, name: {c.name}, color: {list(c.color)}}}" for c in CLASSES)
        pair = "{{image: {0}/scene{1}.tif, label: {0}/truth{1}.tif}}"
        splits = "\n".join(
            f"  {split}:\n    - {pair.format(address, end)}" for split, end in (("train", ""), ("val", "_2"))
        )
        text = f"name: far\nclasses:\n{classes}\nbands: 3\nlabels: {{encoding: index}}\nsplits:\n{splits}\n"
        (tmp_path / "catalog.yaml").write_text(text)
        return tmp_path / "catalog.yaml"

    return write


def test_a_catalog_of_addresses_is_checked_like_one_of_files(server, folder, catalog, run):
    told = []
    for address in (server.url, str(folder)):
        server.traffic.failures = [503, 503] if address == server.url else []
        outcome = run("catalog", "check", catalog(address), "--json")
        assert (outcome.code, server.traffic.failures) == (0, [])
        told.append([(s["name"], s["classes"], s["ignored_pixels"]) for s in json.loads(outcome.out)["splits"]])
    assert told[0] == told[1]


def test_labels_of_a_server_that_stays_down_are_told_without_the_account(server, catalog, run):
    server.traffic.always = 503
    outcome = run("catalog", "check", catalog(server.url.replace("//", f"//anna:{SECRET}@")))
    assert outcome.code == 1
    told = outcome.out + outcome.err
    assert "truth.tif: cannot be opened as a raster" in told
    assert "its server fails; try again later" in told
    assert SECRET not in told


COMMANDS = {
    "vectorize": ("vectorize", "{map}", "-o", "{out}.gpkg"),
    "preview": ("preview", "{map}", "-o", "{out}.png"),
    "evaluate": ("evaluate", "{map}", "{truth}"),
    "report": ("report", "{map}", "-o", "{out}.html"),
    "truth": ("evaluate", "{local}", "{truth}"),
    "scene": ("report", "{local}", "--scene", "{map}", "-o", "{out}.html"),
}


def called(run, words, folder, tmp_path, url, query=""):
    names = {"map": f"{url}/map.tif{query}", "truth": f"{url}/truth.tif{query}"}
    return run(*(word.format(**names, local=folder / "map.tif", out=tmp_path / "out") for word in words))


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_server_that_stays_down_ends_in_one_line(words, server, folder, tmp_path, run):
    server.traffic.always = 503
    outcome = called(run, words, folder, tmp_path, server.url)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert "its server fails; try again later" in outcome.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_accounts_and_signatures_are_never_told(words, status, server, folder, tmp_path, run):
    server.traffic.always = status if status != 200 else 0
    host = server.url.removeprefix("http://")
    for url, query in ((f"http://anna:{SECRET}@{host}", ""), (server.url, f"?X-Amz-Signature={SECRET}")):
        outcome = called(run, words, folder, tmp_path, url, query)
        assert outcome.code == (status == 403), outcome.err
        for text in (outcome.out, outcome.err, *(file.read_bytes().decode("latin-1") for file in tmp_path.iterdir())):
            assert SECRET not in text
        for file in tmp_path.iterdir():
            file.unlink()
