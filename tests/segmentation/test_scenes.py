"""Several scenes go to one folder; one that fails does not stop the others."""

from __future__ import annotations

import json

import pytest
from rasters import hole, landscape, write_raster

from glraster.errors import ModelError, UsageError
from glraster.segmentation import scenes as workflow
from glraster.segmentation.scenes import ScenesOptions, segment_scenes
from glraster.segmentation.segment import SegmentOptions, segment

H, W = 150, 140


@pytest.fixture
def scenes(tmp_path):
    """Three scenes; the second is none."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    (folder / "broken.tif").write_text("this is no raster")
    for seed, name in enumerate("ac"):
        write_raster(folder / f"{name}.tif", landscape(H, W, seed=seed), mask=hole(H, W))
    return [folder / name for name in ("a.tif", "broken.tif", "c.tif")]


@pytest.fixture
def alone(scenes, tmp_path, model_file):
    """The bytes that each good scene's mask has when it is segmented alone."""
    (tmp_path / "alone").mkdir()
    masks = [tmp_path / "alone" / scene.name for scene in scenes[::2]]
    for scene, mask in zip(scenes[::2], masks, strict=True):
        segment(scene, mask, model_file())
    return {mask.name: mask.read_bytes() for mask in masks}


def masks_in(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.tif")}


def test_a_broken_scene_does_not_stop_the_others(scenes, alone, tmp_path, model_file, run):
    outcome = run("segment", *scenes, "-o", tmp_path / "maps", "-m", model_file())
    assert outcome.code == 1
    assert masks_in(tmp_path / "maps") == alone
    assert {path.suffix for path in (tmp_path / "maps").iterdir()} == {".tif", ".xml"}
    (line,) = outcome.err.splitlines()
    assert line.startswith("glraster: error: ")
    assert "broken.tif: cannot be opened" in line
    assert outcome.out.splitlines()[-1] == "3 scenes: 2 done, 1 failed"
    assert f"c.tif: {W} x {H} px, " in outcome.out


def test_json_tells_every_scene_in_the_order_of_the_call(scenes, tmp_path, model_file, run):
    outcome = run("segment", *scenes, "-o", tmp_path, "-m", model_file(), "--json")
    told = json.loads(outcome.out)
    assert (told["done"], told["kept"], told["failed"]) == (2, 0, 1)
    assert [scene["scene"] for scene in told["scenes"]] == [str(scene) for scene in scenes]
    assert [scene["fate"] for scene in told["scenes"]] == ["done", "failed", "done"]
    assert told["scenes"][0]["windows_done"] == 1
    assert "cannot be opened" in told["scenes"][1]["error"]


def test_all_done_is_success(scenes, tmp_path, model_file, run):
    outcome = run("segment", scenes[0], scenes[2], "-o", tmp_path / "maps", "-m", model_file())
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[-1] == "2 scenes: 2 done"


def test_cluster_gives_the_same_bytes(scenes, alone, cluster, tmp_path, model_file, run):
    outcome = run("segment", *scenes, "-o", tmp_path / "maps", "-m", model_file(), "--scheduler", cluster.name)
    assert outcome.code == 1
    assert masks_in(tmp_path / "maps") == alone
    assert len(outcome.err.splitlines()) == 1
    assert outcome.out.splitlines()[-1] == "3 scenes: 2 done, 1 failed"


def test_existing_mask_is_neither_replaced_nor_in_the_way_of_others(scenes, alone, tmp_path, model_file, run):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "a.tif").write_text("mine")
    outcome = run("segment", scenes[0], scenes[2], "-o", tmp_path / "maps", "-m", model_file())
    assert outcome.code == 1
    assert "a.tif: exists; use --overwrite" in outcome.err
    assert masks_in(tmp_path / "maps") == {**alone, "a.tif": b"mine"}


def test_resume_keeps_what_is_done(scenes, alone, tmp_path, model_file, run, monkeypatch):
    call = ("segment", scenes[0], scenes[2], "-o", tmp_path / "maps", "-m", model_file())
    done = []

    def interrupted(scene, *arguments):
        if done:
            raise KeyboardInterrupt
        done.append(segment(scene, *arguments))
        return done[0]

    monkeypatch.setattr(workflow, "segment", interrupted)
    first = run(*call)
    assert first.code == 130
    assert "1 of 2 scenes are through; repeat the call with --resume to go on" in first.err
    monkeypatch.undo()
    before = (tmp_path / "maps" / "a.tif").stat().st_mtime_ns
    outcome = run(*call, "--resume")
    assert (outcome.code, outcome.out.splitlines()[-1]) == (0, "2 scenes: 1 done, 1 kept")
    assert masks_in(tmp_path / "maps") == alone
    assert (tmp_path / "maps" / "a.tif").stat().st_mtime_ns == before


def test_resume_keeps_no_mask_of_another_model(scenes, tmp_path, model_file, run):
    call = ("segment", scenes[0], scenes[2], "-o", tmp_path / "maps", "-m")
    assert run(*call, model_file()).code == 0
    outcome = run(*call, model_file(seed=1), "--resume")
    assert outcome.code == 1
    assert [line.split(": ")[-1] for line in outcome.err.splitlines()] == [
        "exists and is no map of this model; use --overwrite to replace it"
    ] * 2


def test_one_scene_may_go_to_a_folder(scenes, alone, tmp_path, model_file, run):
    assert run("segment", scenes[0], "-o", f"{tmp_path}/maps/", "-m", model_file()).code == 0
    assert masks_in(tmp_path / "maps") == {"a.tif": alone["a.tif"]}


def test_sidecars_lie_beside_every_mask(scenes, tmp_path, model_file, run):
    outcome = run("segment", *scenes, "-o", tmp_path / "maps", "-m", model_file(), "--qml", "--stac")
    assert outcome.code == 1
    names = {path.name for path in (tmp_path / "maps").iterdir()}
    assert {"a.qml", "a.stac.json", "c.qml", "c.stac.json"} <= names
    assert not {name for name in names if name.startswith("broken")}


@pytest.mark.parametrize("option", ["--confidence", "--probabilities", "--vectorize", "--report"])
def test_options_that_name_one_file_are_refused(option, scenes, tmp_path, model_file, run):
    outcome = run("segment", *scenes, "-o", tmp_path / "maps", "-m", model_file(), option, tmp_path / "one.tif")
    assert outcome.code == 2
    assert option in outcome.err
    assert not (tmp_path / "maps").exists()


def test_scenes_of_one_name_are_refused(scenes, tmp_path, model_file):
    (tmp_path / "other").mkdir()
    other = write_raster(tmp_path / "other" / "a.jp2.tif", landscape(H, W))
    other = other.rename(tmp_path / "other" / "a.vrt")
    with pytest.raises(UsageError, match=r"scenes/a\.tif and .*other/a\.vrt: would both be written to .*a\.tif"):
        segment_scenes([scenes[0], other], tmp_path / "maps", model_file())
    assert not (tmp_path / "maps").exists()


def test_mask_never_replaces_its_scene(scenes, model_file, run):
    before = scenes[0].read_bytes()
    outcome = run("segment", scenes[0], scenes[2], "-o", scenes[0].parent, "-m", model_file(), "--overwrite")
    assert outcome.code == 2
    assert outcome.err.count("is an input; choose another output") == 2
    assert scenes[0].read_bytes() == before


def test_what_no_scene_would_escape_ends_the_run(scenes, tmp_path, run):
    (tmp_path / "model.safetensors").write_text("no model")
    with pytest.raises(ModelError):
        segment_scenes(scenes, tmp_path / "maps", tmp_path / "model.safetensors")
    outcome = run("segment", *scenes, "-o", tmp_path / "maps", "--device", "cuda:99")
    assert outcome.code == 1
    assert outcome.err.count("device cuda:99 is not there") == 1
    assert "0 of 3 scenes are through" in outcome.err


def test_folder_that_cannot_be_made_is_told(scenes, tmp_path, model_file, run):
    (tmp_path / "file").write_text("")
    outcome = run("segment", *scenes, "-o", tmp_path / "file", "-m", model_file())
    assert outcome.code == 1
    assert "file: cannot be made a folder" in outcome.err


@pytest.mark.parametrize(
    ("scene", "stem"),
    {
        "a/b.tif": "b",
        "https://host/x/mosaic.tif?sig=1/2": "mosaic",
        "s3://bucket/deep/scene.v2.tif": "scene.v2",
        "/vsizip/a.zip/in.tif": "in",
        "NETCDF:file.nc:red": "NETCDF_file",
    }.items(),
)
def test_masks_are_called_after_their_scenes(scene, stem):
    assert workflow._stem(scene) == stem


def test_an_error_ends_the_scenes_that_run_at_once(scenes, tmp_path, model_file, monkeypatch):
    """Over a cluster scenes run in threads: an interruption of one is the end of all."""

    class Two:
        workers = ("one", "two")

    def fails(scene, *_):
        raise KeyboardInterrupt if scene.endswith("c.tif") else UsageError("wrong")

    monkeypatch.setattr(workflow, "segment", fails)
    with pytest.raises(KeyboardInterrupt):
        segment_scenes(scenes, tmp_path / "maps", model_file(), ScenesOptions(SegmentOptions()), Two())
