"""A cluster's workers compute what threads compute; what goes wrong there is one line."""

from __future__ import annotations

import builtins
import os
import socket
import subprocess
import sys
import types
import weakref
from collections import defaultdict
from contextlib import closing, contextmanager

import dask
import distributed
import psutil
import pytest

from glraster.cluster import client
from glraster.cluster.client import AHEAD, Workers, connected, process_environment
from glraster.cluster.worker import Opening, Work, as_json, open_once
from glraster.cluster.worker import run as run_on_worker
from glraster.errors import ClusterError, UsageError

TASKS = 20


def workers(cluster, source=None, fingerprint=None, **settings):
    """A runner whose workers open nothing."""
    fingerprint = fingerprint or {}
    opening = Opening(lambda call: (call, fingerprint), source)
    return Workers(cluster, opening, fingerprint, "a task of a test", "give it less", **settings)


def by_value(function):
    """A copy of a function of this file, which workers cannot import."""
    return types.FunctionType(function.__code__, {"__builtins__": builtins}, "by_value")


def squared(_, task):
    return task * task


# --- tasks and results ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_results_are_those_of_a_loop(ordered, cluster):
    results = list(workers(cluster, 3, ordered=ordered).map(lambda source, task: source * task, range(TASKS)))
    assert (results if ordered else sorted(results)) == [3 * i for i in range(TASKS)]


@pytest.mark.parametrize("ordered", [True, False])
def test_no_more_tasks_are_under_way_than_workers_need(ordered, cluster, monkeypatch):
    submit, submitted = distributed.Client.submit, []
    monkeypatch.setattr(distributed.Client, "submit", lambda *a, **k: submitted.append(a) or submit(*a, **k))
    with closing(workers(cluster, ordered=ordered).map(lambda _, task: task, range(TASKS))) as results:
        for taken, _ in enumerate(results, start=1):
            assert len(submitted) <= taken + AHEAD * 2
    assert (taken, len(submitted)) == (TASKS, TASKS)


def test_tasks_are_called_off_when_nobody_takes_their_results(cluster, monkeypatch):
    cancel, cancelled = distributed.Client.cancel, []
    monkeypatch.setattr(
        distributed.Client, "cancel", lambda c, futures: cancelled.extend(futures) or cancel(c, futures)
    )
    with closing(workers(cluster).map(lambda _, task: task, range(TASKS))) as results:
        next(results)
    assert 1 <= len(cancelled) <= AHEAD * 2
    assert all(future.cancelled() for future in cancelled)


@pytest.mark.parametrize("reached", [True, False])
def test_results_come_through_the_scheduler_if_workers_cannot_be_reached(reached, cluster, monkeypatch):
    gather, direct = distributed.Client.gather, []
    monkeypatch.setattr(distributed.Client, "gather", lambda *a, **k: direct.append(k["direct"]) or gather(*a, **k))
    if not reached:

        def refuse(*_):
            raise OSError("refused")

        monkeypatch.setattr(socket, "create_connection", refuse)
    assert list(workers(cluster).map(lambda _, task: task, range(TASKS))) == list(range(TASKS))
    assert direct == [reached] * TASKS


def while_there(_, path):
    """Work as long as a file is there."""
    import os
    import time

    while os.path.exists(path):  # noqa: PTH110
        time.sleep(0.01)
    return path


def test_who_waits_is_told_every_second(cluster, tmp_path, monkeypatch):
    """The task ends when the callback lets it."""
    monkeypatch.setattr(client, "TICK_S", 0.01)
    (tmp_path / "hold").touch()
    runner = workers(cluster, idle=lambda: (tmp_path / "hold").unlink(missing_ok=True))
    assert len(list(runner.map(by_value(while_there), [str(tmp_path / "hold")]))) == 1


def test_an_error_of_a_task_is_raised_here(cluster):
    from glraster.errors import SceneError

    def fails(_, task):
        if task == 2:
            raise SceneError("cannot be read") from ValueError("the cause, which cannot be pickled perhaps")
        return task

    results = []
    with pytest.raises(SceneError, match="cannot be read") as raised:
        results.extend(workers(cluster).map(fails, range(TASKS)))
    assert raised.value.__cause__ is None
    assert [note.partition("tcp")[0] for note in raised.value.__notes__] == ["on worker "]


# --- workers that are lost -----------------------------------------------------------------------------------------


def test_no_worker_for_a_while_is_an_error(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "WORKERS_S", 0.01)
    monkeypatch.setattr(client, "TICK_S", 0.01)
    monkeypatch.setattr(distributed.Client, "nthreads", lambda _: {})

    (tmp_path / "hold").touch()
    with pytest.raises(ClusterError, match=rf"{cluster.name}: has had no worker for 0.01 s; start some"):
        list(workers(cluster).map(by_value(while_there), [str(tmp_path / "hold")]))
    (tmp_path / "hold").unlink()


def test_a_lost_scheduler_is_an_error(tmp_path):
    """The process of the scheduler is killed when there are results."""
    with dask_scheduler() as (running, address), dask_worker(address, tmp_path), connected(address) as cluster:
        with (
            pytest.raises(ClusterError, match=rf"{address}: the scheduler is gone; start it again.*--resume"),
            closing(workers(cluster).map(by_value(squared), iter(range(10**9)))) as results,
        ):
            assert next(results) == 0
            running.kill()
            running.wait()
            list(results)
        with pytest.raises(ClusterError, match="the scheduler is gone"):
            _ = cluster.workers


@contextmanager
def process(*arguments):
    call = [sys.executable, "-m", *map(str, arguments)]
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


@contextmanager
def dask_scheduler():
    """`dask scheduler`, a process of its own on loopback, and its address, which it says on stderr."""
    options = ("--host", "127.0.0.1", "--port", 0, "--no-dashboard")
    with process("dask", "scheduler", *options) as running:
        line = next(line for line in running.stderr if "Scheduler at:" in line)
        yield running, line.split()[-1]


def dask_worker(scheduler, folder):
    return process("dask", "worker", scheduler, "--no-nanny", "--no-dashboard", "--local-directory", folder)


# --- who agrees ----------------------------------------------------------------------------------------------------


def test_a_cluster_is_asked_once_for_each_key(cluster):
    """The second answer has the first one's device, for an opening that no worker could open."""

    def absent(*_):
        raise AssertionError

    first = Opening(lambda call: (call, {"scene": call, "device": "theirs"}), "a")
    agreed = cluster.agreed(first, {"scene": "a", "device": "mine"}, ("device",), "key")
    assert agreed == {"scene": "a", "device": "theirs"}
    agreed = cluster.agreed(Opening(absent, "b"), {"scene": "b", "device": "mine"}, ("device",), "key")
    assert agreed == {"scene": "b", "device": "theirs"}


def test_a_worker_whose_results_would_differ_is_named(cluster):
    opening = Opening(lambda call: (call, {"versions": ["1"], "bands": 3}), "differs")
    with pytest.raises(ClusterError, match=r'worker tcp://.*another map: versions is \["1"\], not \["2"\]; give all'):
        cluster.agreed(opening, {"versions": ["2"], "bands": 3})
    with pytest.raises(ClusterError, match=r"worker .*versions is \[\"1\"\], not \[\"2\"\]"):
        list(Workers(cluster, opening, {"versions": ["2"], "bands": 3}, "it", "").map(by_value(squared), [1]))


def test_a_worker_without_the_functions_of_a_run_is_named(cluster):
    def unknown(*_):
        import importlib

        importlib.import_module("glraster.none_of_its_modules")

    with pytest.raises(ClusterError, match=r"worker tcp://.*has no glraster or another version of it"):
        cluster.agreed(Opening(unknown, "unknown"), {})


def test_a_worker_that_cannot_open_says_so(cluster):
    from glraster.errors import SceneError

    def fails(*_):
        raise SceneError("a.tif: cannot be opened")

    with pytest.raises(ClusterError, match=r"worker tcp://.*a\.tif: cannot be opened; every worker must see all files"):
        cluster.agreed(Opening(fails, "fails"), {})


# --- what a worker keeps open --------------------------------------------------------------------------------------


class File:
    """Something that a worker opens; `closed` gets its name when nobody holds it any more."""

    def __init__(self, name, closed):
        weakref.finalize(self, closed.append, name)


@pytest.fixture
def files():
    """A task on a file by name and edition, as a worker does it; names of opened and closed files; the editions."""
    opened, closed, editions = [], [], defaultdict(int)

    def opens(name):
        opened.append(name)
        return File(name, closed), {"edition": editions[name]}

    def use(name, edition=0, function=lambda *_: None):
        return run_on_worker(Work(function, Opening(opens, name), {"edition": edition}, None))

    yield use, opened, closed, editions
    open_once.cache_clear()


def test_files_stay_open_between_tasks(files):
    use, opened, closed, _ = files
    for _ in range(3):
        use("a")
    assert (opened, closed) == (["a"], [])
    open_once.cache_clear()
    assert closed == ["a"]


def test_a_file_of_another_edition_is_opened_anew(files):
    use, opened, _, editions = files
    use("a")
    editions["a"] = 1
    use("a", 1)
    assert opened == ["a", "a"]
    with pytest.raises(ClusterError, match="edition is 1, not 2"):
        use("a", 2)


def test_the_least_recently_used_files_are_closed_when_nobody_uses_them(files):
    use, opened, closed, _ = files

    def meanwhile(*_):
        for i in range(1, 20):
            use(str(i))
        assert "0" not in closed

    use("0", function=meanwhile)
    assert len(opened) == 20
    assert sorted(closed, key=int) == [str(i) for i in range(4)]


# --- connecting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "ftp://127.0.0.1:9", "tcp://"])
def test_a_scheduler_that_cannot_be_reached_is_one_line(address, monkeypatch):
    monkeypatch.setattr(client, "SCHEDULER_S", 1)
    with pytest.raises(ClusterError, match="no scheduler can be reached there"), connected(address):
        pass


def test_a_scheduler_without_workers_is_an_error(monkeypatch):
    monkeypatch.setattr(client, "WORKERS_S", 0.1)
    with (
        dask_scheduler() as (_, address),
        pytest.raises(ClusterError, match=rf"{address}: has had no worker for 0.1 s; start some"),
        connected(address),
    ):
        pass


def test_processes_that_do_not_start_are_an_error(monkeypatch):
    monkeypatch.setattr(client, "START_S", 0.01)
    with pytest.raises(ClusterError, match=r"--workers 1: .* do not start in 0 s; try fewer"), connected(workers=1):
        pass


@pytest.mark.parametrize(
    ("call", "text"),
    [({}, "give either"), ({"scheduler": "tcp://a:1", "workers": 2}, "give either"), ({"workers": 0}, "at least 1")],
    ids=str,
)
def test_a_wrong_call_is_a_usage_error(call, text):
    with pytest.raises(UsageError, match=text), connected(**call):
        pass


def test_processes_share_gpus_or_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [process_environment(i, 3, 0) for i in range(3)] == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert process_environment(0, 3, 0) == {"OMP_NUM_THREADS": "5"}
    assert [process_environment(i, 3, 2)["CUDA_VISIBLE_DEVICES"] for i in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [process_environment(i, 2, 2)["CUDA_VISIBLE_DEVICES"] for i in range(2)] == ["4", "7"]


def test_processes_started_here_listen_on_loopback_with_an_environment_of_their_own():
    """And a task that ends its worker is an error, which says what to do."""

    def environment(*_):
        import os

        return os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()

    def deadly(*_):
        import os

        os.kill(os.getpid(), 9)

    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), connected(workers=2, gpus=2) as cluster:
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        sockets = [socket for process in processes for socket in process.net_connections("tcp")]
        assert {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
        seen = set(workers(cluster).map(environment, range(TASKS)))
        assert {gpu for gpu, _ in seen} == {"0", "1"}
        assert os.getpid() not in {pid for _, pid in seen}
        with pytest.raises(ClusterError, match=r"a task of a test ended one worker after another.*give it less"):
            list(workers(cluster).map(deadly, [1]))


def test_a_fingerprint_is_what_comes_back_from_a_journal():
    assert as_json({"size": (3, 4), "name": "ä"}) == {"size": [3, 4], "name": "ä"}
