"""The command line in a process of its own, which gets a signal at an exact moment of its work."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

_LIBRARIES = ["pytest", "distributed", "glraster.segmentation.scenes", "glraster_cli.segment", "segmentation.dying_run"]
"""What the server of the processes loads once for all of them: alone it takes longer than most of the runs."""


@dataclass(frozen=True)
class Ended:
    """How a process ended, as `subprocess` says it, and what it printed."""

    returncode: int | None
    stdout: str
    stderr: str


def dying_run(
    moment: str, *arguments: object, name: str = "SIGKILL", environment: Mapping[str, str] | None = None
) -> Ended:
    """Run the command line until a moment of its work.

    Args:
        moment: METHOD:N, the N-th call of a method of `moments`: the signal comes before that call does anything.
        arguments: of the command line.
        name: of the signal.
        environment: of the process, besides that of this one; with LOCKLESS its file system has no locks.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LIBRARIES)
    with TemporaryDirectory() as folder:
        printed = [Path(folder) / "stdout", Path(folder) / "stderr"]
        call = (moment, name, [str(part) for part in arguments], dict(environment or {}), printed, Path.cwd())
        process = context.Process(target=_run, args=call)
        process.start()
        process.join()
        return Ended(process.exitcode, *(path.read_text() for path in printed))


def _run(
    moment: str, name: str, arguments: list[str], environment: dict[str, str], printed: list[Path], folder: Path
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    for number, path in enumerate(printed, start=1):
        with path.open("wb") as stream:
            os.dup2(stream.fileno(), number)
    if os.environ.get("LOCKLESS"):
        fcntl.flock = _refuse_locks
    _die_at(moment, signal.Signals[name])
    from glraster_cli.main import main

    sys.argv = ["glraster", *arguments]
    main(arguments)


def _die_at(moment: str, number: int) -> None:
    from glraster.raster.writer import CogWriter
    from glraster.segmentation.journal import Journal
    from glraster.segmentation.parts import PartFolder
    from glraster.segmentation.scenes import SceneOutcome
    from glraster.segmentation.windows import WindowCounts

    moments = {
        "part": (PartFolder, "write"),
        "task": (WindowCounts, "plus"),
        "block": (CogWriter, "write"),
        "finish": (CogWriter, "finish"),
        "publish": (CogWriter, "publish"),
        "discard": (Journal, "discard"),
        "scene": (SceneOutcome, "__init__"),
    }
    event, _, count = moment.partition(":")
    owner, attribute = moments[event]
    method, left = getattr(owner, attribute), [int(count)]

    def dying(*arguments: object, **keywords: object) -> object:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), number)
            if threading.current_thread() is not threading.main_thread():
                raise KeyboardInterrupt  # the main thread got the signal; here, too, nothing more is to happen
        return method(*arguments, **keywords)

    setattr(owner, attribute, dying)


def _refuse_locks(_file: object, _how: int) -> None:
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")
