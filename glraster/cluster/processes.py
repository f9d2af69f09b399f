"""Start the processes of a Dask cluster on this machine, and end them, within a bounded time."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import Any

from glraster.errors import ClusterError, UsageError

START_S, STOP_S, CONNECT_S = 120, 20, 10
"""Seconds that the processes may take to start and to end (what still runs then is killed) and to answer a call."""


@contextmanager
def local_cluster(workers: int) -> Iterator[str]:
    """A scheduler and `workers` processes that listen on loopback only, and the address of the scheduler.

    Each process has one of the machine's GPUs, or else its share of the cores: as many threads as
    `OMP_NUM_THREADS` says, or the number of cores divided by `workers`.

    Raises:
        UsageError: where `workers` is below 1.
        ClusterError: where they do not start in time.
    """
    if workers < 1:
        raise UsageError(f"--workers {workers} must be at least 1")
    import dask

    with (
        TemporaryDirectory(prefix="glraster-", ignore_cleanup_errors=True) as folder,
        dask.config.set({"distributed.comm.timeouts.connect": CONNECT_S}),
    ):
        try:
            cluster = _processes(workers, folder)
        except (RuntimeError, OSError, TimeoutError) as error:
            raise ClusterError(f"--workers {workers}: the processes do not start ({error}); try fewer") from error
        try:
            yield cluster.scheduler_address
        finally:
            _stop(cluster)


def _processes(workers: int, folder: str) -> Any:
    from distributed import Nanny, Scheduler, SpecCluster

    shared: dict[str, Any] = {
        "nthreads": 1,
        "memory_limit": 0,
        "host": "127.0.0.1",
        "local_directory": folder,
        "silence_logs": logging.ERROR,
        "death_timeout": START_S,
    }
    spec = {i: {"cls": Nanny, "options": shared | {"env": _environment(i, workers)}} for i in range(workers)}
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"},
    }
    return SpecCluster(workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL)


def _stop(cluster: Any) -> None:
    nannies = list(cluster.workers.values())
    try:
        cluster.close(timeout=STOP_S)
    except (TimeoutError, OSError):
        for nanny in nannies:
            with suppress(OSError):
                if nanny.pid:
                    os.kill(nanny.pid, signal.SIGKILL)


def _environment(index: int, workers: int) -> dict[str, str]:
    """Environment of one of the processes: its GPU, or its number of threads."""
    gpus = _gpus()
    if gpus:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        mine = index % gpus
        return {"CUDA_VISIBLE_DEVICES": seen[mine] if len(seen) == gpus and seen[0] else str(mine)}
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, _cores() // workers)
    return {"OMP_NUM_THREADS": str(threads)}


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
