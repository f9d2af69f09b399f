"""The workers of a Dask cluster: reach them, hand them tasks, and tell in one line what goes wrong there."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any
from uuid import uuid4

from glraster.cluster.processes import local_cluster
from glraster.cluster.worker import hold_to
from glraster.errors import ClusterError, GlrasterError, UsageError
from glraster.process import keep_freed_memory

SCHEDULER_S, WORKERS_S = 10, 60
"""Seconds to wait for an answer of a scheduler, and for a worker."""

_ANSWER_S = 180
"""Seconds for a worker's first answer, for which it loads all libraries: on a busy machine they take a minute."""

_TICK_S, _ASKED, _REACH_S = 1.0, 8, 2.0
"""Pause between two looks at the cluster; workers asked how they compute; patience with a worker's own port."""

AHEAD = 2
"""Tasks per worker that are under way, or done and not yet fetched."""


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
        import distributed  # noqa: F401
    except ImportError as error:
        raise UsageError("--scheduler and --workers need dask; install it with pip install 'glraster[dask]'") from error
    for logger in ("distributed", "distributed.client"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)  # what goes wrong is told here, once
    if workers is None:
        with _client(str(scheduler)) as cluster:
            yield cluster
    else:
        with local_cluster(workers) as address, _client(address) as cluster:
            cluster.run(keep_freed_memory)  # these processes are glraster's own
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


class Cluster:
    """The workers of a Dask cluster, for any number of scenes or masks, one after another or at once."""

    def __init__(self, client: Any, name: str) -> None:
        self.name = name
        self._client = client
        self._answers: dict[Hashable, dict[str, object]] = {}
        self._asking = threading.Lock()

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

    def run(self, function: Callable[[], object]) -> None:
        """Call a function once in every process of the workers that are there."""
        self._client.run(function)

    def _gone(self) -> ClusterError:
        return ClusterError(f"{self.name}: the scheduler is gone; start it again and repeat the call with --resume")

    def submit(self, function: Callable[[Any], Any], task: object, key: str) -> Any:
        """Hand out a task; its Dask future. `key` names the task, which is computed once."""
        return self._client.submit(function, task, key=f"glraster-{key}", pure=False)

    def result(self, future: Any, work: str, advice: str, direct: bool = False) -> Any:
        """What a task found: from the scheduler, or straight from its worker.

        Args:
            future: of `submit`; waited for where it is not done.
            work: what the task was, for an error.
            advice: what to do where it ended one worker after another.

        Raises:
            ClusterError: where it did, or the scheduler is gone.
            GlrasterError: as the function.
        """
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

    def forget(self, futures: Iterable[Any]) -> None:
        """Call off tasks that nobody waits for any more."""
        given_up = list(futures)
        if given_up and self._client.status == "running":
            self._client.cancel(given_up)

    def in_order(
        self, function: Callable[[Any], Any], tasks: Iterable[object], work: str, advice: str
    ) -> Generator[Any, None, None]:
        """Results of a function for tasks, in the order of the tasks, which are drawn as the results are taken.

        A result waits on its worker for its turn and then comes from there directly, or through the scheduler where
        this process does not reach the workers' own ports. A task whose worker is lost is computed by another.

        Args:
            function: what a worker does with a task.
            tasks: what can be pickled.
            work, advice: see `result`.

        Memory: two results here, the one that was taken last and the next. A worker holds two besides its task.
        """
        source, waiting, patience = iter(tasks), deque[Any](), Patience(self)
        run, direct, number, fetched = uuid4().hex, self._reaches_workers(), 0, None
        pool = ThreadPoolExecutor(1, "glraster fetch")
        try:
            while True:
                room = max(1, AHEAD * patience.workers()) - len(waiting)
                for task in islice(source, max(0, room)):
                    number += 1
                    waiting.append(self.submit(function, task, f"{work.replace(' ', '-')}-{run}-{number}"))
                if not waiting:
                    return
                if fetched is None:
                    fetched = pool.submit(self.result, waiting[0], work, advice, direct)
                if not wait([fetched], _TICK_S).done:
                    continue
                found = fetched.result()
                waiting.popleft()
                fetched = pool.submit(self.result, waiting[0], work, advice, direct) if waiting else None
                yield found
                del found  # not held while the next one is waited for
        finally:
            self.forget(waiting)
            pool.shutdown(wait=False, cancel_futures=True)

    def _reaches_workers(self) -> bool:
        """Whether this process may connect to a worker's own port, which a firewall or a container may hide."""
        from distributed.comm import parse_host_port

        for worker in self.workers[:1]:
            try:
                with socket.create_connection(parse_host_port(worker.partition("://")[2]), _REACH_S):
                    return True
            except (OSError, ValueError):
                return False
        return False

    def agreed(
        self,
        key: Hashable,
        question: tuple[Callable[[Any], dict[str, object]], object],
        wanted: Callable[[Mapping[str, object]], Mapping[str, object]],
    ) -> dict[str, object]:
        """The answer of some workers, asked once for each key, if it is as `wanted` makes it of the first one's.

        Args:
            key: of the question; the same question for another scene may have the same key.
            question: a function and what it is called with.
            wanted: the answer that all must give.

        Raises:
            ClusterError: where workers answer otherwise, do not see what they need, or do not answer in time.
        """
        with self._asking:
            if key not in self._answers:
                answers = self._ask(*question)
                first = next(iter(answers.values()))
                for worker, found in answers.items():
                    hold_to(worker, found, wanted(first))
                self._answers[key] = first
            return self._answers[key]

    def _ask(self, function: Callable[[Any], dict[str, object]], call: object) -> dict[str, dict[str, object]]:
        """How the workers compute: the answers of some that are there now; all are held to it with every task."""
        asked = {
            worker: self._client.submit(
                function, call, workers=[worker], pure=False, priority=1, key=f"glraster-question-{uuid4().hex}"
            )
            for worker in self.workers[:_ASKED]
        }
        if not asked:
            raise ClusterError(f"{self.name}: has no worker; start some with 'dask worker {self.name}'")
        until = time.monotonic() + _ANSWER_S
        for future in asked.values():
            with suppress(TimeoutError):
                future.exception(timeout=max(0.1, until - time.monotonic()))
        answers = {worker: _answer(worker, future) for worker, future in asked.items() if future.done()}
        if not answers:
            raise ClusterError(f"{self.name}: its workers do not answer within {_ANSWER_S} s; are they busy?")
        return answers


class Patience:
    """How long a cluster may be without any worker."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._alone_since: float | None = None

    def workers(self) -> int:
        """How many workers there are now.

        Raises:
            ClusterError: where there have been none for `WORKERS_S`, or the scheduler is gone.
        """
        found = len(self._cluster.workers)
        self._alone_since = None if found else self._alone_since or time.monotonic()
        if self._alone_since is not None and time.monotonic() - self._alone_since > WORKERS_S:
            raise ClusterError(f"{self._cluster.name}: has had no worker for {WORKERS_S} s; start some")
        return found


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
