"""Scenes behind HTTP: few bytes, retries, a bounded end, and no secret told."""

from __future__ import annotations

import json
import socket
import time

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasters import HALF_METRE, read, write_raster, write_vrt
from remote.range_server import serve

SIDE = 2048


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A COG of noise, so that no byte can be saved by compression, and the same picture as a plain TIFF."""
    folder = tmp_path_factory.mktemp("served")
    pixels = np.random.default_rng(3).integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)
    write_raster(folder / "plain.tif", pixels, tiled=True)
    rasterio.shutil.copy(folder / "plain.tif", folder / "cog.tif", driver="COG", BLOCKSIZE=256, COMPRESS="DEFLATE")
    (folder / "plain.tif").unlink()
    return folder


@pytest.fixture
def server(folder):
    with serve(folder) as server:
        yield server


@pytest.fixture
def quick(monkeypatch):
    """Pauses between retries that a test can wait for."""
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")


def corner(side: int) -> list[str]:
    """--bounds of `side` pixels in the scene's upper left quarter."""
    left, top = HALF_METRE @ (300, 500)
    right, bottom = HALF_METRE @ (300 + side, 500 + side)
    return ["--bounds", *map(str, (left, bottom, right, top))]


def test_a_small_extent_of_a_large_cog_reads_a_small_share_of_its_bytes(server, folder, tmp_path, model_file, run):
    mask = tmp_path / "mask.tif"
    outcome = run("segment", f"{server.url}/cog.tif", "-o", mask, "-m", model_file("full"), *corner(64))
    assert (outcome.code, outcome.err) == (0, "")
    assert server.traffic.bytes_sent < 0.3 * (folder / "cog.tif").stat().st_size
    assert server.traffic.ranges < 40
    assert server.traffic.names == {"cog.tif"}, "side-cars were looked for"


def test_a_remote_scene_gives_the_mask_of_the_local_one(server, folder, tmp_path, model_file, run):
    model = model_file("full")
    for scene, name in ((f"{server.url}/cog.tif", "far.tif"), (folder / "cog.tif", "near.tif")):
        assert run("segment", scene, "-o", tmp_path / name, "-m", model, *corner(200)).code == 0
    assert np.array_equal(read(tmp_path / "far.tif"), read(tmp_path / "near.tif"))


def test_a_server_that_recovers_is_read_with_growing_pauses(server, tmp_path, model_file, monkeypatch, run):
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.2")
    server.traffic.failures = [503, 503, 502]
    started = time.monotonic()
    outcome = run("segment", f"{server.url}/cog.tif", "-o", tmp_path / "mask.tif", "-m", model_file(), *corner(64))
    assert (outcome.code, server.traffic.failures) == (0, [])
    assert time.monotonic() - started > 0.2 + 0.4 + 0.8


@pytest.mark.parametrize("cuts", [1, 3])
def test_connections_cut_in_the_middle_are_read_again(cuts, server, folder, tmp_path, model_file, quick, run):  # noqa: ARG001
    server.traffic.cuts = cuts
    model = model_file()
    assert run("segment", f"{server.url}/cog.tif", "-o", tmp_path / "far.tif", "-m", model, *corner(200)).code == 0
    assert run("segment", folder / "cog.tif", "-o", tmp_path / "near.tif", "-m", model, *corner(200)).code == 0
    assert server.traffic.cuts == 0
    assert np.array_equal(read(tmp_path / "far.tif"), read(tmp_path / "near.tif"))


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (404, "its server knows no such file; check the address"),
        (403, "its server refuses access; check the credentials"),
        (401, "its server refuses access; check the credentials"),
        (500, "its server fails; try again later"),
        (503, "its server fails; try again later"),
    ],
)
def test_a_server_that_stays_down_ends_in_one_line(status, told, server, tmp_path, model_file, quick, run):  # noqa: ARG001
    server.traffic.always = status
    started = time.monotonic()
    outcome = run("segment", f"{server.url}/cog.tif", "-o", tmp_path / "mask.tif", "-m", model_file())
    assert time.monotonic() - started < 15
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert told in outcome.err
    assert not list(tmp_path.iterdir())


def test_a_server_that_goes_down_on_the_way_ends_in_one_line(server, tmp_path, model_file, quick, run):  # noqa: ARG001
    server.traffic.cuts, server.traffic.cut_from = 10**6, 100_000
    outcome = run("segment", f"{server.url}/cog.tif", "-o", tmp_path / "mask.tif", "-m", model_file(), *corner(64))
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert f"{server.url}/cog.tif: cannot be" in outcome.err
    assert not (tmp_path / "mask.tif").exists()


def test_nobody_listening_ends_in_one_line(tmp_path, model_file, run):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/cog.tif"
    outcome = run("segment", url, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "its server does not answer; check the address and the network" in outcome.err


def test_a_server_that_says_nothing_ends_in_bounded_time(tmp_path, model_file, monkeypatch, run):
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/cog.tif"
        started = time.monotonic()
        outcome = run("segment", url, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert time.monotonic() - started < 20
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)


def test_accounts_and_signatures_are_never_told(server, tmp_path, model_file, run):
    host = server.url.removeprefix("http://")
    server.traffic.always = 403
    told = ""
    for scene in (f"http://anna:geheim@{host}/cog.tif", f"{server.url}/cog.tif?X-Amz-Signature=geheim&b=geheim"):
        outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(), "-v")
        assert outcome.code == 1
        told += outcome.out + outcome.err
    assert "/cog.tif" in told
    assert "geheim" not in told
    assert "anna" not in told


def test_resume_notices_a_remote_file_that_changed(server, folder, tmp_path, model_file, monkeypatch, run):
    from glraster.segmentation import write_map as writing

    scene, mask, model = f"{server.url}/cog.tif?token=geheim", tmp_path / "mask.tif", model_file()
    original = (folder / "cog.tif").read_bytes()
    best_class = writing.best_class

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "best_class", die)
    assert run("segment", scene, "-o", mask, "-m", model, *corner(64)).code == 130
    monkeypatch.setattr(writing, "best_class", best_class)
    journal = (tmp_path / "mask.tif.parts" / "journal.json").read_text()
    assert "geheim" not in journal
    assert json.loads(journal)["fingerprint"]["scene"]["remote"]["Content-Length"] == str(len(original))
    try:
        edited = bytearray(original)
        edited[-1] ^= 1  # the same length, one bit of the last block
        (folder / "cog.tif").write_bytes(edited)
        refused = run("segment", f"{server.url}/cog.tif?token=other", "-o", mask, "-m", model, *corner(64), "--resume")
        assert (refused.code, "belong to another run: scene" in refused.err) == (1, True)
    finally:
        (folder / "cog.tif").write_bytes(original)
    assert run("segment", f"{server.url}/cog.tif?token=o", "-o", mask, "-m", model, *corner(64), "--resume").code == 0


def test_what_the_user_set_stays(monkeypatch):
    from glraster.raster.remote import remote_settings

    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "9")
    with rasterio.Env(VSI_CACHE="NO"):
        with remote_settings("https://example.org/a.tif"):
            options = rasterio.env.getenv()
            assert "GDAL_HTTP_MAX_RETRY" not in options
            assert options["GDAL_DISABLE_READDIR_ON_OPEN"] == "EMPTY_DIR"
            assert options["VSI_CACHE"] in ("NO", False)
        with remote_settings("/data/a.tif"):
            assert "GDAL_DISABLE_READDIR_ON_OPEN" not in rasterio.env.getenv()


@pytest.mark.parametrize(
    ("name", "remote"),
    [
        ("https://example.org/a.tif", True),
        ("s3://bucket/a.tif", True),
        ("/vsis3/bucket/a.tif", True),
        ("/vsizip//vsicurl/https://example.org/a.zip/a.tif", True),
        ("zip+https://example.org/a.zip!a.tif", True),
        ("/data/a.tif", False),
        ("a.tif", False),
        ("file:///data/a.tif", False),
        ("zip:///data/a.zip!a.tif", False),
        ("/vsizip/data/a.zip/a.tif", False),
        ("/vsimem/a.tif", False),
    ],
)
def test_remote_names_are_known(name, remote):
    from glraster.names import is_remote

    assert is_remote(name) is remote


def test_a_vrt_of_remote_sources_is_read_like_them(server, folder, tmp_path, model_file, quick, run):  # noqa: ARG001
    sources = [(f"/vsicurl/{server.url}/cog.tif", band, "Byte") for band in (1, 2, 3)]
    vrt = write_vrt(tmp_path / "scene.vrt", sources, SIDE, SIDE, relative=False)
    model = model_file()
    server.traffic.failures = [503]
    assert run("segment", vrt, "-o", tmp_path / "far.tif", "-m", model, *corner(64)).code == 0
    assert run("segment", folder / "cog.tif", "-o", tmp_path / "near.tif", "-m", model, *corner(64)).code == 0
    assert np.array_equal(read(tmp_path / "far.tif"), read(tmp_path / "near.tif"))
    assert server.traffic.names == {"cog.tif"}


def test_to_open_reads_the_head_of_the_file_alone(server, folder):
    from glraster.raster.reader import Scene

    with Scene(f"{server.url}/cog.tif", None, 3) as scene:
        assert scene.shape == (SIDE, SIDE)
    assert 0 < server.traffic.bytes_sent < 0.02 * (folder / "cog.tif").stat().st_size
