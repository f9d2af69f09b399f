"""`dying_run.py MOMENT SIGNAL ARGUMENTS...`: the command line, sent a signal at an exact moment of its work.

MOMENT is METHOD:N, the N-th call of a method of `MOMENTS`: the signal comes before that call does anything.
With LOCKLESS in the environment its file system has no locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
import threading

from glraster_cli.main import main

from glraster.raster.writer import CogWriter
from glraster.segmentation.journal import Journal
from glraster.segmentation.parts import PartFolder
from glraster.segmentation.scenes import SceneOutcome
from glraster.segmentation.windows import WindowCounts

MOMENTS = {
    "part": (PartFolder, "write"),
    "task": (WindowCounts, "plus"),
    "block": (CogWriter, "write"),
    "finish": (CogWriter, "finish"),
    "publish": (CogWriter, "publish"),
    "discard": (Journal, "discard"),
    "scene": (SceneOutcome, "__init__"),
}


def die_at(moment: str, number: int) -> None:
    owner, name = MOMENTS[moment.partition(":")[0]]
    method, left = getattr(owner, name), [int(moment.partition(":")[2])]

    def dying(*arguments: object) -> object:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), number)
            if threading.current_thread() is not threading.main_thread():
                raise KeyboardInterrupt  # the main thread got the signal; here, too, nothing more is to happen
        return method(*arguments)

    setattr(owner, name, dying)


def refuse_locks(_file: object, _how: int) -> None:
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


if __name__ == "__main__":
    if os.environ.get("LOCKLESS"):
        fcntl.flock = refuse_locks
    die_at(sys.argv[1], signal.Signals[sys.argv[2]])
    main(sys.argv[3:])
