"""What a worker of a cluster does: open a scene once, load a model once, compute the windows it is given."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from glraster.cluster.worker import OpenCalls, absolute, as_json, plain_errors, worker_name
from glraster.errors import ClusterError, GlrasterError
from glraster.model.checkpoint import model_path
from glraster.process import peak_memory_bytes
from glraster.raster.source import gdal_session
from glraster.segmentation.job import Job, SegmentOptions, prepared
from glraster.segmentation.journal import RUN_FILE
from glraster.segmentation.parts import parts_in
from glraster.segmentation.predict import Predictor
from glraster.segmentation.stores import Store, store_at
from glraster.segmentation.windows import Place, WindowCounts, compute_windows, finished_places


@dataclass(frozen=True)
class SceneCall:
    """What a worker needs to open a scene: names that mean the same on every machine (model None: glraster's own)."""

    scene: str
    model: str | None
    options: SegmentOptions


@dataclass(frozen=True)
class WindowsTask:
    """Windows to compute, at `places`: of which scene, with which fingerprint, where parts go, for which run."""

    call: SceneCall
    fingerprint: Mapping[str, object]
    parts: str
    token: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Finished:
    """What a worker tells of a task: counts, its name, and the most memory that its process has held."""

    counts: WindowCounts
    worker: str
    peak_memory_bytes: int


def _opened(call: SceneCall, stack: ExitStack) -> tuple[Job, dict[str, object]]:
    job = stack.enter_context(prepared(call.scene, Path(), model_path(call.model), call.options, role="worker"))
    return job, as_json(job.fingerprint())


_working = threading.Lock()
"""One task at a time, however many threads the worker has: torch uses the cores by itself, datasets are not shared."""
_scenes: OpenCalls[SceneCall, Job] = OpenCalls(_opened)
_predictors: dict[tuple[object, ...], Predictor] = {}


def call_of(job: Job) -> SceneCall:
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


def describe(call: SceneCall) -> dict[str, object]:
    """The fingerprint that a scene's parts would have from this worker.

    Raises:
        ClusterError: where the worker does not see the scene or the model.
    """
    with _working, plain_errors(), gdal_session():
        return dict(_scenes.get(call, None).fingerprint)


def compute(task: WindowsTask) -> Finished:
    """Compute the windows of a task whose parts are missing, and write the parts.

    Raises:
        ClusterError: where the worker does not see what it needs, or would compute other bytes than the run has.
        GlrasterError: as the serial run.

    Memory: a network, three windows, and open scenes.
    """
    with _working, plain_errors(), gdal_session():
        store = _store(task.parts)
        still_wanted = partial(check_run, store, task.token)
        still_wanted()
        job = _scenes.get(task.call, task.fingerprint).work
        parts = parts_in(store, job.spec.architecture.classes, Path(), still_wanted)
        finished = finished_places(job, parts, task.places)
        skipped = sum(finished.values())
        counts = WindowCounts(done=len(finished) - skipped, skipped=skipped)
        if missing := [place for place in task.places if place not in finished]:
            counts = counts.plus(compute_windows(job, _predictor(job), parts, missing, lambda *_: None))
    return Finished(counts, worker_name(), peak_memory_bytes())


def check_run(store: Store, token: str) -> None:
    """Refuse to work for a run that has ended, or whose parts this machine does not see.

    Raises:
        ClusterError: with what to do.
    """
    try:
        found = store.read(RUN_FILE)
    except OSError:
        found = None
    if found != token.encode():
        raise ClusterError(
            f"worker {worker_name()}: does not see the parts of the run in {store.name}; write the output to a folder "
            "that all workers share under one name, or give --parts"
        )


def _store(name: str) -> Store:
    try:
        return store_at(name)
    except GlrasterError as error:
        raise ClusterError(f"worker {worker_name()}: {error}") from error


def _predictor(job: Job) -> Predictor:
    """The model of a job, loaded once for all scenes that use it in the same way."""
    of_scene: dict[str, Any] = {"indexes": None, "bounds": None, "nodata": None, "gsd": None, "value_range": None}
    key = (job.model, job.plan.tiles, replace(job.options, **of_scene))
    if key not in _predictors:
        _predictors.clear()
        _predictors[key] = job.predictor()
    return _predictors[key]
