"""Start the processes of a Dask cluster on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch

from glraster.errors import UsageError

SCHEDULER_S, WORKERS_S = 10, 60
"""Seconds to wait for an answer of a scheduler, and for a worker."""


@contextmanager
def local_cluster(workers: int | None) -> Iterator[str]:
    """A scheduler and `workers` processes that listen on loopback only; nothing, at no address, where None.

    Each process has one of the machine's GPUs, or else its share of the cores: as many threads as
    `OMP_NUM_THREADS` says, or the number of cores divided by `workers`.

    Raises:
        UsageError: where `workers` is below 1.
    """
    if workers is None:
        yield ""
        return
    if workers < 1:
        raise UsageError(f"--workers {workers} must be at least 1")
    with TemporaryDirectory(prefix="glraster-") as folder, _processes(workers, folder) as cluster:
        yield cluster.scheduler_address


def _processes(workers: int, folder: str) -> Any:
    from distributed import Nanny, Scheduler, SpecCluster

    shared: dict[str, Any] = {
        "nthreads": 1,
        "memory_limit": 0,
        "host": "127.0.0.1",
        "local_directory": folder,
        "silence_logs": logging.ERROR,
    }
    spec = {i: {"cls": Nanny, "options": shared | {"env": _environment(i, workers)}} for i in range(workers)}
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"},
    }
    return SpecCluster(workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL)


def _environment(index: int, workers: int) -> dict[str, str]:
    """Environment of one of the processes: its GPU, or its number of threads."""
    gpus = torch.cuda.device_count()
    if gpus:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        mine = index % gpus
        return {"CUDA_VISIBLE_DEVICES": seen[mine] if len(seen) == gpus and seen[0] else str(mine)}
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, _cores() // workers)
    return {"OMP_NUM_THREADS": str(threads)}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
