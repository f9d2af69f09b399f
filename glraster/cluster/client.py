"""The workers of a Dask cluster: reach or start them, hand them tasks, and say in one line what goes wrong there."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any, Generic
from uuid import uuid4

from glraster.cluster.worker import Call, Fingerprint, Opening, Work, check_agreement, describe, run
from glraster.errors import ClusterError, GlrasterError, UsageError
from glraster.process import keep_freed_memory
from glraster.runner import Result, Source, Task

SCHEDULER_S, WORKERS_S = 10, 60
"""Seconds to wait for an answer of a scheduler, and for a worker."""

START_S, STOP_S, CONNECT_S = 120, 20, 10
"""Seconds that processes started here may take to start, to end, and to answer a call."""

_ANSWER_S = 180
"""Seconds for a worker's first answer, for which it loads all libraries: on a busy machine they take a minute."""

TICK_S, _ASKED, _REACH_S = 1.0, 8, 2.0
"""Pause between two looks at the cluster; workers asked how they compute; patience with a worker's own port."""

AHEAD = 2
"""Tasks per worker that are under way, or done and not yet fetched."""


def _nothing() -> None: ...


@contextmanager
def connected(scheduler: str | None = None, workers: int | None = None, gpus: int = 0) -> Iterator[Cluster]:
    """Connect to a Dask cluster, or start one on this machine.

    Args:
        scheduler: address of a running scheduler, as tcp://host:8786.
        workers: processes to start here, instead.
        gpus: of this machine, over which these processes are spread; with 0 they share the CPU's cores.

    Raises:
        UsageError: if both or neither of scheduler and workers are given, or dask is not installed.
        ClusterError: if the scheduler cannot be reached, or has no worker, within a bounded time.
    """
    if (scheduler is None) == (workers is None):
        raise UsageError("give either --scheduler or --workers")
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise UsageError("--scheduler and --workers need dask; install it with pip install 'glraster[dask]'") from error
    for logger in ("distributed", "distributed.client"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)  # errors are raised here, in one line
    if workers is None:
        with _client(str(scheduler)) as cluster:
            yield cluster
    else:
        with _local_cluster(workers, gpus) as address, _client(address) as cluster:
            cluster.call_in_every_process(keep_freed_memory)  # these processes are glraster's own
            yield cluster


@contextmanager
def _client(name: str) -> Iterator[Cluster]:
    from distributed import Client

    try:
        client = Client(name, timeout=SCHEDULER_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError, ImportError) as error:
        raise ClusterError(
            f"{name}: no scheduler can be reached there ({error}); start one with 'dask scheduler', or use "
            "--workers for processes of this machine"
        ) from error
    try:
        try:
            client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError as error:
            raise ClusterError(
                f"{name}: has had no worker for {WORKERS_S} s; start some with 'dask worker {name}'"
            ) from error
        yield Cluster(client, name)
    finally:
        with suppress(TimeoutError):
            client.close(timeout=2)


@contextmanager
def _local_cluster(workers: int, gpus: int) -> Iterator[str]:
    """A scheduler and `workers` processes that listen on loopback only, and the address of the scheduler."""
    if workers < 1:
        raise UsageError(f"--workers {workers} must be at least 1")
    import dask
    from distributed import LocalCluster

    with (
        TemporaryDirectory(prefix="glraster-", ignore_cleanup_errors=True) as folder,
        dask.config.set({"distributed.comm.timeouts.connect": CONNECT_S}),
    ):
        started = time.monotonic()
        cluster = LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            memory_limit=0,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            local_directory=folder,
            silence_logs=logging.CRITICAL,
            death_timeout=START_S,
        )
        try:
            for i in range(workers):
                options = cluster.new_spec["options"] | {"env": process_environment(i, workers, gpus)}
                cluster.worker_spec[i] = cluster.new_spec | {"options": options}
            cluster.scale(workers)
            try:
                cluster.wait_for_workers(workers, timeout=START_S)
            except TimeoutError as error:
                seconds = round(time.monotonic() - started)
                raise ClusterError(
                    f"--workers {workers}: the processes do not start in {seconds} s; try fewer"
                ) from error
            yield cluster.scheduler_address
        finally:
            with suppress(TimeoutError, OSError):
                cluster.close(timeout=STOP_S)


def process_environment(index: int, processes: int, gpus: int) -> dict[str, str]:
    """What the environment of one of some processes adds: its GPU, or its number of threads.

    Threads are those that `OMP_NUM_THREADS` says here, or else the process's share of the cores.
    """
    if gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        own = index % gpus
        return {"CUDA_VISIBLE_DEVICES": visible[own] if len(visible) == gpus and visible[0] else str(own)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // processes))}


class Cluster:
    """The workers of a Dask cluster, for any number of scenes or masks, one after another or at once."""

    def __init__(self, client: Any, name: str) -> None:
        self.name = name
        self._client = client
        self._fingerprints: dict[Hashable, Fingerprint] = {}
        self._asking = threading.Lock()

    @property
    def workers(self) -> list[str]:
        """Addresses of the workers.

        Raises:
            ClusterError: if the scheduler is gone.
        """
        try:
            if self._client.status == "running":
                return sorted(self._client.nthreads())
        except (OSError, TimeoutError):
            pass
        raise self._gone()

    def call_in_every_process(self, function: Callable[[], object]) -> None:
        """Call a function of a module once in every worker's process, also in those that start later."""
        self._client.register_worker_callbacks(function)

    def _gone(self) -> ClusterError:
        return ClusterError(f"{self.name}: the scheduler is gone; start it again and repeat the call with --resume")

    def agreed(
        self,
        opening: Opening[Call, Source],
        expected: Fingerprint,
        of_workers: Sequence[str] = (),
        key: Hashable = None,
    ) -> dict[str, object]:
        """The fingerprint that all workers have, by some of them that are asked now; every task compares it again.

        Args:
            opening: what the results depend on.
            expected: the fingerprint in this process.
            of_workers: entries that workers decide, such as their device; all must have those of the first one.
            key: workers are asked once for every key, as these entries may be the same for many openings.

        Raises:
            ClusterError: if workers differ, do not see what they need, or do not answer in time.
        """
        key = opening if key is None else key
        with self._asking:
            if key not in self._fingerprints:
                answers = self._ask(opening)
                first = next(iter(answers.values()))
                for worker, fingerprint in answers.items():
                    check_agreement(worker, fingerprint, {**expected, **{name: first[name] for name in of_workers}})
                self._fingerprints[key] = first
            return {**expected, **{name: self._fingerprints[key][name] for name in of_workers}}

    def _ask(self, opening: Opening[Call, Source]) -> dict[str, Fingerprint]:
        """The fingerprint on some of the workers that are there now."""
        futures = {
            worker: self._client.submit(
                describe, opening, workers=[worker], pure=False, priority=1, key=f"glraster-question-{uuid4().hex}"
            )
            for worker in self.workers[:_ASKED]
        }
        if not futures:
            raise ClusterError(f"{self.name}: has no worker; start some with 'dask worker {self.name}'")
        until = time.monotonic() + _ANSWER_S
        for future in futures.values():
            with suppress(TimeoutError):
                future.exception(timeout=max(0.1, until - time.monotonic()))
        answers = {worker: _answer(worker, future) for worker, future in futures.items() if future.done()}
        if not answers:
            raise ClusterError(f"{self.name}: its workers do not answer within {_ANSWER_S} s; are they busy?")
        return answers

    def submit(self, work: Work[Call, Source], key: str) -> Any:
        """Hand out a task; its Dask future. `key` is its name in Dask's dashboard."""
        return self._client.submit(run, work, key=f"glraster-{key}", pure=False)

    def result(self, future: Any, work: str, advice: str, direct: bool) -> Any:
        """The result of a task, through the scheduler or directly from its worker; errors say `work` and `advice`."""
        from distributed import CancelledError, KilledWorker

        try:
            return self._client.gather(future, direct=direct)
        except KilledWorker as error:
            raise ClusterError(
                f"{self.name}: {work} ended one worker after another, the last {error.last_worker.address}; see its "
                f"log, and if it ran out of memory, {advice}"
            ) from error
        except CancelledError as error:  # what Dask makes of all tasks when it loses the scheduler
            raise self._gone() from error

    def call_off(self, futures: Iterable[Any]) -> None:
        """Call off tasks whose results nobody takes any more."""
        remaining = list(futures)
        if remaining and self._client.status == "running":
            self._client.cancel(remaining)

    def reaches_workers(self) -> bool:
        """Whether this process may connect to a worker's own port, which a firewall or a container may hide."""
        from distributed.comm import parse_host_port

        for worker in self.workers[:1]:
            try:
                with socket.create_connection(parse_host_port(worker.partition("://")[2]), _REACH_S):
                    return True
            except (OSError, ValueError):
                return False
        return False


def _answer(worker: str, future: Any) -> Fingerprint:
    try:
        fingerprint: Fingerprint = future.result()
    except GlrasterError:
        raise
    except (ImportError, AttributeError, TypeError) as error:  # the function or its records are unknown there
        raise ClusterError(
            f"worker {worker}: has no glraster or another version of it ({error}); install the version of this process"
        ) from error
    except Exception as error:  # whatever ends a worker's process, or its library's own errors
        raise ClusterError(f"worker {worker}: cannot work ({error}); see its log") from error
    return fingerprint


@dataclass(frozen=True)
class Workers(Generic[Call, Source]):
    """The workers of a cluster as a `Runner`: what they open, and the fingerprint that it must have there.

    A task whose worker is lost is computed by another.

    Attributes:
        work, advice: what a task is, and what to do if it ends one worker after another; for errors.
        ordered: results come in the order of their tasks; otherwise in that in which tasks end.
        idle: called every second while no result comes.
    """

    cluster: Cluster
    opening: Opening[Call, Source]
    fingerprint: Fingerprint
    work: str
    advice: str
    ordered: bool = True
    idle: Callable[[], None] = _nothing

    def map(self, function: Callable[[Source, Task], Result], tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """See `Runner.map`; functions are those of a module, and tasks can be pickled.

        A result waits on its worker until it is taken and then comes from there directly, or through the scheduler if
        this process does not reach the workers' own ports.

        Raises:
            ClusterError: if the scheduler or all workers are lost, or a task ended one worker after another.
            GlrasterError, OSError: as the function.

        Memory: two results here, the one that was taken last and the next. A worker holds two besides its task.
        """
        remaining, waiting, patience = iter(tasks), set[Any](), _Patience(self.cluster)
        turn: SimpleQueue[Any] = SimpleQueue()  # futures in the order of their results, and None at the end
        direct, fetched = self.cluster.reaches_workers(), None
        pool = ThreadPoolExecutor(1, "glraster fetch")
        try:
            while True:
                for task in islice(remaining, max(0, AHEAD * max(1, patience.workers()) - len(waiting))):
                    waiting.add(self._submit(Work(function, self.opening, self.fingerprint, task), turn))
                if not waiting:
                    return
                fetched = fetched or pool.submit(self._fetch, turn, direct)
                if not wait([fetched], TICK_S).done:
                    self.idle()
                    continue
                future, result = fetched.result()
                waiting.remove(future)
                fetched = pool.submit(self._fetch, turn, direct) if waiting else None
                yield result
                del result  # not held while the next one is waited for
        finally:
            turn.put(None)
            self.cluster.call_off(waiting)
            pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Work[Call, Source], turn: SimpleQueue[Any]) -> Any:
        future = self.cluster.submit(work, f"{self.work.replace(' ', '-')}-{uuid4().hex}")
        if self.ordered:
            turn.put(future)
        else:
            future.add_done_callback(turn.put)
        return future

    def _fetch(self, turn: SimpleQueue[Any], direct: bool) -> tuple[Any, Any]:
        """The future whose turn it is, and its result; None at the end."""
        future = turn.get()
        if future is None:
            return None, None
        return future, self.cluster.result(future, self.work, self.advice, direct)


class _Patience:
    """How long a cluster may be without any worker."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._alone_since: float | None = None

    def workers(self) -> int:
        """How many workers there are now.

        Raises:
            ClusterError: if there have been none for `WORKERS_S`, or the scheduler is gone.
        """
        workers = len(self._cluster.workers)
        self._alone_since = None if workers else self._alone_since or time.monotonic()
        if self._alone_since is not None and time.monotonic() - self._alone_since > WORKERS_S:
            raise ClusterError(f"{self._cluster.name}: has had no worker for {WORKERS_S} s; start some")
        return workers
