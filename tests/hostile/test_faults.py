"""The fault campaign's first kills, with its fixed seed, and one command without a disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "faults.py"


def campaign(folder: Path, *arguments: str) -> dict[str, Any]:
    call = [sys.executable, str(CAMPAIGN), "-o", str(folder), "--side", "800", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "faults.json").read_text())
    assert isinstance(found, dict)
    assert (folder / "faults.md").read_text() == done.stdout
    return found


@pytest.mark.slow
def test_killed_runs_lose_nothing(tmp_path: Path) -> None:
    found = campaign(tmp_path, "--only", "kills", "--kills", "3")
    assert [(row["command"], row["tried"], row["lost"]) for row in found["summary"]] == [
        ("segment", 1, 0),
        ("train", 1, 0),
        ("vectorize", 1, 0),
    ]
    assert all(len(case["details"]["kills"]) >= 1 for case in found["cases"])
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_full_disks_cut_files_and_jumping_clocks_lose_nothing(tmp_path: Path) -> None:
    found = campaign(tmp_path, "--only", "others", "--commands", "vectorize")
    rows = {row["fault"]: row for row in found["summary"]}
    assert rows["cut input"]["tried"] == 3
    assert rows["clock jumps"]["tried"] >= 2
    assert all(row["tried"] == row["survived"] and not row["lost"] for row in rows.values())
    for fault in ("full disk", "read-only folder"):
        assert rows[fault]["tried"] >= 1 or "root" in rows[fault]["note"]


def test_the_campaign_sees_what_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that differ, halves, and remains are told: the campaign can fail."""
    monkeypatch.syspath_prepend(CAMPAIGN.parent)
    import faults_commands as f

    command = f.Command("copy", (), ("a.txt",), f.file_digest)
    (tmp_path / "a.txt").write_text("all of it")
    reference = f.Reference({"a.txt": f.file_digest(tmp_path / "a.txt")}, f.names_in(tmp_path), 1, 1.0)
    assert f.torn(command, reference, tmp_path) == f.differing(command, reference, tmp_path) == []
    f.put_older(command, tmp_path)
    assert f.torn(command, reference, tmp_path) == []
    assert f.differing(command, reference, tmp_path) == ["a.txt differs from an undisturbed run's"]
    (tmp_path / "a.txt").write_text("all of")
    assert f.torn(command, reference, tmp_path) == ["a.txt is there half-written"]
    (tmp_path / "a.txt.parts").touch()
    assert f.differing(command, reference, tmp_path)[-1] == "left behind: a.txt.parts"
    assert f.Ended(1, "", "Traceback\n  File\nError\n").untidy()
    assert not f.Ended(1, "", "glraster: error: no space\n").untidy()
