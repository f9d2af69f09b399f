"""Let the clock jump: in a running command, and in the times of files between a kill and the resumed run."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults_commands import Case, differing, working_folder
from faults_disk import Place, run_until_kept
from faults_kills import kill

JUMPING = '''"""A clock that jumps by up to ten days, back and forth, whenever it is read."""
import random, time
_time, _time_ns, _chance = time.time, time.time_ns, random.Random()
time.time = lambda: _time() + _chance.uniform(-864000, 864000)
time.time_ns = lambda: _time_ns() + int(_chance.uniform(-864000, 864000) * 1e9)
'''

DAY_S = 86400
MOMENTS = {"past": 10 * DAY_S, "future": time.time() + 3650 * DAY_S}


@contextmanager
def file_times(files: Iterator[Path] | list[Path], moment_s: float) -> Iterator[None]:
    """Files that seem to be written at some moment, with their own times again afterwards."""
    known = {path: path.stat() for path in files}
    for path in known:
        os.utime(path, (moment_s, moment_s))
    yield
    for path, stat in known.items():
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def jumping_clocks(place: Place, inputs: list[Path]) -> Iterator[Case]:
    """A run with a jumping clock, killed, its files put into the past or the future, and resumed with that clock."""
    site = place.parent / "clock"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(JUMPING)
    environment = {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}
    for name, moment in MOMENTS.items():
        with working_folder(place.parent) as folder, file_times(inputs, moment):
            case = Case("clock jumps", place.command.name, f"inputs and remains of the {name}")
            process = run_until_kept(place, folder, 1, **environment)
            if process.poll() is None:
                time.sleep(0.3)
            kill(process, group=True)
            case.details = {"kept": place.command.kept(folder)}
            for path in folder.rglob("*"):
                os.utime(path, (moment, moment))
            done = place.run(folder, *place.overwrite(), "--resume", **environment)
            case.details["code"] = done.code
            case.lost += [f"ended with {done.code}: {done.err[-500:]}"] if done.code else []
            case.lost += differing(place.command, place.reference, folder)
            yield case


def shifted_clocks(place: Place) -> Iterator[Case]:
    """The whole process in another year, for all its libraries, where `faketime` is installed."""
    faketime = shutil.which("faketime")
    for shift in ("-400 days", "+400 days"):
        case = Case("clock jumps", place.command.name, f"faketime {shift}")
        if faketime is None:
            case.skipped = "needs the program faketime"
        else:
            with working_folder(place.parent) as folder:
                kill(run_until_kept(place, folder, 1), group=True)
                from faults_commands import run

                call = [faketime, "-f", shift.replace(" days", "d"), *place.command.call(folder, "--resume")]
                done = run(call, place.said)
                case.lost += [f"ended with {done.code}: {done.err[-500:]}"] if done.code else []
                case.lost += differing(place.command, place.reference, folder)
        yield case
