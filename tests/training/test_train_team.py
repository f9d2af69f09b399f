"""Two processes that torchrun starts train as one does on the same batch, and end together."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Outcome
from training import team
from training.scenes import write_catalog

pytestmark = pytest.mark.slow

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


def arguments(catalog: Path, folder: Path, form: list[str]) -> list[str]:
    settings = [part for setting in SMALL for part in ("--set", setting)]
    return ["train", str(catalog), "-o", str(folder), *settings, *form]


def torchrun(*script: object) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, *map(str, script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def session(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Outcome]]:
    """Trainings of two processes, a mistake first: their folder, and by name how they ended and what they printed."""
    folder = tmp_path_factory.mktemp("team")
    forms = {"mistake": ["--set", "batch=3"], **FORMS}
    lines = folder / "lines.json"
    lines.write_text(json.dumps([arguments(catalog, folder / name, form) for name, form in forms.items()]))
    outcome = torchrun(team.__file__, lines)
    assert outcome.returncode == 0, outcome.stderr
    out, err = (stream.split(team.END) for stream in (outcome.stdout, outcome.stderr))
    codes = [int(part.split()[0]) for part in out[1:]]
    return folder, {name: Outcome(codes[i], out[i], err[i]) for i, name in enumerate(forms)}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", FORMS)
def test_two_processes_measure_what_one_does(
    catalog: Path,
    session: tuple[Path, dict[str, Outcome]],
    tmp_path: Path,
    run: Callable[..., Any],
    name: str,
) -> None:
    alone, together = tmp_path / "alone", session[0] / name
    for outcome in (run(*arguments(catalog, alone, FORMS[name])), session[1][name]):
        assert outcome.code == 0, outcome.err
        assert outcome.out.count("model.safetensors: mIoU") == 1
        assert outcome.err.count("validation mIoU") == sum(line["kind"] == "validation" for line in lines(alone))
    one, two = lines(alone), lines(together)
    assert [(x["kind"], x["stage"], x["step"]) for x in one] == [(x["kind"], x["stage"], x["step"]) for x in two]
    for ours, theirs in zip(one, two, strict=True):
        if ours["kind"] == "validation":
            assert ours["miou"] == pytest.approx(theirs["miou"], abs=1e-3)
            continue
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["terms"] == pytest.approx(theirs["terms"], rel=1e-5)
    own, expected = (torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (together, alone))
    for weight, values in own.items():
        assert torch.allclose(expected[weight].float(), values.float(), rtol=1e-3, atol=1e-4), weight


def test_mistakes_are_told_once(session: tuple[Path, dict[str, Outcome]]) -> None:
    folder, outcomes = session
    assert outcomes["mistake"].code == 2
    (line,) = [line for line in outcomes["mistake"].err.splitlines() if line.startswith("glraster:")]
    assert "cannot be divided evenly among 2 processes" in line
    assert not (folder / "mistake").exists()


DIES_AT_STEP_5 = """
import os, signal, sys
from glraster.training.train import TrainOptions, train

def kill(report):
    if report.step == 5 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)

train(sys.argv[1], sys.argv[2], TrainOptions(settings=sys.argv[3:]), kill)
"""


def test_one_that_dies_ends_the_others_and_a_team_resumes(catalog: Path, tmp_path: Path) -> None:
    script, folder = tmp_path / "dies.py", tmp_path / "run"
    script.write_text(DIES_AT_STEP_5)
    settings = (*SMALL, "batch=4", "steps=8")
    assert torchrun(script, catalog, folder, *settings).returncode != 0
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 4
    again = tmp_path / "lines.json"
    form = [part for setting in settings[len(SMALL) :] for part in ("--set", setting)]
    again.write_text(json.dumps([arguments(catalog, folder, [*form, "--resume"])]))
    outcome = torchrun(team.__file__, again)
    assert f"{team.END} 0" in outcome.stdout, outcome.stderr
    assert [line["step"] for line in lines(folder) if line["kind"] == "step"] == list(range(1, 9))
