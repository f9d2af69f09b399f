"""Kill a command at a random moment, go on with `--resume`, and look for what was lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults_commands import (
    Case,
    Command,
    Ended,
    Reference,
    differing,
    ended,
    is_whole,
    put_older,
    run,
    start,
    torn,
    working_folder,
)

LINGER_S = 20
"""How long children may take to see that their parent is gone."""

AGAIN = 1 / 3
"""How often a resumed run is killed too."""


@dataclass
class Trial:
    """One command in one folder, killed once or more, and what was seen of it."""

    command: Command
    reference: Reference
    folder: Path
    said: Path
    options: tuple[str, ...] = ()
    kills: list[dict[str, Any]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def call(self) -> list[str]:
        """The command line of the next run."""
        resume = ("--resume",) if self.kills else ()
        return self.command.call(self.folder, *self.options, *resume)

    def run_and_kill(self, moment_s: float, group: bool) -> Ended | None:
        """Start the next run and kill it; how it ended where it was faster."""
        kept = self.command.kept(self.folder)
        process = start(self.call(), self.said)
        try:
            process.wait(moment_s)
        except subprocess.TimeoutExpired:
            kill(process, group)
            lingering = session_of(process.pid, LINGER_S)
            for pid in lingering:
                os.kill(pid, signal.SIGKILL)
            self._look(moment_s, group, kept, len(lingering))
            return None
        return ended(process, self.said)

    def _look(self, moment_s: float, group: bool, kept: int, lingering: int) -> None:
        """Note what a kill left."""
        self.lost += torn(self.command, self.reference, self.folder)
        if lingering:
            self.lost.append(f"{lingering} processes live {LINGER_S} s after their parent")
        whole = is_whole(self.command, self.reference, self.folder)
        now = self.command.kept(self.folder)
        if now < kept and not whole:
            self.lost.append(f"of {kept} finished units {now} are left")
        note = {"at_s": round(moment_s, 2), "group": group, "kept": now, "whole": whole}
        self.kills.append(note)

    def finish(self, last: Ended | None) -> None:
        """Let the command come to its end, and compare what it made and how much it did again."""
        kept, whole = self.command.kept(self.folder), is_whole(self.command, self.reference, self.folder)
        done = last or run(self.call(), self.said)
        already = whole and done.code == 1 and "exists; use --overwrite" in done.err
        if done.code and not already:
            self.lost.append(f"the resumed run ended with {done.code}: {done.err[-500:]}")
        self.lost += differing(self.command, self.reference, self.folder)
        if not done.code and last is None and not whole:
            self.note_redone(self.command.redone(done.result), kept)

    def note_redone(self, redone: int, kept: int) -> None:
        """Nothing that was kept may be done again."""
        self.kills[-1]["redone"] = redone
        if redone > self.reference.units - kept:
            self.lost.append(f"{redone} units were done anew, though {kept} of {self.reference.units} were kept")


def kill(process: subprocess.Popen[bytes], group: bool) -> None:
    """`kill -9`, of the main process alone or of all of its group."""
    if group and process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def session_of(pid: int, seconds: float) -> list[int]:
    """Processes that a command started and that do not end within some seconds; none where there is no /proc."""
    stop = time.monotonic() + seconds
    while found := [other for other in _processes() if _session(other) == pid]:
        if time.monotonic() > stop:
            break
        time.sleep(0.05)
    return found


def _processes() -> list[int]:
    proc = Path("/proc")
    return [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()] if proc.is_dir() else []


def _session(pid: int) -> int | None:
    """The session of a live process."""
    try:
        state, _, _, session = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return None
    return None if state == "Z" else int(session)


def kill_once(command: Command, reference: Reference, parent: Path, seed: str) -> Case:
    """One case: a command killed at a random moment, perhaps again while it is resumed, then let go to its end."""
    chance = random.Random(seed)
    while True:
        with working_folder(parent) as folder:
            older = command.replaces and chance.random() < 0.5
            if older:
                put_older(command, folder)
            trial = Trial(command, reference, folder, parent / "said", ("--overwrite",) if older else ())
            last = None
            while last is None and (not trial.kills or chance.random() < AGAIN):
                moment, group = chance.uniform(0, reference.seconds), chance.random() < 0.5
                last = trial.run_and_kill(moment, group)
            if not trial.kills:  # it was faster than the undisturbed run
                continue
            trial.finish(last)
            details = {"seed": seed, "older file": older, "kills": trial.kills}
            return Case("kill -9", command.name, f"{len(trial.kills)} kills", trial.lost, details)
