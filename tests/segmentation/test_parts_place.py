"""Parts of a run in another folder or in an object store: the same bytes, and an interrupted run goes on there."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from rasters import hole, landscape, write_raster
from remote.loopback_s3 import SECRET, s3_server
from segmentation.dying_run import dying_run

from glraster.errors import OutputError, UsageError
from glraster.segmentation.job import SegmentOptions
from glraster.segmentation.parts import PartStore
from glraster.segmentation.segment import segment
from glraster.segmentation.stores import FolderStore, store_at, store_url

obstore = pytest.importorskip("obstore")

H, W, WINDOWS = 330, 300, 9


@pytest.fixture(scope="module")
def serial(tmp_path_factory, model_file):
    """A scene, its model, and the bytes of the mask of a run with its parts beside it."""
    folder = tmp_path_factory.mktemp("serial")
    scene = write_raster(folder / "scene.tif", landscape(H, W), mask=hole(H, W))
    assert segment(scene, folder / "mask.tif", model_file("full")).windows_done == WINDOWS
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
    """What is in the bucket."""
    return [each["Key"] for each in client.list_objects_v2(Bucket="maps", Prefix=prefix).get("Contents", [])]


def place_of(kind, folder):
    (folder / "place").mkdir(exist_ok=True)
    return {
        "folder": str(folder / "place"),
        "file://": f"file://{folder}/place",
        "s3://": f"s3://maps/{folder.name}",
        "/vsis3/": f"/vsis3/maps/{folder.name}/",
    }[kind]


class Stop(KeyboardInterrupt):
    pass


def interrupted(serial, folder, place, windows=4) -> list[str]:
    """Run until some windows are done; what an error line would say besides."""

    def stop(progress):
        if progress.phase == "windows" and progress.done >= progress.total * windows // WINDOWS:
            raise Stop

    try:  # not `pytest.raises`, which would keep the run's arrays until they are collected
        segment(serial[0], folder / "mask.tif", serial[1], SegmentOptions(parts=place), stop)
    except Stop as error:
        return error.__notes__
    return pytest.fail("not interrupted")


EVERY_PLACE = pytest.mark.parametrize("kind", ["folder", "file://", "s3://", "/vsis3/"])


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
    (note,) = interrupted(serial, tmp_path, place)
    assert "mask.tif.parts; repeat the call with --resume" in note
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


def test_fetched_parts_take_the_disk_of_two_rows_of_windows(serial, tmp_path, account, monkeypatch):
    fetched, most, read = tmp_path / "mask.tif.parts" / "fetched", [], PartStore.read_rows

    def counted(parts, *where):
        cells = read(parts, *where)
        most.append(len(list(fetched.iterdir())))
        return cells

    requests, get = [], obstore.get
    monkeypatch.setattr(obstore, "get", lambda store, file: requests.append(file) or get(store, file))
    monkeypatch.setattr(PartStore, "read_rows", counted)
    monkeypatch.setattr("glraster.segmentation.write_map.BLOCK", (32, 512))
    segment(serial[0], tmp_path / "mask.tif", serial[1], SegmentOptions(parts=place_of("s3://", tmp_path)))
    parts = [file for file in requests if file.endswith(".npy")]
    assert len(parts) == len(set(parts)) == WINDOWS
    assert max(most) == 6, "more than two of the three rows of three windows"
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
        ("nonsense://a/b", 2, "nonsense://a/b: is no place for parts: Generic URL error: Unable to recognise URL"),
        ("az://box/key", 2, "az://box/key: is no place for parts: Generic MicrosoftAzure error: Account must be"),
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
def test_a_store_that_does_not_answer_is_one_line(serial, tmp_path, monkeypatch, run):
    monkeypatch.setenv("AWS_S3_ENDPOINT", "127.0.0.1:9")
    outcome = run("segment", serial[0], "-o", tmp_path / "mask.tif", "-m", serial[1], "--parts", "s3://maps/a")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "does not answer" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_place_without_an_account_is_one_line(s3, serial, tmp_path, run, monkeypatch):
    for name, value in s3[0].items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    outcome = run("segment", serial[0], "-o", tmp_path / "mask.tif", "-m", serial[1], "--parts", "s3://maps/a")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "s3://maps/a: is no place for parts: no account" in outcome.err
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    outcome = run("segment", serial[0], "-o", tmp_path / "mask.tif", "-m", serial[1], "--parts", "s3://maps/a")
    assert outcome.code == 1
    assert "s3://maps/a/mask.tif.parts: cannot be read: its server refuses access" in outcome.err, "not signed"


def test_paper_keeps_no_parts(serial, tmp_path, run):
    paper = ("--merge", "paper", "--gsd", "native", "--context", 300)
    outcome = run("segment", serial[0], "-o", tmp_path / "m.tif", "-m", serial[1], *paper, "--parts", tmp_path)
    assert outcome.code == 2
    assert "leave --parts out" in outcome.err


@pytest.mark.parametrize("library", ["obstore.store", "boto3"])
def test_a_library_that_is_not_installed_is_named(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "obstore.auth.boto3", raising=False)
    with pytest.raises(UsageError, match=r"s3:// needs obstore and boto3; install them with .*'glraster\[cloud\]'"):
        store_at("s3://maps/a")


def test_names_are_those_of_gdal_or_urls(tmp_path):
    assert store_url("/vsigs/bucket/a b/") == "gs://bucket/a b"
    assert store_url("/vsiadls/box/key") == "abfs://box/key"
    assert store_url(str(tmp_path)) is None
    assert store_at(f"file://{tmp_path}") == store_at(str(tmp_path)) == FolderStore(tmp_path)


# --- over a cluster --------------------------------------------------------------------------------------------------


def test_workers_put_parts_into_a_store_and_a_killed_client_goes_on(serial, s3, account, cluster, tmp_path):
    """The client is killed when it has the results of two tasks."""
    mask, place = tmp_path / "mask.tif", f"s3://maps/{tmp_path.name}"
    environment = s3[0]
    cluster.call_in_every_process(lambda: os.environ.update(environment))
    call = ("segment", serial[0], "-m", serial[1], "-o", mask, "--parts", place, "--scheduler", cluster.name)
    ended = dying_run("task:3", *call, environment=environment)
    assert ended.returncode == -9, ended.stderr
    finished = [key for key in keys(account, tmp_path.name) if key.endswith(".npy")]
    assert 2 <= len(finished) < WINDOWS
    result = segment(serial[0], mask, serial[1], SegmentOptions(parts=place, resume=True), cluster=cluster)
    assert result.windows_reused >= len(finished)
    assert result.windows_done == WINDOWS - result.windows_reused
    assert mask.read_bytes() == serial[2]
    assert keys(account, tmp_path.name) == []
