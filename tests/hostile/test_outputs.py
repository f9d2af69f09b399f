"""Outputs whose place is a trap: links, folders, and names with a meaning."""

from __future__ import annotations

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
