"""Ask the operating system about this process, and tell the C library how to keep its memory."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from pathlib import Path

import psutil

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = (1 << 30, 32 << 20)
"""Sizes up to which freed blocks are kept; what the newer and the older versions of glibc accept."""

_STATUS = Path("/proc/self/status")


def peak_memory_bytes() -> int:
    """The most memory this process has held resident so far; what it holds now if the system keeps no record of it."""
    memory = psutil.Process().memory_info()
    peak: int = getattr(memory, "peak_wset", 0)  # Windows
    with suppress(OSError):  # psutil leaves out what Linux says
        match = re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        peak = 1024 * int(match[1]) if match else peak
    return max(peak, memory.rss)


def keep_freed_memory() -> bool:
    """Let the C library keep large blocks that were freed, for the next map of the same size.

    glibc gives them back at once, and the system clears every page of a new one: a tenth of the time of a segmentation
    on a CPU. The setting holds for the whole process, so only a process of glraster's own may call this.

    Returns:
        False if the C library is another one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    accepted = any(mallopt(_M_MMAP_THRESHOLD, size) for size in _KEPT_BYTES)
    return bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES[0])) and accepted
