"""Parts of a run in another folder or in an object store: the same bytes, and an interrupted run goes on there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from rasters import hole, landscape, write_raster
from remote.loopback_s3 import SECRET, s3_server

from glraster.errors import OutputError, UsageError
from glraster.segmentation.job import SegmentOptions
from glraster.segmentation.parts import PartStore
from glraster.segmentation.segment import segment
from glraster.segmentation.stores import FolderStore, store_at, store_url

fsspec = pytest.importorskip("fsspec")

H, W, WINDOWS = 330, 300, 9
LARGE, LARGE_WINDOWS = 590, 36


@pytest.fixture(scope="module")
def serial(tmp_path_factory, model_file):
    """A scene, its model, and the bytes of the mask of a run with its parts beside it."""
    folder = tmp_path_factory.mktemp("serial")
    scene = write_raster(folder / "scene.tif", landscape(H, W), mask=hole(H, W))
    assert segment(scene, folder / "mask.tif", model_file("full")).windows_done == WINDOWS
    return scene, model_file("full"), (folder / "mask.tif").read_bytes()


@pytest.fixture(scope="module")
def large(tmp_path_factory, model_file):
    """A scene of many windows, its model, and the bytes of its mask."""
    folder = tmp_path_factory.mktemp("large")
    scene = write_raster(folder / "scene.tif", landscape(LARGE, LARGE), tiled=True)
    assert segment(scene, folder / "mask.tif", model_file("full")).windows_done == LARGE_WINDOWS
    return scene, model_file("full"), (folder / "mask.tif").read_bytes()


@pytest.fixture(scope="module")
def s3():
    """The environment of users of an S3 server on loopback with the bucket `maps`, and a client."""
    with s3_server() as found:
        yield found


@pytest.fixture
def account(s3, monkeypatch):
    """This process is a user of the server; the client shows what is in it."""
    for name, value in s3[0].items():
        monkeypatch.setenv(name, value)
    return s3[1]


def keys(client, prefix=""):
    """What is in the bucket; the empty object that stands for a folder ends with a slash."""
    found = client.list_objects_v2(Bucket="maps", Prefix=prefix).get("Contents", [])
    return [each["Key"] for each in found if each["Key"] != f"{prefix}/"]


def place_of(kind, folder):
    (folder / "place").mkdir(exist_ok=True)
    return {
        "folder": str(folder / "place"),
        "file://": f"file://{folder}/place",
        "memory://": f"memory://{folder.name}",
        "s3://": f"s3://maps/{folder.name}",
        "/vsis3/": f"/vsis3/maps/{folder.name}/",
    }[kind]


class Stop(KeyboardInterrupt):
    pass


def interrupted(serial, folder, place, windows=4):
    """A run that ends after some windows."""

    def stop(progress):
        if progress.phase == "windows" and progress.done >= progress.total * windows // WINDOWS:
            raise Stop

    with pytest.raises(Stop) as raised:
        segment(serial[0], folder / "mask.tif", serial[1], SegmentOptions(parts=place), stop)
    return raised.value


EVERY_PLACE = pytest.mark.parametrize("kind", ["folder", "file://", "memory://", "s3://", "/vsis3/"])


@EVERY_PLACE
def test_mask_has_the_same_bytes_and_nothing_is_left(kind, serial, tmp_path, account, run):
    place = place_of(kind, tmp_path)
    outcome = run("segment", serial[0], "-o", tmp_path / "mask.tif", "-m", serial[1], "--parts", place)
    assert (outcome.code, outcome.err) == (0, "")
    assert (tmp_path / "mask.tif").read_bytes() == serial[2]
    assert {path.name for path in tmp_path.iterdir()} == {"mask.tif", "mask.tif.aux.xml", "place"}
    assert not list((tmp_path / "place").iterdir())
    assert store_at(f"{place.rstrip('/')}/mask.tif.parts").files() == set()
    assert keys(account, tmp_path.name) == []


@EVERY_PLACE
@pytest.mark.usefixtures("account")
def test_an_interrupted_run_goes_on_where_its_parts_are(kind, serial, tmp_path):
    place = place_of(kind, tmp_path)
    error = interrupted(serial, tmp_path, place)
    assert "mask.tif.parts; repeat the call with --resume" in error.__notes__[0]
    store = store_at(f"{place.rstrip('/')}/mask.tif.parts")
    kept = sum(file.endswith(".npy") for file in store.files())
    assert kept >= 2
    result = segment(serial[0], tmp_path / "mask.tif", serial[1], SegmentOptions(parts=place, resume=True))
    assert (result.windows_reused, result.windows_done) == (kept, WINDOWS - kept)
    assert (tmp_path / "mask.tif").read_bytes() == serial[2]


@pytest.mark.usefixtures("account")
def test_parts_of_other_settings_are_refused(serial, tmp_path, run):
    place = place_of("s3://", tmp_path)
    interrupted(serial, tmp_path, place)
    call = ("segment", serial[0], "-o", tmp_path / "mask.tif", "-m", serial[1], "--parts", place)
    without = run(*call)
    assert without.code == 1
    assert f"{place}/mask.tif.parts: holds the parts of an interrupted run" in without.err
    other = run(*call, "--resume", "--tta")
    assert other.code == 1
    assert "tta was false, is true" in other.err
    assert run(*call, "--overwrite").code == 0


def test_windows_without_data_are_skipped_in_a_store(tmp_path, account, model_file):
    valid = np.zeros((H, W), bool)
    valid[:60, :60] = True
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W), mask=valid)
    place = place_of("s3://", tmp_path)
    masks = []
    for name, parts in (("near", None), ("far", place)):
        result = segment(scene, tmp_path / f"{name}.tif", model_file(), SegmentOptions(parts=parts))
        assert (result.windows_done, result.windows_skipped) == (1, WINDOWS - 1)
        masks.append((tmp_path / f"{name}.tif").read_bytes())
    assert masks[0] == masks[1]
    assert keys(account, tmp_path.name) == []


def test_fetched_parts_take_the_disk_of_two_rows_of_windows(large, tmp_path, account, monkeypatch):
    most, read = [], PartStore.read_rows

    def counted(parts, *where):
        cells = read(parts, *where)
        most.append(len(list((tmp_path / "mask.tif.parts" / "fetched").iterdir())))
        return cells

    monkeypatch.setattr(PartStore, "read_rows", counted)
    monkeypatch.setattr("glraster.segmentation.write_map.BLOCK", (64, 512))
    fetched, fetch = [], PartStore._fetch
    monkeypatch.setattr(PartStore, "_fetch", lambda parts, *file: fetched.append(file[0]) or fetch(parts, *file))
    segment(large[0], tmp_path / "mask.tif", large[1], SegmentOptions(parts=place_of("s3://", tmp_path)))
    assert len(fetched) == len(set(fetched)) == LARGE_WINDOWS
    assert max(most) <= 3 * LARGE_WINDOWS**0.5
    assert keys(account, tmp_path.name) == []


# --- torn, absent and refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [100, 0], ids=["short", "altered"])
def test_a_torn_part_is_computed_again(cut, serial, tmp_path, account):
    place = place_of("s3://", tmp_path)
    interrupted(serial, tmp_path, place, windows=8)
    part = next(key for key in keys(account, tmp_path.name) if key.endswith(".npy"))
    content = account.get_object(Bucket="maps", Key=part)["Body"].read()
    torn = content[:-cut] if cut else content[:500] + bytes(100) + content[600:]
    account.put_object(Bucket="maps", Key=part, Body=torn)
    options = SegmentOptions(parts=place, resume=True)
    if not cut:
        with pytest.raises(OutputError, match=rf"{part}: is torn and was removed; repeat the call with --resume"):
            segment(serial[0], tmp_path / "mask.tif", serial[1], options)
    result = segment(serial[0], tmp_path / "mask.tif", serial[1], options)
    assert result.windows_done >= 1
    assert (tmp_path / "mask.tif").read_bytes() == serial[2]


@pytest.mark.parametrize(
    ("place", "code", "text"),
    [
        ("/no/such/folder", 1, "/no/such/folder: no such folder for parts; create it first"),
        ("nonsense://a/b", 2, "nonsense:// is no protocol that fsspec knows"),
        ("gs://bucket/key", 2, "gs:// needs a driver of fsspec"),
        ("s3://nobodys/key", 1, "s3://nobodys/key/mask.tif.parts: cannot be"),
    ],
)
@pytest.mark.usefixtures("account")
def test_a_place_that_cannot_be_used_is_one_line(place, code, text, serial, tmp_path, run):
    outcome = run("segment", serial[0], "-o", tmp_path / "mask.tif", "-m", serial[1], "--parts", place)
    assert (outcome.code, outcome.err.count("\n")) == (code, 1)
    assert text in outcome.err
    assert SECRET not in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("account")
def test_a_store_that_does_not_answer_is_one_line_in_bounded_time(serial, tmp_path, monkeypatch, run):
    monkeypatch.setenv("AWS_S3_ENDPOINT", "127.0.0.1:9")
    started = time.perf_counter()
    outcome = run("segment", serial[0], "-o", tmp_path / "mask.tif", "-m", serial[1], "--parts", "s3://maps/a")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "does not answer" in outcome.err
    assert time.perf_counter() - started < 60
    assert list(tmp_path.iterdir()) == []


def test_paper_keeps_no_parts(serial, tmp_path, run):
    paper = ("--merge", "paper", "--gsd", "native", "--context", 300)
    outcome = run("segment", serial[0], "-o", tmp_path / "m.tif", "-m", serial[1], *paper, "--parts", tmp_path)
    assert outcome.code == 2
    assert "leave --parts out" in outcome.err


def test_fsspec_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UsageError, match="memory:// needs fsspec; install it"):
        store_at("memory://a")


def test_names_are_those_of_gdal_and_fsspec(tmp_path):
    assert store_url("/vsigs/bucket/a b/") == "gs://bucket/a b"
    assert store_url("/vsiadls/box/key") == "abfs://box/key"
    assert store_url(str(tmp_path)) is None
    assert store_at(f"file://{tmp_path}") == store_at(str(tmp_path)) == FolderStore(tmp_path)


# --- over a cluster --------------------------------------------------------------------------------------------------


@contextmanager
def process(environment, *command):
    call = [str(part) for part in (sys.executable, "-m", *command)]
    with subprocess.Popen(
        call, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as found:
        try:
            yield found
        finally:
            found.kill()
            found.wait(timeout=60)


def wait_until(condition, running, seconds=150):
    until = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None, running.communicate(timeout=30)
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_two_workers_put_parts_into_a_store_and_a_killed_client_goes_on(large, s3, tmp_path):
    """Client and workers are processes of their own; the client is killed by the kernel."""
    environment, client = s3
    mask, prefix = tmp_path / "mask.tif", f"{tmp_path.name}/mask.tif.parts/window_"
    place = f"s3://maps/{tmp_path.name}"
    call = ("glraster_cli", "segment", large[0], "-m", large[1], "-o", mask, "--parts", place, "--json")
    file = tmp_path / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file)
    worker = ("dask", "worker", "--scheduler-file", file, "--no-nanny", "--no-dashboard")
    with process({}, "dask", "scheduler", *options) as scheduler:
        wait_until(file.exists, scheduler)
        address = json.loads(file.read_text())["address"]
        with process(environment, *worker), process(environment, *worker):
            with process(environment, *call, "--scheduler", address) as running:
                wait_until(lambda: len(keys(client, prefix)) >= LARGE_WINDOWS // 4, running)
                running.send_signal(signal.SIGKILL)
                running.wait(timeout=30)
            finished = len(keys(client, prefix))
            assert finished < LARGE_WINDOWS, "killed too late to tell"
            with process(environment, *call, "--scheduler", address, "--resume") as running:
                told, errors = running.communicate(timeout=180)
    assert running.returncode == 0, errors
    result = json.loads(told)
    assert result["windows_reused"] >= finished
    assert result["windows_done"] == LARGE_WINDOWS - result["windows_reused"]
    assert result["device"].startswith("2 x ")
    assert mask.read_bytes() == large[2]
    assert keys(client, tmp_path.name) == []


@pytest.mark.usefixtures("account")
def test_a_worker_that_does_not_see_the_store_is_named(serial, tmp_path, cluster):
    """`memory://` is a store of one process."""
    from glraster.errors import ClusterError

    place = place_of("memory://", tmp_path)
    with pytest.raises(ClusterError, match=r"worker tcp://.*does not see the parts of the run in memory://"):
        segment(serial[0], tmp_path / "mask.tif", serial[1], SegmentOptions(parts=place), cluster=cluster)
    assert {path.name for path in tmp_path.iterdir()} == {"place"}
