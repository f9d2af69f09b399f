"""Take the disk away from a command: full, read-only, or with files that are cut off."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faults_commands import (
    OLDER,
    Case,
    Command,
    Ended,
    Reference,
    differing,
    ended,
    nothing_kept,
    put_older,
    run,
    start,
    torn,
    working_folder,
)
from faults_kills import kill

SIZES_KIB = (64, 256, 1024, 4096, 16384, 65536)
ENOUGH_KIB = 512 * 1024


@dataclass(frozen=True)
class Place:
    """Where a command is tried: its reference, a folder for files, and what it said."""

    command: Command
    reference: Reference
    parent: Path

    @property
    def said(self) -> Path:
        return self.parent / "said"

    def run(self, folder: Path, *options: str, **environment: str) -> Ended:
        return run(self.command.call(folder, *options), self.said, **environment)

    def overwrite(self) -> tuple[str, ...]:
        return ("--overwrite",) if self.command.replaces else ()


def why_no_mounts(folder: Path) -> str:
    """Why this process cannot mount a small disk; empty where it can."""
    with working_folder(folder) as place:
        try:
            with small_disk(place, 64):
                return ""
        except (OSError, subprocess.CalledProcessError):
            return "needs the right to mount a tmpfs (root)"


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A tmpfs of a size, in a folder of its own."""
    disk = folder / "disk"
    disk.mkdir()
    _mount("mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(disk))
    try:
        yield disk
    finally:
        _mount("umount", str(disk))


def _mount(*call: str) -> None:
    subprocess.run(call, check=True, capture_output=True)


def remount(disk: Path, options: str) -> None:
    """Change a mounted tmpfs."""
    _mount("mount", "-o", f"remount,{options}", str(disk))


def untouched(place: Place, folder: Path) -> list[str]:
    """Whether the older files are still there, or, for a training, nothing torn."""
    if not place.command.replaces:
        return torn(place.command, place.reference, folder)
    return [f"the older {n} was changed" for n in place.command.outputs if (folder / n).read_bytes() != OLDER]


def resumed(place: Place, folder: Path, *options: str) -> list[str]:
    """Repeat the command with `--resume` where nothing is in its way any more."""
    done = place.run(folder, *(options or (*place.overwrite(), "--resume")))
    failed = [f"the resumed run ended with {done.code}: {done.err[-500:]}"] if done.code else []
    return failed + differing(place.command, place.reference, folder)


def full_disks(place: Place) -> Iterator[Case]:
    """Disks that are too small, then made larger; ends with the first that is not too small."""
    for kib in SIZES_KIB:
        with working_folder(place.parent) as folder, small_disk(folder, kib) as disk:
            case = Case("full disk", place.command.name, f"{kib} KiB")
            if place.command.replaces:
                put_older(place.command, disk)
            done = place.run(disk, *place.overwrite())
            case.details = {"code": done.code, "said": done.err.strip()[-300:]}
            if not done.code:
                return
            case.lost += done.untidy() + untouched(place, disk)
            remount(disk, f"size={ENOUGH_KIB}k")
            case.lost += resumed(place, disk)
            yield case


def read_only(place: Place) -> Iterator[Case]:
    """A folder that nobody may write to, not even root."""
    with working_folder(place.parent) as folder, small_disk(folder, ENOUGH_KIB) as disk:
        case = Case("read-only folder", place.command.name, "")
        if place.command.replaces:
            put_older(place.command, disk)
        remount(disk, "ro")
        done = place.run(disk, *place.overwrite())
        case.details = {"code": done.code, "said": done.err.strip()[-300:]}
        case.lost += done.untidy() + untouched(place, disk)
        remount(disk, "rw")
        case.lost += resumed(place, disk)
        yield case


@contextmanager
def cut(path: Path, share: float) -> Iterator[None]:
    """A file without its end, whole again afterwards, with its old times."""
    content, stat = path.read_bytes(), path.stat()
    os.truncate(path, int(stat.st_size * share))
    try:
        yield
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def cut_inputs(place: Place, source: Path) -> Iterator[Case]:
    """An input without its end: an error and no output, or the same output where nothing was read from there."""
    for share in (0.02, 0.5, 0.97):
        with working_folder(place.parent) as folder:
            case = Case("cut input", place.command.name, f"{source.name} at {share:.0%}")
            with cut(source, share):
                done = place.run(folder)
            case.details = {"code": done.code, "said": done.err.strip()[-300:]}
            if done.code:
                case.lost += done.untidy()
                case.lost += [f"{name} is there" for name in place.command.outputs if (folder / name).exists()]
                case.lost += resumed(place, folder, *(place.overwrite() or ("--resume",)))
            else:
                case.lost += differing(place.command, place.reference, folder)
            yield case


def run_until_kept(place: Place, folder: Path, units: int, **environment: str) -> subprocess.Popen[bytes]:
    """Start a command and wait until it has kept some units of work, or for half its time where it keeps nothing."""
    process = start(place.command.call(folder), place.said, **environment)
    if place.command.kept is nothing_kept:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(place.reference.seconds / 2)
        return process
    while process.poll() is None and place.command.kept(folder) < units:
        time.sleep(0.02)
    return process


def cut_while_read(place: Place, source: Path) -> Iterator[Case]:
    """An input that loses its end under a running command, and gets it back."""
    with working_folder(place.parent) as folder:
        case = Case("cut input", place.command.name, f"{source.name} while it is read")
        process = run_until_kept(place, folder, 1)
        with cut(source, 0.1):
            done = ended(process, place.said)
        kept = place.command.kept(folder)
        case.details = {"code": done.code, "said": done.err.strip()[-300:], "kept": kept}
        case.lost += done.untidy() if done.code else []
        case.lost += resumed(place, folder) if done.code else differing(place.command, place.reference, folder)
        yield case


@dataclass(frozen=True)
class Damage:
    """A file of an interrupted run that loses its end: which, what the resumed run does, and the way out."""

    pattern: str
    refused: bool
    way_out: Callable[[Path], tuple[str, ...]] = lambda _: ("--resume",)


def _remove_and_resume(damaged: Path) -> tuple[str, ...]:
    damaged.unlink()
    return ("--resume",)


def _start_anew(damaged: Path) -> tuple[str, ...]:
    shutil.rmtree(damaged.parent)
    return ()


DAMAGES = {
    "segment": (
        Damage("mask.tif.parts/window_*.npy", refused=False),
        Damage("mask.tif.parts/journal.json", refused=True, way_out=lambda _: ("--overwrite",)),
    ),
    "train": (
        Damage("run/last.pt", refused=True, way_out=_remove_and_resume),
        Damage("run/settings.json", refused=True, way_out=_start_anew),
    ),
}


def cut_remains(place: Place) -> Iterator[Case]:
    """An interrupted run whose files lose their ends: found out, and computed again."""
    for damage in DAMAGES.get(place.command.name, ()):
        for share in (0.0, 0.6):
            with working_folder(place.parent) as folder:
                kill(run_until_kept(place, folder, 3), group=True)
                kept = place.command.kept(folder)
                damaged = sorted(folder.glob(damage.pattern))[0]
                os.truncate(damaged, int(damaged.stat().st_size * share))
                case = Case("cut remains", place.command.name, f"{damaged.name} at {share:.0%}")
                done = place.run(folder, "--resume")
                case.details = {"code": done.code, "said": done.err.strip()[-300:], "kept": kept}
                if damage.refused:
                    case.lost += done.untidy() + resumed(place, folder, *damage.way_out(damaged))
                else:
                    case.lost += [f"ended with {done.code}: {done.err[-500:]}"] if done.code else []
                    case.lost += differing(place.command, place.reference, folder)
                yield case
