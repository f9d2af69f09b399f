"""Try to make glraster lose something: `python benchmarks/faults.py -o FOLDER [--kills 50] [--seed 0]`.

`segment`, `train` and `vectorize` are killed at random moments and resumed; their disk is full or read-only, their
inputs and what an interrupted run left lose their ends, the clock jumps. What must come out is what an undisturbed
run makes. Lost is an output that differs or is half-written, an older file that was changed before there was a new
one, a process that outlives its parent, and finished work that is done again.

FOLDER gets `faults.json`, with every case, and `faults.md`, with the table. Full and read-only disks need root.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from faults_clocks import jumping_clocks, shifted_clocks
from faults_commands import Case, Command, Reference, make_commands, undisturbed
from faults_disk import Place, cut_inputs, cut_remains, cut_while_read, full_disks, read_only, why_no_mounts
from faults_kills import kill_once

TURNS = ("segment", "train", "vectorize", "segment", "vectorize", "train", "segment", "segment --workers 2")
"""Which commands are killed, in turn."""

SOURCES = {"segment": "scene.tif", "train": "scene.tif", "vectorize": "scene_truth.tif"}
"""The input of each command that loses its end."""

Cases = Iterator[Case]


class References:
    """Undisturbed runs of commands, made when they are first asked for."""

    def __init__(self, commands: dict[str, Command], folder: Path) -> None:
        self._commands, self._folder, self._known = commands, folder, dict[str, Reference]()

    def of(self, name: str) -> Reference:
        """The reference of a command; a map must be the same however many processes compute it."""
        if name not in self._known:
            found = undisturbed(self._commands[name], self._folder)
            if name == "segment --workers 2":
                found = replace(found, digests=self.of("segment").digests)
            self._known[name] = found
        return self._known[name]


def kills(commands: dict[str, Command], references: References, chosen: argparse.Namespace, folder: Path) -> Cases:
    """Kills at random moments, spread over the commands."""
    turns = [name for name in TURNS if name.split()[0] in chosen.commands]
    for number in range(chosen.first, chosen.first + chosen.kills):
        name = turns[number % len(turns)]
        yield kill_once(commands[name], references.of(name), folder, f"{chosen.seed}-{number}")


def other_faults(
    commands: dict[str, Command], references: References, chosen: argparse.Namespace, folder: Path
) -> Cases:
    """Disks, cut files and clocks, for each command."""
    no_mounts = why_no_mounts(folder)
    for name in chosen.commands:
        place, source = Place(commands[name], references.of(name), folder), folder / SOURCES[name]
        if no_mounts:
            yield from (Case(group, name, "", skipped=no_mounts) for group in ("full disk", "read-only folder"))
        else:
            yield from full_disks(place)
            yield from read_only(place)
        yield from cut_inputs(place, source)
        if name == "segment":
            yield from cut_while_read(place, source)
        yield from cut_remains(place)
        yield from jumping_clocks(place, [folder / "scene.tif", folder / "scene_truth.tif"])
        yield from shifted_clocks(place)


def summary(cases: list[Case]) -> list[dict[str, Any]]:
    """Tried, survived and lost, by kind of fault and command."""
    rows = []
    for group, command in dict.fromkeys((case.group, case.command) for case in cases):
        own = [case for case in cases if (case.group, case.command) == (group, command)]
        tried = [case for case in own if not case.skipped]
        lost = sum(bool(case.lost) for case in tried)
        notes = sorted({case.skipped for case in own if case.skipped})
        counted = {"tried": len(tried), "survived": len(tried) - lost, "lost": lost, "note": "; ".join(notes)}
        rows.append({"fault": group, "command": command, **counted})
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    titles = ("fault", "command", "tried", "survived", "lost", "note")
    lines = [titles, tuple("---" for _ in titles), *([str(row[title]) for title in titles] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write(folder: Path, cases: list[Case], seconds: float) -> list[dict[str, Any]]:
    """Write cases and table; return the table's rows."""
    rows = summary(cases)
    record = {"seconds": round(seconds), "summary": rows, "cases": [asdict(case) for case in cases]}
    (folder / "faults.json").write_text(json.dumps(record, indent=1))
    (folder / "faults.md").write_text(markdown(rows))
    return rows


def tell(case: Case) -> None:
    """A line about a case, as it ends."""
    fate = f"skipped, {case.skipped}" if case.skipped else "; ".join(case.lost) or "nothing lost"
    print(f"{case.group}, {case.command}, {case.what}: {fate}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--kills", type=int, default=50, help="how many runs are killed")
    parser.add_argument("--first", type=int, default=0, help="number of the first kill: every one has its own seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=2048, help="side of the scene in pixels")
    parser.add_argument("--commands", nargs="+", choices=list(SOURCES), default=list(SOURCES), help="only these")
    parser.add_argument("--only", choices=["kills", "others"], help="only kills, or only the other faults")
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    began, cases, rows = time.perf_counter(), list[Case](), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory(dir=chosen.output) as name:
        folder = Path(name).resolve()
        commands = make_commands(folder, chosen.side, chosen.seed)
        references = References(commands, folder)
        parts = {"kills": kills, "others": other_faults}
        campaign = [
            part(commands, references, chosen, folder) for key, part in parts.items() if chosen.only in (None, key)
        ]
        for case in (case for part in campaign for case in part):
            tell(case)
            cases.append(case)
            rows = write(chosen.output, cases, time.perf_counter() - began)  # now: a campaign may be stopped, too
    print(markdown(rows), end="")
    sys.exit(1 if any(row["lost"] for row in rows) else 0)


if __name__ == "__main__":
    main()
