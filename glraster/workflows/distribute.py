"""Spread the windows of scenes over the workers of a Dask cluster; parts and masks are those of a serial run."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from glraster.errors import ClusterError, GlrasterError, UsageError
from glraster.infer.device import peak_memory_bytes
from glraster.raster.parts import PartFolder
from glraster.workflows.cluster import SCHEDULER_S, WORKERS_S, local_cluster
from glraster.workflows.prepare import Job, Role
from glraster.workflows.windows import Place, WindowCounts, missing_places
from glraster.workflows.worker import (
    RUN_FILE,
    Finished,
    WindowsTask,
    as_json,
    call_of,
    changed_keys,
    compute,
    describe,
    differ,
)

log = logging.getLogger(__name__)

OF_WORKER = ("device", "batch", "precision")
"""What a fingerprint says of the machine that computes; the client need not have it."""

_TASKS_EACH, _LONGEST_TASK, _ROUNDS = 2, 8, 4
"""Tasks in flight per worker; windows of a task, at most; tasks that a worker's share is cut into, at least."""

_TICK_S, _SEEN_S, _ASKED = 1.0, 30.0, 8
"""Pause between two looks at the cluster; patience with a shared folder's cache; workers asked how they compute."""


@contextmanager
def connected(scheduler: str | None = None, workers: int | None = None) -> Iterator[Cluster]:
    """Connect to a Dask cluster, or start one on this machine.

    Args:
        scheduler: address of a running scheduler, as tcp://host:8786.
        workers: processes to start here, instead; one for each GPU, or a few that share the CPU's cores.

    Raises:
        UsageError: where both or neither are given, or dask is not installed.
        ClusterError: where the scheduler cannot be reached, or has no worker, within a bounded time.
    """
    if (scheduler is None) == (workers is None):
        raise UsageError("give either --scheduler or --workers")
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError("--scheduler and --workers need dask; install it with pip install 'glraster[dask]'") from error
    for logger in ("distributed", "distributed.client"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)  # what goes wrong is told here, once
    with local_cluster(workers) as address:
        name = scheduler or address
        try:
            client = Client(name, timeout=SCHEDULER_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError, ImportError) as error:
            raise ClusterError(
                f"{name}: no scheduler can be reached there ({error}); start one with 'dask scheduler', or use "
                "--workers for processes of this machine"
            ) from error
        try:
            client.wait_for_workers(1, timeout=WORKERS_S)
            yield Cluster(client, name)
        except TimeoutError as error:
            raise ClusterError(
                f"{name}: has had no worker for {WORKERS_S} s; start some with 'dask worker {name}'"
            ) from error
        finally:
            client.close(timeout=2)


@dataclass
class _Run:
    """What a run keeps while its windows are computed."""

    waiting: deque[Place]
    total: int
    in_flight: dict[Any, int] = field(default_factory=dict)
    ended: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    counts: WindowCounts = field(default_factory=WindowCounts)
    workers: set[str] = field(default_factory=set)
    tasks: int = 0


class Cluster:
    """The workers of a Dask cluster, for any number of scenes, one after another or at once; see `connected`.

    `peak_memory_bytes` is the most that this process or a worker's has held so far.
    """

    role: Role = "client"

    def __init__(self, client: Any, name: str) -> None:
        self.name = name
        self._peak = 0
        self._client = client
        self._of_worker: dict[tuple[object, ...], dict[str, object]] = {}
        self._asking = threading.Lock()

    @property
    def peak_memory_bytes(self) -> int:
        return max(self._peak, peak_memory_bytes())

    def describe(self, fingerprint: Mapping[str, object]) -> str:
        """What computes, for a report."""
        return f"{len(self.workers)} x {fingerprint['device']}"

    @property
    def workers(self) -> list[str]:
        """Addresses of the workers.

        Raises:
            ClusterError: where the scheduler is gone.
        """
        try:
            if self._client.status == "running":
                return sorted(self._client.nthreads())
        except (OSError, TimeoutError):
            pass
        raise self._gone()

    def _gone(self) -> ClusterError:
        return ClusterError(f"{self.name}: the scheduler is gone; start it again and repeat the call with --resume")

    def fingerprint(self, job: Job) -> dict[str, object]:
        """The fingerprint of a job whose windows the workers compute: a device is theirs, all else is as here.

        Raises:
            ClusterError: where workers differ from each other or from this process, or do not see what they need.
        """
        here = as_json(job.fingerprint())
        key = (job.model, job.plan.tiles, job.options.device, job.options.batch, job.options.precision)
        with self._asking:
            if key not in self._of_worker:
                self._of_worker[key] = self._ask(job, here)
            return {**here, **self._of_worker[key]}

    def compute(
        self, job: Job, parts: PartFolder, fingerprint: Mapping[str, object], report: Callable[[int, int], None]
    ) -> WindowCounts:
        """Have every part computed that is missing; see `windows.compute_parts`.

        Args:
            job: what is to be computed.
            parts: where parts are, and go; a folder that all workers see under its absolute name.
            fingerprint: of the run, see `fingerprint`.
            report: called after every task, and every second, with the numbers of windows done and to do.

        Raises:
            ClusterError: where the scheduler or all workers are lost, or one task ended several workers.
            GlrasterError: as the serial run.

        Memory: the places of the windows. A worker holds a network and three windows.
        """
        missing = missing_places(job, parts, job.plan.wanted)
        counts = WindowCounts(reused=len(job.plan.wanted) - len(missing))
        if not missing:
            return counts
        run, started = _Run(deque(missing), len(missing)), time.perf_counter()
        with _announced(parts.path) as token:
            task = WindowsTask(call_of(job), fingerprint, parts.path.absolute(), token, ())
            try:
                self._compute(run, task, report)
            finally:
                self._forget(run)
            _wait_until_seen(job, parts, missing)
        seconds = time.perf_counter() - started
        busy = run.counts.busy_s / max(1, len(run.workers))
        found = replace(run.counts, reused=counts.reused, seconds=seconds, busy_s=busy)
        log.info("%d workers waited %.1f %% of %.1f s", len(run.workers), 100 * found.wait_share, seconds)
        return found

    def _compute(self, run: _Run, task: WindowsTask, report: Callable[[int, int], None]) -> None:
        alone_since: float | None = None
        while run.waiting or run.in_flight:
            workers = len(self.workers)
            alone_since = None if workers else alone_since or time.monotonic()
            if alone_since is not None and time.monotonic() - alone_since > WORKERS_S:
                raise ClusterError(f"{self.name}: has had no worker for {WORKERS_S} s; start some")
            while run.waiting and len(run.in_flight) < _TASKS_EACH * workers:
                self._submit(run, task, workers)
            try:
                future = run.ended.get(timeout=_TICK_S)
            except queue.Empty:
                report(run.counts.done + run.counts.skipped, run.total)
                continue
            windows = run.in_flight.pop(future)
            finished = self._result(future, windows)
            run.counts = run.counts.plus(finished.counts)
            run.workers.add(finished.worker)
            self._peak = max(self._peak, finished.peak_memory_bytes)
            report(run.counts.done + run.counts.skipped, run.total)

    def _submit(self, run: _Run, task: WindowsTask, workers: int) -> None:
        """Long tasks first, so that a worker reads ahead; short ones at the end, so that all end together."""
        length = max(1, min(_LONGEST_TASK, len(run.waiting) // (_ROUNDS * workers)))
        places = tuple(run.waiting.popleft() for _ in range(length))
        run.tasks += 1
        key = f"glraster-windows-{task.token}-{run.tasks}"
        future = self._client.submit(compute, replace(task, places=places), key=key, pure=False)
        run.in_flight[future] = length
        future.add_done_callback(run.ended.put)

    def _result(self, future: Any, windows: int) -> Finished:
        from distributed import CancelledError, KilledWorker

        try:
            finished: Finished = future.result()
        except KilledWorker as error:
            raise ClusterError(
                f"{self.name}: {windows} windows ended one worker after another, the last {error.last_worker.address}; "
                "see its log, and if it ran out of memory, use a smaller --batch or --tile"
            ) from error
        except CancelledError as error:  # what Dask makes of all tasks when it loses the scheduler
            raise self._gone() from error
        return finished

    def _forget(self, run: _Run) -> None:
        if run.in_flight and self._client.status == "running":
            self._client.cancel(list(run.in_flight))

    def _ask(self, job: Job, here: dict[str, object]) -> dict[str, object]:
        """How the workers compute: the answers of some that are there now; all are held to it with every task."""
        asked = {
            worker: self._client.submit(
                describe, call_of(job), workers=[worker], pure=False, priority=1, key=f"glraster-describe-{uuid4().hex}"
            )
            for worker in self.workers[:_ASKED]
        }
        if not asked:
            raise ClusterError(f"{self.name}: has no worker; start some with 'dask worker {self.name}'")
        until = time.monotonic() + WORKERS_S
        for future in asked.values():
            with suppress(TimeoutError):
                future.exception(timeout=max(0.1, until - time.monotonic()))
        if not any(future.done() for future in asked.values()):
            raise ClusterError(f"{self.name}: its workers do not answer within {WORKERS_S} s; are they busy?")
        answers = {worker: _answer(worker, future) for worker, future in asked.items() if future.done()}
        _, first = next(iter(answers.items()))
        wanted = {**here, **{key: first[key] for key in OF_WORKER}}
        for worker, found in answers.items():
            if changed := changed_keys(found, wanted):
                raise differ(worker, found, wanted, changed)
        return {key: first[key] for key in OF_WORKER}


def _answer(worker: str, future: Any) -> dict[str, object]:
    try:
        found: dict[str, object] = future.result()
    except GlrasterError:
        raise
    except (ImportError, AttributeError, TypeError) as error:  # the function or its records are unknown there
        raise ClusterError(
            f"worker {worker}: has no glraster or another version of it ({error}); install the version of this process"
        ) from error
    except Exception as error:  # whatever ends a worker's process, or its library's own errors
        raise ClusterError(f"worker {worker}: cannot work ({error}); see its log") from error
    return found


@contextmanager
def _announced(folder: Path) -> Iterator[str]:
    """Let workers write parts into a folder as long as this run wants them."""
    token, file = uuid4().hex, folder / RUN_FILE
    with file.open("w") as stream:
        stream.write(token)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        yield token
    finally:
        file.unlink(missing_ok=True)


def _wait_until_seen(job: Job, parts: PartFolder, places: list[Place]) -> None:
    """Wait for a network file system to show what other machines wrote."""
    until = time.monotonic() + _SEEN_S
    while unseen := missing_places(job, parts, places):
        if time.monotonic() > until:
            raise ClusterError(
                f"{parts.path}: {len(unseen)} parts that workers wrote are not there; write the output to a "
                "folder that all workers share under one name"
            )
        list(parts.path.iterdir())  # makes NFS ask anew
        time.sleep(_TICK_S)
