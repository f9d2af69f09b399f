"""Choose the compute device and number format, and say what the device is."""

from __future__ import annotations

from typing import Literal

import torch

from glraster.errors import DeviceError

Precision = Literal["auto", "float32", "bfloat16"]

SAFE_AGREEMENT = 0.99
"""Share of pixels whose label bfloat16 must leave as it is for `auto` to choose it."""

_CPU_BATCH, _GPU_BATCH = 2, 16
_USUAL_TILE, _MOST_TIMES = 508, 4
"""Side of the tiles for which these batches are meant, and how many times as many smaller tiles are taken."""


class DeviceMemoryError(DeviceError):
    """A batch does not fit the device's memory."""


def choose_device(name: str) -> torch.device:
    """The device called `name`: auto (a GPU if there is one), cpu, cuda, cuda:1, mps.

    Raises:
        DeviceError: if it is unknown or absent.
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


def choose_batch(batch: int | None, device: torch.device, tile_px: int = _USUAL_TILE) -> int:
    """Tiles that go through the network together: `batch`, else as many pixels as suit the device.

    Args:
        batch: of the user; None chooses.
        device: that computes.
        tile_px: side of a tile.
    """
    usual = _CPU_BATCH if device.type == "cpu" else _GPU_BATCH
    return batch or max(1, min(usual * _MOST_TIMES, round(usual * (_USUAL_TILE / tile_px) ** 2)))


def choose_precision(precision: Precision, device: torch.device, agreement: float | None) -> torch.dtype:
    """The number format of convolutions.

    Args:
        precision: `auto` is bfloat16 if the device computes in it and the labels stay the same.
        device: that computes.
        agreement: the share of pixels whose label stays the same, see `ModelSpec.bfloat16_agreement`.
    """
    if precision == "auto":
        safe = agreement is not None and agreement >= SAFE_AGREEMENT
        return torch.bfloat16 if safe and computes_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device has bfloat16 in hardware: AVX512_BF16 or AMX of a CPU, CUDA capability 8."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    # these names of torch are private: without them the answer is no, and results stay as exact as ever
    questions = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(ask()) for ask in questions if ask is not None)
