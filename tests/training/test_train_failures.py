"""What goes wrong in a training is one line, before the first step where it can be, and never costs what was done."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rasters import write_raster
from training.scenes import SMALL, write_catalog
from training.test_events import points

from glraster.errors import OutputError
from glraster.training.fit import StepReport
from glraster.training.train import TrainOptions, ValidationScore, train


def checkpoint(folder: Path, name: str = "last.pt") -> dict[str, Any]:
    state = torch.load(folder / name, weights_only=True)
    assert isinstance(state, dict)
    return state


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = checkpoint(one)["model"], checkpoint(other)["model"]
    return all(torch.equal(x, theirs[name]) for name, x in ours.items())


def test_curves_and_pictures_are_in_the_event_files(finished: Path) -> None:
    found = points(finished / "events" / "joint")
    tags = {tag for _, tag, _ in found}
    assert tags == {
        *("loss/total", "loss/guide", "loss/local", "loss/aggregated", "learning_rate"),
        *("miou", "iou/water", "iou/meadow", "iou/roof"),
    }
    metrics = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["loss"]) for line in metrics if line["kind"] == "step"]
    assert {s: v for s, tag, v in found if tag == "loss/total"} == pytest.approx(dict(losses))
    assert [s for s, tag, _ in found if tag == "miou"] == [2, 4, 6]


KILLED_AT_STEP_3 = """
import os, signal, sys
from glraster.training.train import TrainOptions, train

def kill(report):
    if report.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)

train(sys.argv[1], sys.argv[2], TrainOptions(settings=sys.argv[3:]), kill)
"""


def test_a_killed_training_resumes_with_every_step_once(catalog: Path, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", KILLED_AT_STEP_3, str(catalog), str(folder), *SMALL]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert checkpoint(folder)["step"] == 2
    train(catalog, folder, TrainOptions(settings=SMALL, resume=True))
    assert same_weights(folder, finished)
    for name in ("loss/total", "miou"):
        ours, whole = (
            [(s, v) for s, tag, v in points(f / "events" / "joint") if tag == name] for f in (folder, finished)
        )
        assert ours == whole
    best = max(
        (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if "miou" in line),
        key=lambda line: line["miou"],
    )
    assert checkpoint(folder, "best.pt")["step"] == best["step"]


def test_two_trainings_in_one_folder_are_refused(catalog: Path, tmp_path: Path) -> None:
    folder, refusals = tmp_path / "run", []
    settings = (*SMALL, "steps=2")

    def meddle(report: StepReport | ValidationScore) -> None:
        if report.step == 1:
            with pytest.raises(OutputError, match="another process trains in this folder; wait for its end") as error:
                train(catalog, folder, TrainOptions(settings=settings, resume=True))
            refusals.append(error)

    train(catalog, folder, TrainOptions(settings=settings), meddle)
    assert len(refusals) == 1
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines() if "loss" in line]
    assert steps == [1, 2]
    train(catalog, folder, TrainOptions(settings=settings, resume=True))  # the lock ended with the training


@pytest.mark.parametrize("share", [0.5, 0.001])
def test_a_full_disk_is_one_line_and_the_training_resumes(
    catalog: Path, finished: Path, interrupted: Path, run: Callable[..., Any], share: float
) -> None:
    """Files may not grow beyond a share of the checkpoint: the checkpoint fails, or the metrics before it."""
    before = (interrupted / "last.pt").read_bytes()
    settings = [part for setting in SMALL for part in ("--set", setting)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(len(before) * share), limits[1]))
    try:
        outcome = run("train", catalog, "-o", interrupted, "--resume", *settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert outcome.code == 1, outcome.err
    assert outcome.err.splitlines()[-1].startswith("glraster: error: ")
    assert "Traceback" not in outcome.err
    assert (interrupted / "last.pt").read_bytes() == before
    assert not [path.name for path in interrupted.rglob("*.tmp")]
    train(catalog, interrupted, TrainOptions(settings=SMALL, resume=True))
    assert same_weights(interrupted, finished)


@pytest.mark.parametrize(("name", "told"), [("settings.json", "choose another folder"), ("last.pt", "remove it")])
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_a_damaged_file_is_named_and_nothing_is_changed(
    catalog: Path, finished: Path, tmp_path: Path, run: Callable[..., Any], name: str, told: str, share: float
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    os.truncate(folder / name, int((folder / name).stat().st_size * share))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    settings = [part for setting in SMALL for part in ("--set", setting)]
    outcome = run("train", catalog, "-o", folder, "--resume", "-q", *settings)
    (line,) = outcome.err.splitlines()
    assert outcome.code == 1
    assert line.startswith(f"glraster: error: {folder / name}: ")
    assert "damaged" in line
    assert told in line
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_the_best_model_stays_the_best_where_the_metrics_are_lost(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The score to beat is in the checkpoint; `metrics.jsonl` is for people."""
    settings = (*SMALL, "trust=1")
    scores = iter((0.9, 0.5, 0.1))
    monkeypatch.setattr("glraster.training.train.mean_iou", lambda *_: next(scores))

    def stop(report: StepReport | ValidationScore) -> None:
        if report.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(catalog, tmp_path / "run", TrainOptions(settings=settings), stop)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    best = train(catalog, tmp_path / "run", TrainOptions(settings=settings, resume=True)).best
    assert (best.step, best.miou) == (2, 0.9)
    assert checkpoint(tmp_path / "run", "best.pt")["step"] == 2


@dataclass(frozen=True)
class Mistake:
    """How a catalog is spoilt, and what the command line says of it."""

    spoil: Callable[[Path, dict[str, Any]], None]
    told: tuple[str, ...]


def strange_value(folder: Path, _: dict[str, Any]) -> None:
    label = np.zeros((1, 320, 320), np.uint8)
    label[0, :3, :5] = 9
    write_raster(folder / "label1.tif", label)


def coloured(folder: Path, _: dict[str, Any]) -> None:
    write_raster(folder / "label0.tif", np.zeros((3, 320, 320), np.uint8))


def smaller(folder: Path, _: dict[str, Any]) -> None:
    write_raster(folder / "label0.tif", np.zeros((1, 300, 320), np.uint8))


def missing(folder: Path, _: dict[str, Any]) -> None:
    (folder / "label0.tif").unlink()
    (folder / "image2.tif").unlink()


def no_val(_: Path, document: dict[str, Any]) -> None:
    document["splits"]["val"] = []


def one_class(_: Path, document: dict[str, Any]) -> None:
    document["classes"] = document["classes"][:1]


def one_class_in_labels(folder: Path, _: dict[str, Any]) -> None:
    for number in range(2):
        write_raster(folder / f"label{number}.tif", np.zeros((1, 320, 320), np.uint8))


MISTAKES = {
    "value": Mistake(strange_value, ("label1.tif", "no class: 9 (15 px)", "add them to classes")),
    "rgb mask": Mistake(coloured, ("label0.tif", "coloured mask and not index", "use encoding: rgb")),
    "size": Mistake(smaller, ("label0.tif", "is 320 x 300 px", "320 x 320 px")),
    "missing": Mistake(missing, ("label0.tif", "image2.tif", "does not exist")),
    "empty split": Mistake(no_val, ("splits.val", "empty")),
    "one class": Mistake(one_class, ("classes", "two")),
    "one class in labels": Mistake(one_class_in_labels, ("splits.train", "one class only, water")),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_bad_data_is_told_in_words_and_nothing_is_made(tmp_path: Path, run: Callable[..., Any], name: str) -> None:
    path = write_catalog(tmp_path)
    document = yaml.safe_load(path.read_text())
    MISTAKES[name].spoil(tmp_path, document)
    path.write_text(yaml.safe_dump(document))
    outcome = run("train", path, "-o", tmp_path / "run", "--set", "tile_px=64")
    assert outcome.code == 1
    assert outcome.out == ""
    assert outcome.err.startswith("glraster: error: ")
    for words in MISTAKES[name].told:
        assert words in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--stage", "local"], "--stage 'local' is none of the recipe's stages: joint"),
        (["--stage", "joint,"], "'joint,' is not a list of stages"),
        (["--arch", "vgg16"], "--arch does not know 'vgg16'"),
        (
            ["--init", "imagenet", "--offline"],
            "has no ImageNet weights of resnet18; put torchvision's resnet18-f37072fd.pth there",
        ),
        (["--init", "absent.pth"], "absent.pth: cannot be read (No such file or directory)"),
        (["--init", "absent.safetensors"], "absent.safetensors: cannot be read"),
    ],
)
def test_bad_options_are_told(
    catalog: Path,
    tmp_path: Path,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    outcome = run("train", catalog, "-o", tmp_path / "run", "--set", "tile_px=64", *arguments)
    assert outcome.code in (1, 2)
    assert told in outcome.err
    assert not (tmp_path / "run").exists()


def test_progress_is_plain_lines_where_nobody_watches(catalog: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    settings = [part for setting in SMALL for part in ("--set", setting)]
    outcome = run("train", catalog, "-o", tmp_path / "run", *settings)
    lines = outcome.err.splitlines()
    assert lines[0].startswith("joint 1/6, loss ")
    last = next(line for line in lines if line.startswith("joint 6/6, "))
    for words in ("loss ", "rate ", " left", "mIoU ", "(best "):
        assert words in last
    assert sum("validation mIoU" in line for line in lines) == 3
    assert "\r" not in outcome.err
    assert run("train", catalog, "-o", tmp_path / "quiet", "-q", *settings, "--set", "steps=1").err == ""


def test_progress_is_a_bar_on_a_terminal(catalog: Path, tmp_path: Path) -> None:
    import pty

    settings = [part for setting in (*SMALL, "steps=2") for part in ("--set", setting)]
    command = [sys.executable, "-m", "glraster_cli", "train", str(catalog), "-o", str(tmp_path / "run"), *settings]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "140", "TERM": "xterm"}
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, text=True, env=environment) as process:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 65536):
                seen += part
        except OSError:  # the other end is closed
            pass
        printed = process.communicate()[0]
    os.close(ours)
    assert printed.startswith(str(tmp_path / "run" / "model.safetensors"))
    text = seen.decode()
    for words in ("joint", "2/2", "loss ", "rate ", " left", "(best ", "validation mIoU"):
        assert words in text
    assert "\r" in text
