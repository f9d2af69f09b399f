"""Windows computed by a cluster's workers give the bytes of a serial run, whoever is killed on the way."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import distributed
import numpy as np
import pytest
from rasters import hole, landscape, write_raster
from segmentation.dying_run import dying_run

from glraster.cluster.worker import Opening, Work, as_json, describe, open_once
from glraster.cluster.worker import run as run_on_worker
from glraster.errors import ClusterError
from glraster.model import checkpoint
from glraster.segmentation import job as segmentation_job
from glraster.segmentation.distributed import (
    SceneCall,
    WindowsTask,
    compute_task,
    open_scene,
    predictors,
    scene_call,
)
from glraster.segmentation.job import SegmentOptions, segment_job
from glraster.segmentation.journal import RUN_FILE
from glraster.segmentation.parts import PartFolder
from glraster.segmentation.predict import Predictor
from glraster.segmentation.segment import segment

H, W, WINDOWS = 330, 300, 9


@pytest.fixture(scope="module")
def serial(tmp_path_factory, model_file):
    """A scene, its model, and the bytes of a serial run's mask and confidence."""
    folder = tmp_path_factory.mktemp("serial")
    scene = write_raster(folder / "scene.tif", landscape(H, W), mask=hole(H, W))
    options = SegmentOptions(confidence=folder / "confidence.tif")
    result = segment(scene, folder / "mask.tif", model_file("full"), options)
    assert (result.windows_done, result.device) == (WINDOWS, "cpu (1 thread)")
    return scene, model_file("full"), [(folder / name).read_bytes() for name in ("mask.tif", "confidence.tif")]


def mask_of(serial, folder, cluster, **settings):
    scene, model, _ = serial
    result = segment(scene, folder / "mask.tif", model, SegmentOptions(**settings), cluster=cluster)
    return result, (folder / "mask.tif").read_bytes()


def test_two_processes_give_the_serial_bytes(serial, tmp_path, run):
    scene, model, expected = serial
    mask, confidence = tmp_path / "mask.tif", tmp_path / "confidence.tif"
    call = ("segment", scene, "-o", mask, "--confidence", confidence, "-m", model)
    outcome = run(*call, "--workers", 2, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert [mask.read_bytes(), confidence.read_bytes()] == expected
    assert {path.suffix for path in tmp_path.iterdir()} == {".tif", ".xml"}
    told = json.loads(outcome.out)
    assert (told["windows_done"], told["windows_reused"], told["device"]) == (WINDOWS, 0, "2 x cpu (1 thread)")


@pytest.mark.parametrize("mode", ["global", "local"])
def test_every_branch_gives_the_serial_bytes(mode, serial, cluster, tmp_path, model_file):
    for name, crew in (("serial", None), ("cluster", cluster)):
        segment(
            serial[0], tmp_path / f"{name}.tif", model_file(mode), SegmentOptions(tta=mode == "local"), cluster=crew
        )
    assert (tmp_path / "serial.tif").read_bytes() == (tmp_path / "cluster.tif").read_bytes()


def test_windows_without_data_are_counted(model_file, cluster, tmp_path):
    valid = np.zeros((H, W), bool)
    valid[:60, :60] = True
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W), mask=valid)
    result = segment(scene, tmp_path / "mask.tif", model_file(), cluster=cluster)
    assert (result.windows_done, result.windows_skipped) == (1, WINDOWS - 1)


def test_a_scene_of_another_dtype_is_stretched_alike_everywhere(model_file, cluster, tmp_path):
    scene = write_raster(tmp_path / "scene.tif", landscape(H, W, dtype="uint16"))
    for name, crew in (("serial", None), ("cluster", cluster)):
        segment(scene, tmp_path / f"{name}.tif", model_file(), cluster=crew)
    assert (tmp_path / "serial.tif").read_bytes() == (tmp_path / "cluster.tif").read_bytes()


def test_relative_names_are_those_of_the_client(serial, cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scene, model, expected = serial
    segment(os.path.relpath(scene), "mask.tif", os.path.relpath(model), cluster=cluster)
    assert (tmp_path / "mask.tif").read_bytes() == expected[0]


def test_serial_run_may_be_resumed_by_a_cluster(serial, cluster, tmp_path, monkeypatch):
    write, left = PartFolder.write, [4]

    def interrupted(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(PartFolder, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mask_of(serial, tmp_path, None)
    monkeypatch.undo()
    result, mask = mask_of(serial, tmp_path, cluster, resume=True)
    assert (result.windows_reused, result.windows_done) == (4, WINDOWS - 4)
    assert mask == serial[2][0]


def test_progress_ends_at_the_whole(serial, cluster, tmp_path):
    seen = []
    segment(serial[0], tmp_path / "mask.tif", serial[1], None, seen.append, cluster)
    windows = [p.done for p in seen if p.phase == "windows"]
    assert windows == sorted(windows)
    assert windows[-1] == H * W


# --- who is killed -----------------------------------------------------------------------------------------------


def killed(moment, *arguments):
    ended = dying_run(moment, *arguments)
    assert ended.returncode == -9, ended.stderr


def parts_of(mask):
    return {path.name: path.stat().st_mtime_ns for path in mask.with_name(f"{mask.name}.parts").glob("window_*.npy")}


def test_killed_client_goes_on_with_resume(serial, cluster, tmp_path):
    """It is killed when it has the results of three tasks, of one window each."""
    scene, model, expected = serial
    mask = tmp_path / "mask.tif"
    killed("task:4", "segment", scene, "-o", mask, "-m", model, "--scheduler", cluster.name)
    finished, seen = parts_of(mask), {}
    assert 3 <= len(finished) < WINDOWS

    def look(_):
        seen.update({name: time for name, time in parts_of(mask).items() if name in finished})

    result = segment(scene, mask, model, SegmentOptions(resume=True), look, cluster)
    assert result.windows_reused >= len(finished)
    assert result.windows_done == WINDOWS - result.windows_reused
    assert seen == finished, "finished windows are computed again"
    assert mask.read_bytes() == expected[0]


def test_killed_client_of_several_scenes_goes_on_with_resume(serial, cluster, tmp_path, run):
    """Killed when one scene is done and others are at work."""
    scene, model, expected = serial
    (tmp_path / "scenes").mkdir()
    scenes, maps = [tmp_path / "scenes" / f"{name}.tif" for name in "abcd"], tmp_path / "maps"
    for each in scenes:
        each.write_bytes(scene.read_bytes())
    call = ("segment", *scenes, "-o", maps, "-m", model, "--scheduler", cluster.name)
    killed("scene:1", *call)
    whole = {path: path.stat().st_mtime_ns for path in maps.glob("*.tif") if not parts_of(path)}
    assert 1 <= len(whole) < 4
    outcome = run(*call, "--resume", "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert (result["kept"], result["done"], result["failed"]) == (len(whole), 4 - len(whole), 0)
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    assert any(each.get("windows_reused") for each in result["scenes"])
    assert all((maps / each.name).read_bytes() == expected[0] for each in scenes)
    assert {path.suffix for path in maps.iterdir()} == {".tif", ".xml"}


def test_error_of_a_cluster_keeps_the_parts(serial, cluster, tmp_path, monkeypatch):
    """As where the scheduler is lost: the line says how many windows are kept."""

    def refuse(_):
        raise OSError("the scheduler does not answer")

    def lost(progress):
        if progress.done:
            monkeypatch.setattr(distributed.Client, "nthreads", refuse)

    with pytest.raises(ClusterError, match="the scheduler is gone") as raised:
        segment(serial[0], tmp_path / "mask.tif", serial[1], None, lost, cluster)
    monkeypatch.undo()
    (note,) = raised.value.__notes__
    assert f"of {WINDOWS} windows are kept in " in note
    assert "repeat the call with --resume" in note
    result = segment(serial[0], tmp_path / "mask.tif", serial[1], SegmentOptions(resume=True))
    assert result.windows_reused >= 1
    assert (tmp_path / "mask.tif").read_bytes() == serial[2][0]


# --- what the user can put right ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--workers", 2, "--scheduler", "tcp://127.0.0.1:9"), "either --scheduler or --workers"),
        (("--workers", 0), "--workers 0 must be at least 1"),
        (("--workers", 1, "--merge", "paper", "--gsd", "native"), "leave out --scheduler and --workers"),
    ],
    ids=["both", "none", "paper"],
)
def test_wrong_calls_are_usage_errors(options, text, serial, tmp_path, run):
    outcome = run("segment", serial[0], "-o", tmp_path / "m.tif", "-m", serial[1], *options)
    assert outcome.code == 2
    assert text in outcome.err
    assert list(tmp_path.iterdir()) == []


# --- a worker, in this process -----------------------------------------------------------------------------------


@pytest.fixture
def work(serial, tmp_path):
    """All windows of the scene for a run that is announced in `tmp_path`."""
    scene, model, _ = serial
    with segment_job(str(scene), tmp_path / "mask.tif", model, None) as job:
        (tmp_path / RUN_FILE).write_text("this run")
        task = WindowsTask(str(tmp_path), "this run", job.plan.places)
        yield Work(compute_task, Opening(open_scene, scene_call(job)), as_json(job.fingerprint()), task)
    open_once.cache_clear()
    predictors.clear()


def with_task(work, **changes):
    return replace(work, task=replace(work.task, **changes))


def test_scene_is_opened_and_model_loaded_once(work, monkeypatch):
    opened, loaded = [], []
    scene, load = segmentation_job.Scene, checkpoint.load
    monkeypatch.setattr(segmentation_job, "Scene", lambda *a: opened.append(a) or scene(*a))
    monkeypatch.setattr(segmentation_job, "load", lambda path: loaded.append(path) or load(path))
    for place in work.task.places:
        assert run_on_worker(with_task(work, places=(place,))).counts.done == 1
    assert run_on_worker(work).counts.done == WINDOWS, "finished parts count, and are not computed again"
    assert (len(opened), len(loaded)) == (1, 1)


def test_worker_of_other_settings_computes_nothing(work, tmp_path):
    other = {**work.fingerprint, "device": "cpu (64 threads)"}
    with pytest.raises(ClusterError, match=r'device is "cpu \(1 thread\)", not "cpu \(64 threads\)".*OMP_NUM_THREADS'):
        run_on_worker(replace(work, fingerprint=other))
    assert not list(tmp_path.glob("window_*"))


def test_worker_that_does_not_see_the_parts_says_what_to_do(work, tmp_path):
    (tmp_path / "another folder").mkdir()
    with pytest.raises(ClusterError, match=r"does not see the parts of the run in .*another folder; .* share"):
        run_on_worker(with_task(work, parts=str(tmp_path / "another folder")))
    assert not list(tmp_path.glob("**/window_*"))


def test_worker_writes_no_part_for_a_run_that_ended(work, tmp_path, monkeypatch):
    """The run ends while the worker is at its third window."""
    scores, left = Predictor.window_scores, [3]

    def counted(*arguments):
        left[0] -= 1
        if not left[0]:
            (tmp_path / RUN_FILE).write_text("another run")
        return scores(*arguments)

    monkeypatch.setattr(Predictor, "window_scores", counted)
    with pytest.raises(ClusterError, match="does not see the parts of the run"):
        run_on_worker(work)
    assert len(list(tmp_path.glob("window_*.npy"))) <= 2
    assert len(list(tmp_path.glob("window_*.npy"))) == len(list(tmp_path.glob("window_*")))


def test_edited_scene_is_opened_anew(work, serial):
    run_on_worker(with_task(work, places=work.task.places[:1]))
    stat = serial[0].stat()
    os.utime(serial[0], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    try:
        with pytest.raises(ClusterError, match="scene is"):
            run_on_worker(replace(work, fingerprint={**work.fingerprint, "scene": "edited"}))
    finally:
        os.utime(serial[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_unknown_scene_names_the_machine(tmp_path):
    opening = Opening(open_scene, SceneCall(str(tmp_path / "none.tif"), None, SegmentOptions()))
    with pytest.raises(ClusterError, match=r"none\.tif: cannot be opened.*every worker must see"):
        describe(opening)
