"""What a worker of a cluster does: open a scene once, load a model once, compute the windows it is given."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glraster.errors import ClusterError, GlrasterError
from glraster.infer.device import peak_memory_bytes
from glraster.infer.predict import Predictor
from glraster.model.default import model_path
from glraster.raster.opening import gdal_session
from glraster.raster.parts import PartFolder
from glraster.workflows.prepare import Job, SegmentOptions, prepared
from glraster.workflows.windows import Place, WindowCounts, compute_windows, missing_places

RUN_FILE = "journal.run"
"""Holds the token of the run that the parts are for: a worker of a run that ended writes into no other."""

_MOST_SCENES = 16
"""Scenes that a worker keeps open."""


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
    parts: Path
    token: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Finished:
    """What a worker tells of a task: counts, its name, and the most memory that its process has held."""

    counts: WindowCounts
    worker: str
    peak_memory_bytes: int


@dataclass(frozen=True)
class _RunParts(PartFolder):
    """Parts of one run, which are no longer written when the run has ended."""

    token: str

    def _save(self, row: int, column: int, array: npt.NDArray[np.float16]) -> None:
        check_run(self.path, self.token)
        super()._save(row, column, array)


@dataclass(frozen=True)
class _Open:
    job: Job
    fingerprint: Mapping[str, object]
    stack: ExitStack


_working = threading.Lock()
"""One task at a time, however many threads the worker has: torch uses the cores by itself, datasets are not shared."""
_scenes: OrderedDict[SceneCall, _Open] = OrderedDict()
_predictors: dict[tuple[object, ...], Predictor] = {}


def call_of(job: Job) -> SceneCall:
    """How to open a job's scene elsewhere: absolute names, the stretch that was chosen, none of the outputs."""
    stretch, name = job.scene.stretch, job.scene.name
    options = replace(
        job.options,
        value_range=(stretch.low, stretch.high) if stretch else None,
        confidence=None,
        probabilities=None,
        creation_options=(),
        resume=False,
        overwrite=False,
    )
    own = job.model_path == model_path(None)
    return SceneCall(_absolute(name), None if own else _absolute(str(job.model_path)), options)


def describe(call: SceneCall) -> dict[str, object]:
    """The fingerprint that a scene's parts would have from this worker.

    Raises:
        ClusterError: where the worker does not see the scene or the model.
    """
    with _working, _plain_errors(), gdal_session():
        return dict(_opened(call, None).fingerprint)


def compute(task: WindowsTask) -> Finished:
    """Compute the windows of a task whose parts are missing, and write the parts.

    Raises:
        ClusterError: where the worker does not see what it needs, or would compute other bytes than the run has.
        GlrasterError: as the serial run.

    Memory: a network, three windows, and open scenes.
    """
    with _working, _plain_errors(), gdal_session():
        check_run(task.parts, task.token)
        job = _opened(task.call, task.fingerprint).job
        parts = _RunParts(task.parts, job.spec.architecture.classes, task.token)
        missing = missing_places(job, parts, task.places)
        counts = _found(parts, set(task.places) - set(missing))
        if missing:
            counts = counts.plus(compute_windows(job, _predictor(job), parts, missing, lambda *_: None))
    return Finished(counts, worker_name(), peak_memory_bytes())


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Leave out what led to an error: rasterio's own do not survive the way to the client, and take ours with them."""
    told: GlrasterError | OSError
    try:
        yield
        return
    except (GlrasterError, OSError) as error:
        told = error
    told.__cause__ = told.__context__ = None
    if not isinstance(told, ClusterError):
        told.add_note(f"on worker {worker_name()}")
    raise told


def check_run(folder: Path, token: str) -> None:
    """Refuse to work for a run that has ended, or whose parts this machine does not see.

    Raises:
        ClusterError: with what to do.
    """
    try:
        found = (folder / RUN_FILE).read_text()
    except OSError:
        found = None
    if found != token:
        raise ClusterError(
            f"worker {worker_name()}: does not see the parts of the run in {folder}; write the output to a folder that "
            "all workers share under one name"
        )


def changed_keys(found: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """The keys in which two fingerprints differ."""
    return [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]


def as_json(fingerprint: Mapping[str, object]) -> dict[str, object]:
    """A fingerprint as it comes back from a journal: tuples are lists."""
    values: dict[str, object] = json.loads(json.dumps(fingerprint))
    return values


def differ(worker: str, found: Mapping[str, object], wanted: Mapping[str, object], keys: list[str]) -> ClusterError:
    """The error that tells in what a worker differs from the run, and what to do about it."""
    told = "; ".join(f"{key} is {_brief(found.get(key))}, not {_brief(wanted.get(key))}" for key in keys)
    advice = "give all workers the same files, versions, devices and OMP_NUM_THREADS"
    return ClusterError(f"worker {worker}: would compute another map: {told}; {advice}")


def worker_name() -> str:
    """The worker's address, or the machine's name outside of a worker."""
    try:
        from distributed import get_worker

        return str(get_worker().address)
    except (ImportError, ValueError):
        return socket.gethostname()


def _found(parts: PartFolder, places: set[Place]) -> WindowCounts:
    """The windows of a task that a worker finished before it was lost."""
    skipped = sum(parts.shape(*place) == (0, 0) for place in places)
    return WindowCounts(done=len(places) - skipped, skipped=skipped)


def _opened(call: SceneCall, wanted: Mapping[str, object] | None) -> _Open:
    """The scene, opened anew where it is not open or where `wanted` is not the fingerprint that it was opened with."""
    known = _scenes.get(call)
    if known is None or known.fingerprint != wanted:
        if known is not None:
            _scenes.pop(call).stack.close()
        known = _scenes[call] = _open(call)
        while len(_scenes) > _MOST_SCENES:
            _scenes.popitem(last=False)[1].stack.close()
    if wanted is not None and known.fingerprint != wanted:
        raise differ(worker_name(), known.fingerprint, wanted, changed_keys(known.fingerprint, wanted))
    _scenes.move_to_end(call)
    return known


def _open(call: SceneCall) -> _Open:
    stack = ExitStack()
    try:
        job = stack.enter_context(
            prepared(call.scene, Path(), model_path(call.model), call.options, role="worker"),
        )
        return _Open(job, as_json(job.fingerprint()), stack)
    except GlrasterError as error:
        stack.close()
        raise ClusterError(
            f"worker {worker_name()}: {error}; every worker must see scene and model under the name they have here"
        ) from error


def _predictor(job: Job) -> Predictor:
    """The model of a job, loaded once for all scenes that use it in the same way."""
    of_scene: dict[str, Any] = {"indexes": None, "bounds": None, "nodata": None, "gsd": None, "value_range": None}
    key = (job.model, job.plan.tiles, replace(job.options, **of_scene))
    if key not in _predictors:
        _predictors.clear()
        _predictors[key] = job.predictor()
    return _predictors[key]


def _absolute(name: str) -> str:
    return os.path.abspath(name) if Path(name).exists() else name  # noqa: PTH100 (a link stays a link)


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
