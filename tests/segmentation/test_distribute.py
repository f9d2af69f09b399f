"""Windows computed by a cluster's workers give the bytes of a serial run, whoever is killed on the way."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
from rasters import hole, landscape, write_raster

from glraster.cluster import client as connection
from glraster.cluster import processes
from glraster.cluster import worker as on_worker
from glraster.cluster.client import connected
from glraster.errors import ClusterError, UsageError
from glraster.segmentation import distributed as distribute
from glraster.segmentation import job as prepare
from glraster.segmentation import worker
from glraster.segmentation.job import SegmentOptions, prepared
from glraster.segmentation.journal import RUN_FILE
from glraster.segmentation.segment import segment
from glraster.segmentation.worker import SceneCall, WindowsTask, call_of

H, W, WINDOWS = 330, 300, 9
LARGE, LARGE_WINDOWS = 700, 49
PATIENCE_S = 180
"""For all that other processes do; on a busy machine a start alone takes half a minute."""


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
    from glraster.segmentation.parts import PartFolder

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


@contextmanager
def process(*command: object, **environment: str):
    """A process of its own; its output is kept for when it ends."""
    call, given = [str(part) for part in command], {**os.environ, **environment}
    with subprocess.Popen(call, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as found:
        try:
            yield found
        finally:
            found.kill()
            found.wait(timeout=PATIENCE_S)


def python(*arguments: object):
    return process(sys.executable, "-m", *arguments)


@contextmanager
def dask_scheduler(folder):
    """`dask scheduler`, a process of its own on loopback, and its address."""
    file = folder / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file)
    with python("dask", "scheduler", *options) as running:
        wait_until(file.exists, running)
        yield running, json.loads(file.read_text())["address"]


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a scheduler."""
    with dask_scheduler(tmp_path_factory.mktemp("scheduler")) as (_, address):
        yield address


def dask_worker(scheduler, folder):
    options = ("--no-nanny", "--nthreads", 2, "--no-dashboard", "--local-directory", folder)
    return python("dask", "worker", scheduler, *options)


@pytest.fixture(scope="module")
def lasting_worker(scheduler, tmp_path_factory):
    """A `dask worker` that nobody kills."""
    with dask_worker(scheduler, tmp_path_factory.mktemp("lasting")):
        yield


def wait_until(condition, *running, seconds=PATIENCE_S):
    until = time.monotonic() + seconds
    while not condition():
        assert all(one.poll() is None for one in running), [one.communicate(timeout=10) for one in running]
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture(scope="module")
def large(tmp_path_factory, model_file):
    """A scene of many windows, its model, and the bytes of its mask."""
    folder = tmp_path_factory.mktemp("large")
    scene = write_raster(folder / "scene.tif", landscape(LARGE, LARGE), tiled=True)
    result = segment(scene, folder / "mask.tif", model_file("full"))
    assert result.windows_done == LARGE_WINDOWS
    return scene, model_file("full"), (folder / "mask.tif").read_bytes()


class Watch:
    """When each part in a folder was written, as often as it was."""

    def __init__(self, mask: Path) -> None:
        self.folder = mask.with_name(f"{mask.name}.parts")
        self.times = defaultdict(set)

    def look(self) -> int:
        for part in self.folder.glob("window_*.npy"):
            with suppress(FileNotFoundError):
                self.times[part.name].add(part.stat().st_mtime_ns)
        return len(self.times)

    def until_end(self, running: subprocess.Popen[str]) -> tuple[str, str]:
        """Look until a process ends; what it printed."""
        until = time.monotonic() + PATIENCE_S
        while running.poll() is None:
            self.look()
            assert time.monotonic() < until
            time.sleep(0.005)
        return running.communicate(timeout=PATIENCE_S)

    def written_again(self) -> int:
        return sum(len(times) > 1 for times in self.times.values())


def client(large, mask, scheduler, *options):
    return python("glraster_cli", "segment", large[0], "-m", large[1], "-o", mask, "--scheduler", scheduler, *options)


@pytest.mark.slow
@pytest.mark.usefixtures("lasting_worker")
def test_killed_worker_loses_its_windows_in_flight_only(large, scheduler, tmp_path):
    mask = tmp_path / "mask.tif"
    watch = Watch(mask)
    with dask_worker(scheduler, tmp_path) as doomed, client(large, mask, scheduler, "--json") as running:
        wait_until(lambda: watch.look() >= LARGE_WINDOWS // 3, running)
        doomed.send_signal(signal.SIGKILL)
        assert watch.look() < LARGE_WINDOWS, "killed too late to tell"
        told, errors = watch.until_end(running)
    assert running.returncode == 0, errors
    result = json.loads(told)
    assert (result["windows_done"], result["windows_reused"]) == (LARGE_WINDOWS, 0)
    assert mask.read_bytes() == large[2]
    assert len(watch.times) == LARGE_WINDOWS
    assert watch.written_again() == 0
    assert not watch.folder.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("lasting_worker")
def test_killed_client_goes_on_with_resume(large, scheduler, tmp_path):
    mask = tmp_path / "mask.tif"
    watch = Watch(mask)
    with dask_worker(scheduler, tmp_path):
        with client(large, mask, scheduler) as running:
            wait_until(lambda: watch.look() >= LARGE_WINDOWS // 3, running)
            running.send_signal(signal.SIGKILL)
            running.wait(timeout=PATIENCE_S)
        finished = watch.look()
        assert finished < LARGE_WINDOWS, "killed too late to tell"
        with client(large, mask, scheduler, "--resume", "--json") as running:
            told, errors = watch.until_end(running)
    assert running.returncode == 0, errors
    result = json.loads(told)
    assert result["windows_reused"] >= finished
    assert result["windows_done"] == LARGE_WINDOWS - result["windows_reused"]
    assert mask.read_bytes() == large[2]
    assert watch.written_again() <= 2  # a task of the dead client may still be at a window of each worker


@pytest.mark.slow
@pytest.mark.usefixtures("lasting_worker")
def test_killed_client_of_several_scenes_goes_on_with_resume(serial, scheduler, tmp_path):
    """Killed when one mask is done and others have parts."""
    scene, model, expected = serial
    (tmp_path / "scenes").mkdir()
    scenes, maps = [tmp_path / "scenes" / f"{name}.tif" for name in "abcd"], tmp_path / "maps"
    for each in scenes:
        each.write_bytes(scene.read_bytes())
    call = ("glraster_cli", "segment", *scenes, "-o", maps, "-m", model, "--scheduler", scheduler)

    def done() -> list[Path]:
        return [path for path in maps.glob("*.tif") if not path.with_name(f"{path.name}.parts").exists()]

    with python(*call) as running:
        wait_until(lambda: done() and list(maps.glob("*.parts/window_*.npy")), running)
        running.send_signal(signal.SIGKILL)
        running.wait(timeout=PATIENCE_S)
    whole = {path.name: path.stat().st_mtime_ns for path in done()}
    assert 1 <= len(whole) < 4, "killed too late to tell"
    with python(*call, "--resume", "--json") as running:
        told, errors = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 0, errors
    result = json.loads(told)
    assert (result["kept"] + result["done"], result["failed"]) == (4, 0)
    assert {name: (maps / name).stat().st_mtime_ns for name in whole} == whole
    assert any(each.get("windows_reused") for each in result["scenes"])
    assert all((maps / each.name).read_bytes() == expected[0] for each in scenes)
    assert {path.suffix for path in maps.iterdir()} == {".tif", ".xml"}


@pytest.mark.slow
def test_lost_scheduler_is_told_and_parts_are_kept(large, tmp_path):
    mask = tmp_path / "mask.tif"
    watch = Watch(mask)
    with (
        dask_scheduler(tmp_path) as (running, address),
        dask_worker(address, tmp_path),
        client(large, mask, address) as call,
    ):
        wait_until(lambda: watch.look() >= 10, call)
        running.kill()
        _, errors = call.communicate(timeout=PATIENCE_S)
    assert call.returncode == 1
    (line,) = errors.splitlines()
    assert "the scheduler is gone" in line
    assert f"of {LARGE_WINDOWS} windows are kept" in line
    assert watch.look() >= 10


@pytest.mark.slow
def test_task_that_ends_its_worker_is_an_error(serial, tmp_path, monkeypatch):
    def deadly(_: object) -> None:
        os.kill(os.getpid(), 9)

    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), connected(workers=1) as doomed:
        doomed._client.submit(int, 1).result()
        monkeypatch.setattr(distribute, "compute", deadly)
        with pytest.raises(ClusterError, match=r"ended one worker after another.*--batch"):
            mask_of(serial, tmp_path, doomed)
    assert list(tmp_path.iterdir()) == []


# --- what the user can put right ---------------------------------------------------------------------------------


def test_unreachable_scheduler_is_one_line_in_bounded_time(serial, tmp_path, monkeypatch, run):
    monkeypatch.setattr(connection, "SCHEDULER_S", 1)
    started = time.perf_counter()
    outcome = run("segment", serial[0], "-o", tmp_path / "m.tif", "-m", serial[1], "--scheduler", "tcp://127.0.0.1:9")
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert line.startswith("glraster: error: tcp://127.0.0.1:9: no scheduler can be reached there")
    assert time.perf_counter() - started < 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["nonsense", "ftp://127.0.0.1:9", "tcp://"])
def test_strange_address_is_one_line(address, monkeypatch):
    monkeypatch.setattr(connection, "SCHEDULER_S", 1)
    with pytest.raises(ClusterError, match="no scheduler can be reached"), connected(address):
        pass


def test_scheduler_without_workers_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "WORKERS_S", 1)
    with (
        dask_scheduler(tmp_path) as (_, address),
        pytest.raises(ClusterError, match=rf"{address}: has had no worker for 1 s; start some"),
        connected(address),
    ):
        pass


def test_dask_that_is_not_installed_is_told(serial, tmp_path, monkeypatch, run):
    monkeypatch.setitem(sys.modules, "distributed", None)
    outcome = run("segment", serial[0], "-o", tmp_path / "m.tif", "-m", serial[1], "--workers", 2)
    assert outcome.code == 2
    assert "pip install 'glraster[dask]'" in outcome.err


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


def test_worker_that_does_not_see_the_scene_is_named(serial, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(distribute, "call_of", lambda job: replace(call_of(job), scene="/elsewhere/scene.tif"))
    monkeypatch.setattr(cluster, "_answers", {})
    with pytest.raises(ClusterError, match=r"worker tcp://.*/elsewhere/scene\.tif.*under the name they have here"):
        mask_of(serial, tmp_path, cluster)
    assert list(tmp_path.iterdir()) == []


def test_worker_that_does_not_see_the_parts_is_named(serial, cluster, tmp_path, monkeypatch):
    @contextmanager
    def elsewhere(_: object):
        yield "a token that no file holds"

    monkeypatch.setattr(distribute, "_announced", elsewhere)
    with pytest.raises(ClusterError, match=r"worker tcp://.*a folder that all workers share"):
        mask_of(serial, tmp_path, cluster)
    assert list(tmp_path.iterdir()) == []


def test_worker_of_another_version_is_named(serial, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "__version__", "99")
    monkeypatch.setattr(cluster, "_answers", {})
    with pytest.raises(ClusterError, match=r'worker tcp://.*would compute another map: versions is \[.*, not \["99"'):
        mask_of(serial, tmp_path, cluster)


def test_worker_without_glraster_is_named(serial, cluster, tmp_path, monkeypatch):
    def unknown(_: object) -> None:
        importlib.import_module("glraster.none_of_its_modules")

    monkeypatch.setattr(distribute, "describe", unknown)
    monkeypatch.setattr(cluster, "_answers", {})
    with pytest.raises(ClusterError, match=r"worker tcp://.*has no glraster or another version of it"):
        mask_of(serial, tmp_path, cluster)


def test_errors_of_a_window_are_those_of_a_serial_run(serial, cluster, tmp_path):
    """A scene whose blocks are cut opens, and cannot be read."""
    content = write_raster(
        tmp_path / "scene.tif", landscape(H, W), tiled=True, blockxsize=64, blockysize=64
    ).read_bytes()
    (tmp_path / "scene.tif").write_bytes(content[: len(content) // 2])
    outcome = []
    for crew in (None, cluster):
        with pytest.raises(Exception, match="cannot be read") as raised:
            segment(
                tmp_path / "scene.tif", tmp_path / "mask.tif", serial[1], SegmentOptions(overwrite=True), cluster=crew
            )
        outcome.append(type(raised.value))
    assert outcome[0] is outcome[1]
    assert any(note.startswith("on worker tcp://") for note in raised.value.__notes__)


# --- a worker, in this process -----------------------------------------------------------------------------------


@pytest.fixture
def task(serial, tmp_path):
    """All windows of the scene for a run that is announced in `tmp_path`."""
    scene, model, _ = serial
    with prepared(str(scene), tmp_path / "mask.tif", model, None) as job:
        fingerprint = on_worker.as_json(job.fingerprint())
        (tmp_path / RUN_FILE).write_text("this run")
        yield WindowsTask(call_of(job), fingerprint, str(tmp_path), "this run", job.plan.wanted)
    worker._scenes.close()


def test_scene_is_opened_and_model_loaded_once(task, monkeypatch):
    opened, loaded = [], []
    monkeypatch.setattr(worker, "prepared", lambda *a, **k: opened.append(a) or prepared(*a, **k))
    monkeypatch.setattr(prepare, "load", lambda path, load=prepare.load: loaded.append(path) or load(path))
    monkeypatch.setattr(worker, "_predictors", {})
    for place in task.places:
        assert worker.compute(replace(task, places=(place,))).counts.done == 1
    assert (len(opened), len(loaded)) == (1, 1)
    assert worker.compute(task).counts.done == WINDOWS, "finished parts count, and are not computed again"
    assert len(loaded) == 1


def test_worker_of_other_settings_computes_nothing(task, tmp_path):
    wrong = {**task.fingerprint, "device": "cpu (64 threads)"}
    with pytest.raises(ClusterError, match=r'device is "cpu \(1 thread\)", not "cpu \(64 threads\)".*OMP_NUM_THREADS'):
        worker.compute(replace(task, fingerprint=wrong))
    assert not list(tmp_path.glob("window_*"))


def test_worker_writes_no_part_for_a_run_that_ended(task, tmp_path, monkeypatch):
    """The run ends while the worker is at its third window."""
    scores, left = worker.compute_windows, [3]

    def ends(job, predictor, parts, *rest):
        windows = type(predictor).window_scores

        def counted(*arguments):
            left[0] -= 1
            if not left[0]:
                (tmp_path / RUN_FILE).write_text("another run")
            return windows(*arguments)

        monkeypatch.setattr(type(predictor), "window_scores", counted)
        return scores(job, predictor, parts, *rest)

    monkeypatch.setattr(worker, "compute_windows", ends)
    with pytest.raises(ClusterError, match="does not see the parts of the run"):
        worker.compute(task)
    assert len(list(tmp_path.glob("window_*.npy"))) <= 2
    assert len(list(tmp_path.glob("window_*.npy"))) == len(list(tmp_path.glob("window_*")))


def test_edited_scene_is_opened_anew(task, serial):
    worker.compute(task)
    stat = serial[0].stat()
    os.utime(serial[0], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    try:
        with pytest.raises(ClusterError, match="scene is"):
            worker.compute(replace(task, fingerprint={**task.fingerprint, "scene": "edited"}))
    finally:
        os.utime(serial[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_unknown_scene_names_the_machine(tmp_path):
    with pytest.raises(ClusterError, match=r"none\.tif: cannot be opened.*every worker must see"):
        worker.describe(SceneCall(str(tmp_path / "none.tif"), None, SegmentOptions()))


def test_cores_are_shared_and_gpus_are_not(monkeypatch):
    monkeypatch.setattr(processes, "_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(processes, "_gpus", lambda: 0)
    assert [processes._environment(i, 3) for i in range(3)] == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert processes._environment(0, 3) == {"OMP_NUM_THREADS": "5"}
    monkeypatch.setattr(processes, "_gpus", lambda: 2)
    assert [processes._environment(i, 3)["CUDA_VISIBLE_DEVICES"] for i in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [processes._environment(i, 2)["CUDA_VISIBLE_DEVICES"] for i in range(2)] == ["4", "7"]


def test_neither_nor_is_a_usage_error():
    with pytest.raises(UsageError, match="either"), connected():
        pass
