"""Outputs appear whole or not at all, and never in the place of something that must stay."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from rasters import landscape, read, write_raster, write_vrt

H, W = 150, 200


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "scene.tif", landscape(H, W))


@pytest.fixture
def refused(tmp_path, run):
    """Call; the folder must be as before, byte by byte. Returns the one line told."""

    def call(code: int, *arguments: object) -> str:
        def contents() -> dict[Path, bytes]:
            return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

        before = contents()
        outcome = run("segment", *arguments)
        assert (outcome.code, len(outcome.err.splitlines())) == (code, 1), outcome.err
        assert contents() == before
        return outcome.err

    return call


@pytest.mark.parametrize("which", ["-o", "--confidence", "--probabilities"])
def test_output_that_exists_stays_as_it_is(which, scene, tmp_path, model_file, refused):
    outputs = {"-o": tmp_path / "mask.tif", which: tmp_path / "precious.tif"}
    (tmp_path / "precious.tif").write_bytes(b"years of work")
    arguments = [part for pair in outputs.items() for part in pair]
    assert "exists; use --overwrite" in refused(1, scene, *arguments, "-m", model_file())


def test_overwrite_replaces_an_output(scene, tmp_path, model_file, run):
    mask = write_raster(tmp_path / "mask.tif", np.full((1, 5, 5), 3, "uint8"))
    outcome = run("segment", scene, "-o", mask, "-m", model_file(), "--overwrite")
    assert outcome.code == 0, outcome.err
    assert read(mask).shape == (1, H, W)


def test_overwrite_that_fails_leaves_the_old_output(tmp_path, model_file, refused):
    mask = write_raster(tmp_path / "mask.tif", np.full((1, 5, 5), 3, "uint8"))
    refused(1, tmp_path / "absent.tif", "-o", mask, "-m", model_file(), "--overwrite")


@pytest.mark.parametrize("link", [True, False], ids=["symlink", "relative path"])
@pytest.mark.parametrize("which", ["-o", "--confidence"])
def test_output_may_not_be_the_scene(link, which, scene, tmp_path, monkeypatch, model_file, refused):
    monkeypatch.chdir(tmp_path)
    alias = tmp_path / "alias.tif" if link else Path("..") / tmp_path.name / "scene.tif"
    if link:
        alias.symlink_to(scene)
    outputs = {"-o": "mask.tif", which: alias}
    arguments = [part for pair in outputs.items() for part in pair]
    assert "is an input" in refused(2, scene, *arguments, "-m", model_file(), "--overwrite")


def test_output_may_not_be_a_source_of_the_scene(scene, tmp_path, model_file, refused):
    vrt = write_vrt(tmp_path / "scene.vrt", [("scene.tif", b, "Byte") for b in (1, 2, 3)], H, W, relative=True)
    assert "is an input" in refused(2, vrt, "-o", scene, "-m", model_file(), "--overwrite")


def test_output_may_not_be_the_model(scene, tmp_path, model_file, refused):
    model = tmp_path / "model.safetensors"
    model.write_bytes(model_file("global").read_bytes())
    assert "is an input" in refused(2, scene, "-o", model, "-m", model, "--overwrite")


@pytest.mark.parametrize("alias", ["mask.tif", "./mask.tif", "sub/../mask.tif"])
def test_two_outputs_may_not_be_one(alias, scene, tmp_path, monkeypatch, model_file, refused):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    assert "same name" in refused(2, scene, "-o", "mask.tif", "--confidence", alias, "-m", model_file())


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("missing/mask.tif", "its folder does not exist; create it first"),
        ("scene.tif/mask.tif", "its folder does not exist"),
        ("/proc/mask.tif", "cannot be written"),
        ("/sys/kernel/mask.tif", "cannot be written"),
        (f"{'m' * 300}.tif", "cannot be written"),
    ],
    ids=["absent folder", "file as folder", "proc", "sys", "endless name"],
)
def test_place_that_cannot_be_written_is_named(output, text, scene, tmp_path, model_file, refused):
    told = refused(1, scene, "-o", tmp_path / output, "-m", model_file())
    assert text in told or "not writable" in told


def test_folder_in_the_place_of_an_output_is_a_usage_error(scene, tmp_path, model_file, run):
    (tmp_path / "confidence.tif").mkdir()
    outputs = ("-o", tmp_path / "mask.tif", "--confidence", tmp_path / "confidence.tif")
    outcome = run("segment", scene, *outputs, "-m", model_file(), "--overwrite")
    assert outcome.code == 2
    assert "directory" in outcome.err


@pytest.mark.parametrize(
    "arguments", [(), ("--resume",), ("--overwrite",), ("--merge", "paper", "--context", "256")], ids=str
)
def test_strangers_folder_of_our_name_is_not_touched(arguments, scene, tmp_path, model_file, refused):
    folder = tmp_path / "mask.tif.parts"
    folder.mkdir()
    (folder / "blocks.tif").write_text("mine")
    (folder / "window_0_0.npy").write_text("mine too")
    assert "no folder of glraster's" in refused(1, scene, "-o", tmp_path / "mask.tif", "-m", model_file(), *arguments)


def test_file_in_the_place_of_the_parts_is_not_touched(scene, tmp_path, model_file, refused):
    (tmp_path / "mask.tif.parts").write_text("mine")
    assert "mask.tif.parts" in refused(1, scene, "-o", tmp_path / "mask.tif", "-m", model_file())


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a file system of that many KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kib: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "glraster-test", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a small disk")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


@pytest.mark.parametrize(("kib", "kept"), [(4, False), (60, True), (250, True)], ids=["journal", "parts", "map"])
def test_full_disk_is_one_line_and_the_run_can_go_on(kib, kept, tmp_path, small_disk, model_file, run):
    scene = write_raster(tmp_path / "scene.tif", noise(300, 500))
    disk = small_disk(2000)
    (disk / "ballast").write_bytes(bytes((2000 - kib) * 1024))
    model = model_file("global")
    outcome = run("segment", scene, "-o", disk / "mask.tif", "-m", model, "--probabilities", disk / "p.tif")
    assert outcome.code == 1
    # libtiff may say a line of its own, from C
    (line,) = [line for line in outcome.err.splitlines() if not line.startswith("_tiff")]
    assert line.startswith("glraster: error: ")
    assert "no space left on device" in line.lower()
    assert ("--resume" in line) == kept
    assert {p.name for p in disk.iterdir()} == {"ballast", *(["mask.tif.parts"] if kept else [])}
    (disk / "ballast").unlink()
    again = run("segment", scene, "-o", disk / "mask.tif", "-m", model, "--probabilities", disk / "p.tif", "--resume")
    assert again.code == 0, again.err
    run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model)
    assert np.array_equal(read(disk / "mask.tif"), read(tmp_path / "mask.tif"))
    assert sorted(p.name for p in disk.iterdir()) == ["mask.tif", "mask.tif.aux.xml", "p.tif"]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (3, height, width), "uint8")
