"""Run the command line in a process with little memory and little time, as a guard against hostile input."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ADDRESSES = 6 * 2**30
"""Bytes of address space: libraries reserve far more than they use."""


@dataclass(frozen=True)
class Ended:
    """How a process ended, what it said, and its largest resident set in bytes."""

    code: int
    out: str
    err: str
    memory_bytes: int


_SCRIPT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from glraster_cli.main import main
try:
    main(sys.argv[1:])
finally:
    # not getrusage: a process inherits its parent's record there
    peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(*peak, file=open("{memory}", "w"))
"""


def confined(folder: Path, *arguments: object, seconds: float = 120) -> Ended:
    """`glraster ARGUMENTS` in a process of its own.

    Raises:
        subprocess.TimeoutExpired: where it takes longer.
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("this system tells no process its peak memory")
    memory = folder / "peak-memory"
    script = _SCRIPT.format(limit=ADDRESSES, memory=memory)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    kilobytes = int(memory.read_text()) if memory.exists() else 0
    memory.unlink(missing_ok=True)
    return Ended(done.returncode, done.stdout, done.stderr, kilobytes * 1024)


def assert_one_line(ended: Ended, told: str, code: int = 1, memory_bytes: int = 2**30) -> None:
    """The process told the problem in one line, with that status, within that memory."""
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith("glraster: error: ")
    assert ended.err.count("\n") == 1, ended.err
    assert told in ended.err
    assert ended.memory_bytes < memory_bytes
