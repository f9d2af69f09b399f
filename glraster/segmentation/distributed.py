"""Compute the windows of scenes on the workers of a Dask cluster; parts and masks are those of a run on one machine."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from glraster.cluster.client import Cluster, Workers, connected
from glraster.cluster.worker import Fingerprint, Opening, absolute, as_json, worker_name
from glraster.errors import ClusterError
from glraster.model.checkpoint import model_path
from glraster.process import peak_memory_bytes
from glraster.raster.source import gdal_session
from glraster.segmentation.job import SegmentJob, SegmentOptions, worker_job
from glraster.segmentation.journal import RUN_FILE
from glraster.segmentation.parts import Parts, parts_in
from glraster.segmentation.plan import WindowPlace
from glraster.segmentation.predict import Predictor
from glraster.segmentation.stores import Store, store_at
from glraster.segmentation.windows import ReportWindows, WindowCounts, compute_windows, missing_places

log = logging.getLogger(__name__)

OF_WORKER = ("device", "batch", "precision")
"""What a fingerprint says of the machine that computes; the client need not have it."""

_LONGEST_TASK, _ROUNDS = 8, 4
"""Windows of a task, at most; tasks that a worker's share is cut into, at least."""

_LOOK_S, _SEEN_S = 1.0, 30.0
"""Pause between two looks at a shared folder, and patience with its cache."""

_ADVICE = "use a smaller --batch or --tile"


def connect(scheduler: str | None = None, workers: int | None = None) -> AbstractContextManager[Cluster]:
    """Connect to a Dask cluster, or start one on this machine; see `cluster.client.connected`.

    Args:
        scheduler: address of a running scheduler, as tcp://host:8786.
        workers: processes to start here, instead: one for each GPU, or a few that share the CPU's cores.
    """
    return connected(scheduler, workers, torch.cuda.device_count())


@dataclass(frozen=True)
class SceneCall:
    """What a worker needs to open a scene: names that mean the same on every machine (model None: glraster's own)."""

    scene: str
    model: str | None
    options: SegmentOptions


@dataclass(frozen=True)
class WindowsTask:
    """Windows to compute: where their parts go, the token of their run, and their `places`."""

    parts: str
    token: str
    places: tuple[WindowPlace, ...]


@dataclass(frozen=True)
class WindowsResult:
    """What a worker did: counts, its name, and the most memory that its process has held."""

    counts: WindowCounts
    worker: str
    peak_memory_bytes: int


class ClusterWindows:
    """The windows of a job, computed by the workers of a cluster; `windows.LocalWindows` computes them here.

    `fingerprint` is that of the workers: a device is theirs, all else is as here. `peak_memory_bytes` is the most that
    this process or a worker's has held so far.

    Raises:
        ClusterError: if workers differ from each other or from this process, or do not see what they need.
    """

    def __init__(self, job: SegmentJob, cluster: Cluster) -> None:
        self._job, self._cluster = job, cluster
        self._opening = Opening(open_scene, scene_call(job))
        settings = (job.model, job.plan.tiles, job.options.device, job.options.batch, job.options.precision)
        self.fingerprint = cluster.agreed(self._opening, as_json(job.fingerprint()), OF_WORKER, settings)
        self._peak = 0

    @property
    def device(self) -> str:
        """What computes, for a report."""
        return f"{len(self._cluster.workers)} x {self.fingerprint['device']}"

    @property
    def peak_memory_bytes(self) -> int:
        return max(self._peak, peak_memory_bytes())

    def compute(self, parts: Parts, report: ReportWindows) -> WindowCounts:
        """Have every part computed that is missing; see `LocalWindows.compute`.

        Args:
            parts: of the windows, in a store that all workers see under its name.
            report: called after every task, and every second.

        Raises:
            ClusterError: if the scheduler or all workers are lost, or a task ended several workers.
            GlrasterError: as in a run on one machine.

        Memory: the places of the windows. A worker holds a network and three windows.
        """
        job, places = self._job, self._job.plan.places
        missing = missing_places(job, parts, places)
        counts, workers, started = WindowCounts(), set[str](), time.perf_counter()
        if not missing:
            return replace(counts, reused=len(places))

        def progress() -> None:
            report(counts.done + counts.skipped, len(missing))

        runner = Workers(
            self._cluster, self._opening, self.fingerprint, "windows of a scene", _ADVICE, ordered=False, idle=progress
        )
        with (
            _announced(parts.store) as token,
            closing(runner.map(compute_task, self._tasks(parts, token, deque(missing)))) as results,
        ):
            for result in results:
                counts = counts.plus(result.counts)
                workers.add(result.worker)
                self._peak = max(self._peak, result.peak_memory_bytes)
                progress()
            _wait_until_seen(job, parts, missing)
        seconds, busy = time.perf_counter() - started, counts.busy_s / max(1, len(workers))
        counts = replace(counts, reused=len(places) - len(missing), seconds=seconds, busy_s=busy)
        log.info("%d workers waited %.1f %% of %.1f s", len(workers), 100 * counts.wait_share, seconds)
        return counts

    def _tasks(self, parts: Parts, token: str, remaining: deque[WindowPlace]) -> Iterator[WindowsTask]:
        """Long tasks first, so that a worker reads ahead; short ones at the end, so that all end together."""
        store = absolute(parts.store.name)
        while remaining:
            workers = max(1, len(self._cluster.workers))
            length = max(1, min(_LONGEST_TASK, len(remaining) // (_ROUNDS * workers)))
            yield WindowsTask(store, token, tuple(remaining.popleft() for _ in range(length)))


def scene_call(job: SegmentJob) -> SceneCall:
    """How to open a job's scene elsewhere: absolute names, the stretch that was chosen, none of the outputs."""
    stretch, name = job.scene.stretch, job.scene.name
    options = replace(
        job.options,
        value_range=(stretch.low, stretch.high) if stretch else None,
        parts=None,
        confidence=None,
        probabilities=None,
        creation_options=(),
        resume=False,
        overwrite=False,
    )
    own = job.model_path == model_path(None)
    return SceneCall(absolute(name), None if own else absolute(str(job.model_path)), options)


@contextmanager
def _announced(store: Store) -> Iterator[str]:
    """Let workers write parts into a store as long as this run lasts."""
    token = uuid4().hex
    store.write(RUN_FILE, token.encode())
    try:
        yield token
    finally:
        store.remove([RUN_FILE])


def _wait_until_seen(job: SegmentJob, parts: Parts, places: list[WindowPlace]) -> None:
    """Wait for a network file system to show what other machines wrote."""
    until = time.monotonic() + _SEEN_S
    while unseen := missing_places(job, parts, places):
        if time.monotonic() > until:
            raise ClusterError(
                f"{parts.store.name}: {len(unseen)} parts that workers wrote are not there; write the output to a "
                "folder that all workers share under one name, or give --parts"
            )
        parts.store.files()  # makes NFS ask anew
        time.sleep(_LOOK_S)


# --- on a worker ----------------------------------------------------------------------------------------------------

_computing = threading.Lock()
"""One task at a time, however many threads the worker has: torch uses the cores by itself, datasets are not shared."""
predictors: dict[tuple[object, ...], Predictor] = {}
"""Of this process: the model that the last task used."""


def open_scene(call: SceneCall) -> tuple[SegmentJob, Fingerprint]:
    """Open the scene of a call, see `cluster.worker.Opening`.

    Raises:
        GlrasterError: as in a run on one machine.
    """
    with gdal_session():
        job = worker_job(call.scene, model_path(call.model), call.options)
        return job, as_json(job.fingerprint())


def compute_task(job: SegmentJob, task: WindowsTask) -> WindowsResult:
    """Compute the windows of a task that have no part, and write their parts.

    Raises:
        ClusterError: if the run has ended, or this machine does not see its parts.
        GlrasterError: as in a run on one machine.

    Memory: a network and three windows.
    """
    with _computing, gdal_session():
        store = store_at(task.parts)
        check = partial(check_run, store, task.token)
        check()
        parts = parts_in(store, job.spec.architecture.classes, Path(), check)
        finished = parts.finished(task.places, job.plan.window_cells)
        skipped = sum(finished.values())
        counts = WindowCounts(done=len(finished) - skipped, skipped=skipped)
        if missing := [place for place in task.places if place not in finished]:
            counts = counts.plus(compute_windows(job, _predictor(job), parts, missing, lambda *_: None))
    return WindowsResult(counts, worker_name(), peak_memory_bytes())


def check_run(store: Store, token: str) -> None:
    """Refuse to work for a run that has ended, or whose parts this machine does not see.

    Raises:
        ClusterError: with what to do.
    """
    try:
        current = store.read(RUN_FILE)
    except OSError:
        current = None
    if current != token.encode():
        raise ClusterError(
            f"worker {worker_name()}: does not see the parts of the run in {store.name}; write the output to a folder "
            "that all workers share under one name, or give --parts"
        )


def _predictor(job: SegmentJob) -> Predictor:
    """The model of a job, loaded once for all scenes that use it in the same way."""
    of_scene: Mapping[str, Any] = dict.fromkeys(("indexes", "bounds", "nodata", "gsd", "value_range"))
    key = (job.model, job.plan.tiles, replace(job.options, **of_scene))
    if key not in predictors:
        predictors.clear()
        predictors[key] = job.predictor()
    return predictors[key]
