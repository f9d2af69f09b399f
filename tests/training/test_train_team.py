"""Two processes that torchrun starts train as one does on the same batch, and end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training.scenes import write_catalog

SMALL = (
    *("stem=8", "width=8", "tile_px=64", "thumbnail_px=64", "steps=4", "steps_per_epoch=2", "warm_up=2"),
    # a low rate: Adam divides small gradients by small numbers, and rounding would grow with every step
    *("learning_rate=0.0001", "colour=0.1"),
)
FORMS = {
    # windows meet in a sub-batch, which the processes share
    "fast": ["--set", "batch=4", "--set", "sub_batch=8", "--set", "class_weights=sqrt", "--set", "loss=ce+lovasz"],
    "fast, two groups": ["--set", "batch=4", "--set", "sub_batch=4"],
    "fast, full": ["--set", "batch=2", "--set", "mode=full", "--set", "tiles=[2,2]"],
    "paper": ["--recipe", "paper", "--arch", "resnet18", "--set", "batch=2", "--set", "steps_per_epoch=4"],
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes with unlabelled ground on one side only, so that the processes have different numbers of labels."""
    return write_catalog(
        tmp_path_factory.mktemp("scenes"),
        ignore=[0],
        classes=[{"id": i, "name": f"c{i}", "color": [90 * i, 40, 200]} for i in (1, 2)],
    )


def arguments(catalog: Path, folder: Path, form: list[str], processes: int) -> list[str]:
    settings = [part for setting in SMALL for part in ("--set", setting)]
    call = ["train", str(catalog), "-o", str(folder), *settings, *form]
    if processes == 1:
        return [sys.executable, "-m", "glraster_cli", *call]
    team = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "glraster_cli"]
    return [sys.executable, "-m", *team, *call]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, check=False)


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_two_processes_measure_what_one_does(catalog: Path, tmp_path: Path, name: str) -> None:
    alone, team = tmp_path / "alone", tmp_path / "team"
    for folder, processes in ((alone, 1), (team, 2)):
        outcome = run(arguments(catalog, folder, FORMS[name], processes))
        assert outcome.returncode == 0, outcome.stderr
        assert outcome.stdout.count("model.safetensors: mIoU") == 1
        assert outcome.stderr.count("validation mIoU") == sum(line["kind"] == "validation" for line in lines(folder))
    one, two = lines(alone), lines(team)
    assert [(x["kind"], x["stage"], x["step"]) for x in one] == [(x["kind"], x["stage"], x["step"]) for x in two]
    for ours, theirs in zip(one, two, strict=True):
        if ours["kind"] == "validation":
            assert ours["miou"] == pytest.approx(theirs["miou"], abs=1e-3)
            continue
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["terms"] == pytest.approx(theirs["terms"], rel=1e-5)
    ours, theirs = (torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (alone, team))
    for weight, expected in ours.items():
        assert torch.allclose(expected.float(), theirs[weight].float(), rtol=1e-3, atol=1e-4), weight


@pytest.mark.slow
def test_mistakes_are_told_once(catalog: Path, tmp_path: Path) -> None:
    outcome = run(arguments(catalog, tmp_path / "run", ["--set", "batch=3"], 2))
    assert outcome.returncode != 0
    told = [line for line in outcome.stderr.splitlines() if line.startswith("glraster:")]
    assert len(told) == 1
    assert "cannot be divided evenly among 2 processes" in told[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_one_that_dies_ends_the_others_and_a_team_resumes(catalog: Path, tmp_path: Path) -> None:
    folder, form = tmp_path / "run", ["--set", "batch=4", "--set", "steps=4000"]
    command = arguments(catalog, folder, form, 2)
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as team:
        try:
            wait_for(folder / "last.pt")
            victim = next(pid for pid in children(team.pid) if rank_of(pid) == "1")
            os.kill(victim, signal.SIGKILL)
            started = time.monotonic()
            team.communicate(timeout=120)
        finally:
            team.kill()
    assert team.returncode != 0
    assert time.monotonic() - started < 60
    done = max(int(str(line["step"])) for line in lines(folder) if line["kind"] == "validation")
    other = arguments(catalog, folder, [*form, "--resume"], 2)
    with subprocess.Popen(other, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as resumed:
        try:
            wait_for(folder / "metrics.jsonl", lambda: len(lines_so_far(folder)) > done * 1.5 + 6)
        finally:
            resumed.terminate()
    steps = [line["step"] for line in lines_so_far(folder) if line["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))


def lines_so_far(folder: Path) -> list[dict[str, object]]:
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_for(path: Path, more: object = None) -> None:
    for _ in range(1200):
        if path.exists() and (more is None or more()):  # type: ignore[operator]
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} did not come")


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def rank_of(pid: int) -> str:
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((e.decode().partition("=")[2] for e in entries if e.startswith(b"RANK=")), "")
