"""Choose the compute device and number format, and say what the device is."""

from __future__ import annotations

import resource
import sys
from typing import Literal

import torch

from glraster.errors import DeviceError

Precision = Literal["auto", "float32", "bfloat16"]

_CPU_BATCH, _GPU_BATCH = 2, 16


def choose_device(name: str) -> torch.device:
    """The device called `name`: auto (a GPU where there is one), cpu, cuda, cuda:1, mps.

    Raises:
        DeviceError: where it is unknown or absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {name} is not there: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; "
            "use --device cpu, or install a CUDA build of torch"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device mps is not there; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    return device


def describe_device(device: torch.device) -> str:
    """The device for a report: its kind, model and, for the CPU, the number of threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"{device} ({threads} thread{'s' if threads != 1 else ''})" if device.type == "cpu" else str(device)


def choose_batch(batch: int | None, device: torch.device) -> int:
    """Tiles that go through the network together: as asked, else what suits the device."""
    return batch or (_CPU_BATCH if device.type == "cpu" else _GPU_BATCH)


def choose_precision(precision: Precision) -> torch.dtype:
    """The number format of convolutions; `auto` is float32, the one that every model was checked in."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def peak_memory_bytes() -> int:
    """The most memory this process has held resident so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
