"""Spread the windows of scenes over the workers of a Dask cluster; parts and masks are those of a serial run."""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from glraster.cluster.client import AHEAD, Cluster, Patience
from glraster.cluster.worker import absolute, as_json
from glraster.errors import ClusterError
from glraster.process import peak_memory_bytes
from glraster.segmentation.job import Job, Role
from glraster.segmentation.journal import RUN_FILE
from glraster.segmentation.parts import Parts
from glraster.segmentation.stores import Store
from glraster.segmentation.windows import Place, WindowCounts, missing_places
from glraster.segmentation.worker import Finished, WindowsTask, call_of, compute, describe

log = logging.getLogger(__name__)

OF_WORKER = ("device", "batch", "precision")
"""What a fingerprint says of the machine that computes; the client need not have it."""

_LONGEST_TASK, _ROUNDS = 8, 4
"""Windows of a task, at most; tasks that a worker's share is cut into, at least."""

_TICK_S, _SEEN_S = 1.0, 30.0
"""Pause between two looks at the cluster; patience with a shared folder's cache."""

_ADVICE = "use a smaller --batch or --tile"


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


class WindowCrew:
    """The workers of a cluster at the windows of one scene; `windows.ThisProcess` computes them here.

    `peak_memory_bytes` is the most that this process or a worker's has held so far.
    """

    role: Role = "client"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._peak = 0

    @property
    def peak_memory_bytes(self) -> int:
        return max(self._peak, peak_memory_bytes())

    def describe(self, fingerprint: Mapping[str, object]) -> str:
        """What computes, for a report."""
        return f"{len(self._cluster.workers)} x {fingerprint['device']}"

    def fingerprint(self, job: Job) -> dict[str, object]:
        """The fingerprint of a job whose windows the workers compute: a device is theirs, all else is as here.

        Raises:
            ClusterError: where workers differ from each other or from this process, or do not see what they need.
        """
        here = as_json(job.fingerprint())

        def wanted(found: Mapping[str, object]) -> dict[str, object]:
            return {**here, **{key: found[key] for key in OF_WORKER}}

        key = (job.model, job.plan.tiles, job.options.device, job.options.batch, job.options.precision)
        return wanted(self._cluster.agreed(key, (describe, call_of(job)), wanted))

    def compute(
        self, job: Job, parts: Parts, fingerprint: Mapping[str, object], report: Callable[[int, int], None]
    ) -> WindowCounts:
        """Have every part computed that is missing; see `windows.compute_parts`.

        Args:
            job: what is to be computed.
            parts: where parts are, and go; a store that all workers see under its name.
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
        with _announced(parts.store) as token:
            task = WindowsTask(call_of(job), fingerprint, absolute(parts.store.name), token, ())
            try:
                self._compute(run, task, report)
            finally:
                self._cluster.forget(run.in_flight)
            _wait_until_seen(job, parts, missing)
        seconds = time.perf_counter() - started
        busy = run.counts.busy_s / max(1, len(run.workers))
        found = replace(run.counts, reused=counts.reused, seconds=seconds, busy_s=busy)
        log.info("%d workers waited %.1f %% of %.1f s", len(run.workers), 100 * found.wait_share, seconds)
        return found

    def _compute(self, run: _Run, task: WindowsTask, report: Callable[[int, int], None]) -> None:
        patience = Patience(self._cluster)
        while run.waiting or run.in_flight:
            workers = patience.workers()
            while run.waiting and len(run.in_flight) < AHEAD * workers:
                self._submit(run, task, workers)
            try:
                future = run.ended.get(timeout=_TICK_S)
            except queue.Empty:
                report(run.counts.done + run.counts.skipped, run.total)
                continue
            windows = run.in_flight.pop(future)
            finished: Finished = self._cluster.result(future, f"{windows} windows", _ADVICE)
            run.counts = run.counts.plus(finished.counts)
            run.workers.add(finished.worker)
            self._peak = max(self._peak, finished.peak_memory_bytes)
            report(run.counts.done + run.counts.skipped, run.total)

    def _submit(self, run: _Run, task: WindowsTask, workers: int) -> None:
        """Long tasks first, so that a worker reads ahead; short ones at the end, so that all end together."""
        length = max(1, min(_LONGEST_TASK, len(run.waiting) // (_ROUNDS * workers)))
        places = tuple(run.waiting.popleft() for _ in range(length))
        run.tasks += 1
        future = self._cluster.submit(compute, replace(task, places=places), f"windows-{task.token}-{run.tasks}")
        run.in_flight[future] = length
        future.add_done_callback(run.ended.put)


@contextmanager
def _announced(store: Store) -> Iterator[str]:
    """Let workers write parts into a store as long as this run wants them."""
    token = uuid4().hex
    store.write(RUN_FILE, token.encode())
    try:
        yield token
    finally:
        store.remove([RUN_FILE])


def _wait_until_seen(job: Job, parts: Parts, places: list[Place]) -> None:
    """Wait for a network file system to show what other machines wrote."""
    until = time.monotonic() + _SEEN_S
    while unseen := missing_places(job, parts, places):
        if time.monotonic() > until:
            raise ClusterError(
                f"{parts.store.name}: {len(unseen)} parts that workers wrote are not there; write the output to a "
                "folder that all workers share under one name, or give --parts"
            )
        parts.store.files()  # makes NFS ask anew
        time.sleep(_TICK_S)
