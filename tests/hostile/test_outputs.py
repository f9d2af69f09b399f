"""Outputs whose place is a trap: links, folders, and names with a meaning."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from rasters import landscape, write_raster


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "scene.tif", landscape(60, 60))


@pytest.mark.parametrize("exists", [True, False], ids=["to a file", "dangling"])
@pytest.mark.parametrize("verb", ["segment", "describe"])
def test_a_link_is_never_followed(exists, verb, scene, tmp_path, model_file, run):
    """Refused as something that exists; with --overwrite the link itself is replaced."""
    target, link = tmp_path / "precious", tmp_path / "out"
    if exists:
        target.write_text("precious")
    link.symlink_to(target)
    model = model_file()
    arguments = {
        "segment": ("segment", scene, "-o", link, "-m", model),
        "describe": ("model", "describe", model, "-o", link),
    }[verb]
    refused = run(*arguments)
    assert (refused.code, refused.out) == (1, "")
    assert "out: exists; use --overwrite to replace it" in refused.err
    assert link.is_symlink()
    assert run(*arguments, "--overwrite").code == 0
    assert not link.is_symlink()
    assert link.stat().st_size > 100
    assert (target.read_text() == "precious") if exists else not target.exists()


def test_links_in_the_place_of_side_cars_are_not_followed(scene, tmp_path, model_file, run):
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "mask.tif.aux.xml").symlink_to(target)
    assert run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file()).code == 0
    assert target.read_text() == "precious"
    assert not (tmp_path / "mask.tif.aux.xml").is_symlink()


def test_a_link_to_the_scene_is_an_input(scene, tmp_path, model_file, run):
    link = tmp_path / "mask.tif"
    link.symlink_to(scene)
    before = scene.read_bytes()
    outcome = run("segment", scene, "-o", link, "-m", model_file(), "--overwrite")
    assert outcome.code != 0
    assert scene.read_bytes() == before


def test_a_folder_of_strangers_in_the_place_of_the_parts_is_kept(scene, tmp_path, model_file, run):
    foreign = tmp_path / "elsewhere"
    foreign.mkdir()
    (foreign / "precious").write_text("precious")
    (tmp_path / "mask.tif.parts").symlink_to(foreign)
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert outcome.code == 1
    assert "is in the way" in outcome.err
    assert [p.name for p in foreign.iterdir()] == ["precious"]


@pytest.mark.parametrize("name", ["-mask.tif", "mask;touch executed.tif", "$(touch executed).tif", "a\nb.tif"])
def test_names_mean_nothing_to_a_shell(name, scene, tmp_path, model_file, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    assert run("segment", scene, "-m", model_file(), f"--output={name}").code == 0
    assert (tmp_path / name).exists()
    assert not (tmp_path / "executed").exists()


def old_files_beside(mask):
    """What other programs and an earlier run leave beside a mask."""
    mask.with_suffix(".qml").write_text("<qgis><pipe><rasterrenderer/></pipe></qgis>")
    mask.with_suffix(".stac.json").write_text('{"assets": {"mask": {"href": "./mask.tif"}}}')
    old = [mask.with_suffix(".qml"), mask.with_suffix(".stac.json")]
    old += [mask.with_name(f"mask.tif{ending}") for ending in (".msk", ".ovr")]
    for path in old[2:]:
        path.write_text("old")
    return old


def test_a_new_mask_lies_beside_nothing_of_the_old_one(scene, tmp_path, model_file, run):
    mask = tmp_path / "mask.tif"
    call = ("segment", scene, "-o", mask, "-m", model_file())
    assert run(*call, "--qml", "--stac").code == 0
    content = {path.name for path in tmp_path.iterdir()}
    assert {"mask.qml", "mask.stac.json"} < content
    old_files_beside(mask)
    assert run(*call, "--overwrite").code == 0
    assert {path.name for path in tmp_path.iterdir()} == content - {"mask.qml", "mask.stac.json"}
    old_files_beside(mask)
    assert run(*call, "--overwrite", "--qml", "--stac").code == 0
    assert {path.name for path in tmp_path.iterdir()} == content
    assert "paletteEntry" in mask.with_suffix(".qml").read_text()


def test_a_run_that_fails_takes_nothing_of_the_old_mask(scene, tmp_path, model_file, run):
    mask = tmp_path / "mask.tif"
    call = ("segment", scene, "-o", mask, "-m", model_file())
    assert run(*call).code == 0
    old_files_beside(mask)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert run(*call, "--overwrite", "--co", "COMPRESS=NONSENSE").code != 0
    (tmp_path / "mask.tif.parts").write_text("in the way")
    assert run(*call, "--overwrite").code == 1
    (tmp_path / "mask.tif.parts").unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_geopackage_with_an_open_edit_is_kept(scene, tmp_path, model_file, run):
    """As in QGIS: its connection keeps a write-ahead log, which would be applied to the new file."""
    mask, polygons = tmp_path / "mask.tif", tmp_path / "map.gpkg"
    calls = [
        ("segment", scene, "-o", mask, "-m", model_file(), "--vectorize", polygons),
        ("vectorize", mask, "-o", polygons),
    ]
    assert run(*calls[0]).code == 0
    descriptions = "SELECT DISTINCT description FROM gpkg_contents"
    with closing(sqlite3.connect(polygons, isolation_level=None)) as edit:
        edit.execute("PRAGMA journal_mode=WAL")
        edit.execute("UPDATE gpkg_contents SET description = 'edited'")
        for call in calls:
            refused = run(*call, "--overwrite")
            (line,) = refused.err.splitlines()
            assert refused.code == 1
            assert "map.gpkg: is open in another program, whose unsaved work is in map.gpkg-wal" in line
        assert edit.execute(descriptions).fetchall() == [("edited",)]
    assert run(*calls[1], "--overwrite").code == 0
    assert not list(tmp_path.glob("map.gpkg-*"))
    with closing(sqlite3.connect(polygons)) as new:
        assert ("edited",) not in new.execute(descriptions).fetchall()
