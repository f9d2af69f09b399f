"""One owner of outputs: what may be written, what belongs to it, how it is locked, staged and put in its place."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from glraster.errors import OutputError, UsageError
from glraster.files import claim, held, publish, replacing, staged, staging_folder, sync, write_file
from glraster.locks import Lock


def test_an_output_that_exists_needs_overwrite(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="out: exists; use --overwrite to replace it"):
        claim(tmp_path / "out")
    claim(tmp_path / "out", overwrite=True)
    claim(tmp_path / "out", published={str(tmp_path / "out")})
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(OutputError, match="dangling: exists"):
        claim(tmp_path / "dangling")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent/out", "its folder does not exist; create it first"),
        ("folder", "is a folder; give a file name"),
        ("x" * 250, "its name is too long"),
        ("x" * 5000, "name"),
        ("/".join(["x" * 100] * 50), "name|folder does not exist"),
    ],
)
def test_a_place_that_cannot_be_written(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=message):
        claim(tmp_path / name, overwrite=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="not writable"):
        claim(tmp_path / "locked" / "out")


def test_an_output_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="needs a file name"):
        claim(Path())


@pytest.fixture
def names(tmp_path: Path) -> dict[str, Path]:
    """The names of one file: its own, links of both kinds, and by a linked folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "input.tif").write_text("input")
    (tmp_path / "linked").symlink_to(folder)
    (tmp_path / "soft.tif").symlink_to(folder / "input.tif")
    (tmp_path / "hard.tif").hardlink_to(folder / "input.tif")
    return {
        "path": folder / "input.tif",
        "dots": folder / ".." / "folder" / "input.tif",
        "folder": tmp_path / "linked" / "input.tif",
        "link": tmp_path / "soft.tif",
        "inode": tmp_path / "hard.tif",
    }


@pytest.mark.parametrize("how", ["path", "dots", "folder", "link", "inode"])
@pytest.mark.parametrize("spelling", ["{}", "file://{}", "/vsizip/{}/inner.tif", "/vsigzip/{}"])
def test_no_output_is_an_input_by_whatever_name(how: str, spelling: str, names: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=f"{names[how].name}: is an input; choose another output"):
        claim(names[how], inputs=[None, spelling.format(names["path"])], overwrite=True)


def test_a_side_car_of_an_input_is_an_input(names: dict[str, Path]) -> None:
    side_car = names["path"].with_name("input.tif.msk")
    side_car.write_text("mask")
    with pytest.raises(UsageError, match="msk: is an input"):
        claim(side_car, inputs=[names["path"]], overwrite=True)
    with pytest.raises(UsageError, match="is an input"):  # it would go with the output
        claim(names["path"], inputs=[side_car], overwrite=True)


def test_inputs_elsewhere_are_no_files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.tif").write_text("old")
    remote = [
        "https://host/out.tif",
        "s3://bucket/out.tif",
        "/vsicurl/https://host/out.tif",
        "/vsis3/b/out.tif",
        "",
        "x" * 5000,
    ]
    claim(Path("out.tif"), inputs=remote, overwrite=True)


def test_outputs_of_one_call_are_different_files(tmp_path: Path, names: dict[str, Path]) -> None:
    for other in (tmp_path / "mask.tif", tmp_path / "folder" / ".." / "mask.tif", tmp_path / "mask.tif.aux.xml"):
        with pytest.raises(UsageError, match="two outputs have the same name"):
            claim(tmp_path / "mask.tif", other)
    claim(tmp_path / "mask.tif", tmp_path / "confidence.tif")
    assert names["path"].exists()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(target) as beside:
        beside.write_text("half")
        raise ZeroDivisionError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out").symlink_to("precious")
    write_file(tmp_path / "out", "new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "out").is_symlink()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_refused_sync_is_no_error(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    write_file(tmp_path / "out", b"content")
    assert (tmp_path / "out").read_bytes() == b"content"


def test_a_failed_sync_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "bad disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="out: cannot be written: Input/output error"):
        write_file(tmp_path / "out", b"content")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").touch()
    with pytest.raises(OSError, match="bad disk"):
        sync(tmp_path / "there")


def published_map(folder: Path) -> Path:
    (folder / "cog.tif").write_text("new")
    (folder / "names.xml").write_text("new names")
    publish(folder / "cog.tif", folder / "map.tif", folder / "names.xml", raster=True)
    return folder / "map.tif"


def test_what_belonged_to_an_old_map_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / "map.tif").write_text("old")
    for ending in (".aux.xml", ".msk", ".ovr"):
        (tmp_path / f"map.tif{ending}").write_text("old")
    (tmp_path / "map.qml").write_text("<qgis><pipe><rasterrenderer/></pipe></qgis>")
    (tmp_path / "map.stac.json").write_text('{"assets": {"mask": {"href": "./map.tif"}}}')
    published_map(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "map.tif": "new",
        "map.tif.aux.xml": "new names",
    }


def test_files_of_others_stay(tmp_path: Path) -> None:
    """A style of polygons and the item of another raster only share the stem with a map."""
    (tmp_path / "map.tif").write_text("old")
    (tmp_path / "map.qml").write_text('<qgis><renderer-v2 attr="class_id"/></qgis>')
    (tmp_path / "map.stac.json").write_text('{"assets": {"image": {"href": "./map.jp2"}}}')
    (tmp_path / "map.tif.txt").write_text("notes")
    published_map(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"map.qml", "map.stac.json", "map.tif.txt"}


def test_polygons_leave_the_style_of_a_raster_alone(tmp_path: Path) -> None:
    (tmp_path / "map.fgb").write_text("old")
    (tmp_path / "map.qml").write_text("<qgis><pipe><rasterrenderer/></pipe></qgis>")
    with staged(tmp_path / "map.fgb") as unfinished:
        unfinished.write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {"map.fgb", "map.qml"}


def test_a_device_is_no_output(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(OutputError, match="is a device and no file"):
            claim(path, overwrite=True)


def database(path: Path, journal: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode={journal}")
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    return connection


CRASH = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"PRAGMA journal_mode={sys.argv[2]}")
connection.execute("PRAGMA cache_size=1")
connection.execute("CREATE TABLE t (x)")
connection.execute("BEGIN")
connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 500)
if sys.argv[2] == "wal":
    connection.execute("COMMIT")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("journal", "side_car"), [("wal", "out.gpkg-wal"), ("delete", "out.gpkg-journal")])
@pytest.mark.parametrize("orphan", [False, True], ids=["with its file", "orphan"])
def test_a_new_geopackage_is_not_read_with_the_journal_of_an_old_one(
    journal: str, side_car: str, orphan: bool, tmp_path: Path
) -> None:
    out = tmp_path / "out.gpkg"
    subprocess.run([sys.executable, "-c", CRASH, str(out), journal], check=False)
    assert (tmp_path / side_car).stat().st_size > 0
    if orphan:
        out.unlink()
    claim(out, overwrite=True)
    with staged(out) as unfinished:
        database(unfinished, "delete").close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.gpkg"]
    with closing(sqlite3.connect(out)) as new:
        assert new.execute("SELECT count(*) FROM t").fetchall() == [(0,)]


@pytest.mark.parametrize("journal", ["wal", "persist"])
def test_a_geopackage_with_an_open_edit_is_refused(journal: str, tmp_path: Path) -> None:
    out = tmp_path / "out.gpkg"
    with closing(database(out, journal)) as edit:
        edit.execute("BEGIN")
        edit.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(OutputError, match="is open in another program"):
            claim(out, overwrite=True)
        edit.execute("COMMIT")
        assert edit.execute("SELECT count(*) FROM t").fetchall() == [(1,)]
    claim(out, overwrite=True)


def test_a_geopackage_that_is_opened_during_the_work_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out.gpkg"
    database(out, "wal").close()
    claim(out, overwrite=True)
    with closing(database(out, "wal")) as edit:
        edit.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(OutputError, match="is open in another program"), staged(out) as unfinished:
            unfinished.write_text("new")
    assert not staging_folder(out).exists()


def test_a_file_that_is_no_database_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.gpkg").write_text("no database" * 100)
    (tmp_path / "out.gpkg-wal").write_text("nor a log")
    claim(tmp_path / "out.gpkg", overwrite=True)


def test_a_lock_keeps_others_off_until_it_is_released(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    with pytest.raises(OutputError, match="another process is working on this output; wait for its end"):
        Lock(tmp_path)
    with pytest.raises(UsageError, match="busy"):
        Lock(tmp_path, UsageError, "is busy")
    lock.release()
    Lock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(params=[errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK], ids=errno.errorcode.get)
def lockless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that refuses every lock."""

    def refuse(_file: object, _how: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("lockless")
def test_a_file_system_without_locks_has_a_soft_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    with held([out]):
        assert "has no locks" in caplog.text
        with pytest.raises(OutputError, match=rf"another process.*process {os.getpid()} on .*lock\.soft"), held([out]):
            pass
        assert staging_folder(out).exists()
    assert list(tmp_path.iterdir()) == []


SOFT = """
import errno, fcntl, os, signal, sys
from pathlib import Path
def refuse(*_):
    raise OSError(errno.ENOLCK, "no locks")
fcntl.flock = refuse
from glraster.locks import Lock
lock = Lock(Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.usefixtures("lockless")
def test_a_soft_lock_of_a_killed_process_stops_nobody(tmp_path: Path) -> None:
    assert (
        subprocess.run([sys.executable, "-c", SOFT, str(tmp_path)], check=False, capture_output=True).returncode == -9
    )
    assert (tmp_path / "lock.soft").exists()
    Lock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_stranger_in_the_place_of_the_staging_folder_is_left_alone(kind: str, tmp_path: Path) -> None:
    out, stranger = tmp_path / "out.gpkg", tmp_path / "out.gpkg.parts"
    if kind == "folder":
        stranger.mkdir()
    precious = stranger / "thesis.txt" if kind == "folder" else stranger
    precious.write_text("precious")
    with pytest.raises(OutputError, match="is in the way"), staged(out):
        pass
    assert precious.read_text() == "precious"


def test_a_staged_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out.fgb"
    with pytest.raises(ZeroDivisionError), staged(out) as unfinished:
        unfinished.write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    staging_folder(out).mkdir()
    (staging_folder(out) / "out.fgb").write_text("left by a killed run")
    with staged(out) as unfinished:
        assert not unfinished.exists()
        unfinished.write_text("whole")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]


def test_a_link_to_an_empty_folder_may_hold_what_is_unfinished(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    staging_folder(tmp_path / "out.fgb").symlink_to("elsewhere")
    with staged(tmp_path / "out.fgb") as unfinished:
        unfinished.write_text("whole")
        assert (tmp_path / "elsewhere" / "out.fgb").exists()
    assert (tmp_path / "out.fgb").read_text() == "whole"
    assert staging_folder(tmp_path / "out.fgb").is_symlink()
    assert list((tmp_path / "elsewhere").iterdir()) == []
