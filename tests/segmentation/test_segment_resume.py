"""A run that is killed goes on where it stopped, to the same bytes; parts of other runs are never taken for its own."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rasters import hole, landscape, write_raster
from segmentation.dying_run import Ended, dying_run

from glraster.files import held
from glraster.segmentation.parts import PartFolder

H, W = 330, 300
WINDOWS = 9


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model_file):
    """A scene, the call without the output, and the bytes of an undisturbed run's outputs."""
    folder = tmp_path_factory.mktemp("whole")
    scene = write_raster(folder / "scene.tif", landscape(H, W), mask=hole(H, W))
    outputs = run_whole(scene, folder, model_file("local"))
    return scene, model_file("local"), {path.name: path.read_bytes() for path in outputs}


def run_whole(scene: Path, folder: Path, model: Path) -> list[Path]:
    from glraster.segmentation.segment import SegmentOptions, segment

    options = SegmentOptions(confidence=folder / "confidence.tif", precision="float32")
    result = segment(scene, folder / "mask.tif", model, options)
    assert result.windows_done == WINDOWS
    return [folder / "mask.tif", folder / "confidence.tif"]


def call(whole: tuple, folder: Path) -> list[str]:
    scene, model, _ = whole
    outputs = ["-o", folder / "mask.tif", "--confidence", folder / "confidence.tif"]
    return [str(part) for part in ("segment", scene, "-m", model, *outputs, "--precision", "float32")]


def killed(moment: str, arguments: list[str], signal: str = "SIGKILL", *, lockless: bool = False) -> Ended:
    return dying_run(moment, *arguments, name=signal, environment={"LOCKLESS": "1"} if lockless else {})


@pytest.fixture(scope="module")
def interrupted(whole, tmp_path_factory):
    """The folder of a run that was killed when it had five of its nine parts."""
    folder = tmp_path_factory.mktemp("interrupted")
    assert killed("part:6", call(whole, folder)).returncode == -9
    return folder


@pytest.fixture
def half_done(interrupted, tmp_path):
    """A copy of the killed run's folder with its parts, times included."""
    shutil.copytree(interrupted, tmp_path / "run")
    return tmp_path / "run"


def parts_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "mask.tif.parts").glob("window_*.npy")}


def check_whole(whole: tuple, folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} == {"mask.tif", "mask.tif.aux.xml", "confidence.tif"}
    for name, content in whole[2].items():
        assert (folder / name).read_bytes() == content, f"{name} differs from an undisturbed run's"


@pytest.mark.parametrize(
    ("moment", "reused"),
    {"part:1": 0, "part:9": 8, "block:2": 9, "finish:2": 9, "publish:1": 9, "publish:2": 9, "discard:1": 9}.items(),
)
def test_killed_run_goes_on_to_the_same_bytes(moment, reused, whole, tmp_path, run):
    assert killed(moment, call(whole, tmp_path)).returncode == -9
    assert len(parts_of(tmp_path)) == reused
    outcome = run(*call(whole, tmp_path), "--resume", "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert (result["windows_reused"], result["windows_done"]) == (reused, WINDOWS - reused)
    check_whole(whole, tmp_path)


def test_mask_never_stands_there_half_written(half_done):
    assert not (half_done / "mask.tif").exists()
    assert not (half_done / "confidence.tif").exists()


def test_finished_windows_are_not_computed_again(whole, half_done, monkeypatch, run):
    before, written, write = parts_of(half_done), [], PartFolder.write

    def spy(parts: PartFolder, row: int, column: int, logits: np.ndarray) -> None:
        assert {name: time for name, time in parts_of(half_done).items() if name in before} == before
        written.append(parts.file(row, column).name)
        write(parts, row, column, logits)

    monkeypatch.setattr(PartFolder, "write", spy)
    assert run(*call(whole, half_done), "--resume").code == 0
    assert len(before) == 5
    assert not set(before) & set(written)
    check_whole(whole, half_done)


def test_run_survives_being_killed_again_and_again(whole, half_done, run):
    for moment in ("part:2", "part:1", "block:1"):
        assert killed(moment, [*call(whole, half_done), "--resume"]).returncode == -9
    assert run(*call(whole, half_done), "--resume").code == 0
    check_whole(whole, half_done)


def refused(outcome, text: str, half_done: Path, before: dict[str, int]) -> None:
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert line.startswith("glraster: error: ")
    assert text in line
    assert parts_of(half_done) == before
    assert not (half_done / "mask.tif").exists()


def test_rerun_without_resume_is_refused(whole, half_done, run):
    before = parts_of(half_done)
    refused(run(*call(whole, half_done)), "go on with --resume, or discard them with --overwrite", half_done, before)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("--overlap", "32"), "overlap was 24, is 32"),
        (("--context", "132"), "context was 128, is 132"),
        (("--tile", "92"), "tile was 96, is 92"),
        (("--branch", "local"), 'branch was "full", is "local"'),
        (("--tta",), "tta was false, is true"),
        (("--gsd", "1"), "working size was [330, 300], is [165, 150]"),
        (("--scale", "0", "200"), "value range was null, is [0.0, 200.0]"),
        (("--bounds", "500000", "5299900", "500050", "5300000"), "bounds was null"),
        (("--bidx", "3,2,1"), "scene was"),
        (("--nodata", "9"), "scene was"),
        (("--precision", "bfloat16"), 'precision was "float32", is "bfloat16"'),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_resume_with_another_option_names_it(change, text, whole, half_done, run):
    before = parts_of(half_done)
    refused(run(*call(whole, half_done), "--resume", *change), text, half_done, before)


def test_parts_of_another_arithmetic_are_refused(whole, half_done, run):
    """The same logits computed in another order differ in their last bits: two versions are never mixed."""
    before, journal = parts_of(half_done), half_done / "mask.tif.parts" / "journal.json"
    record = json.loads(journal.read_text())
    record["fingerprint"]["arithmetic"] = 0
    journal.write_text(json.dumps(record))
    refused(run(*call(whole, half_done), "--resume"), "arithmetic was 0, is", half_done, before)


def test_resume_with_another_model_names_it(whole, half_done, model_file, run):
    before = parts_of(half_done)
    arguments = [str(model_file("local", seed=1)) if a == str(whole[1]) else a for a in call(whole, half_done)]
    refused(run(*arguments, "--resume"), "model was", half_done, before)


def test_resume_with_an_edited_scene_names_it(whole, half_done, tmp_path, run):
    scene = tmp_path / "scene.tif"
    shutil.copy2(whole[0], scene)
    arguments = [str(scene) if a == str(whole[0]) else a for a in call(whole, half_done)]
    before = parts_of(half_done)
    write_raster(scene, landscape(H, W, seed=8), mask=hole(H, W))
    refused(run(*arguments, "--resume"), "scene was", half_done, before)


def test_copied_parts_may_be_of_a_moved_scene(whole, half_done, tmp_path, run):
    (tmp_path / "moved").mkdir()
    shutil.copy2(whole[0], tmp_path / "moved" / "scene.tif")
    moved = [str(tmp_path / "moved" / "scene.tif") if a == str(whole[0]) else a for a in call(whole, half_done)]
    assert run(*moved, "--resume").code == 0
    check_whole(whole, half_done)


def test_overwrite_discards_the_parts(whole, half_done, run):
    outcome = run(*call(whole, half_done), "--overwrite", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["windows_reused"] == 0
    check_whole(whole, half_done)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", None], ids=["empty", "header cut", "data cut"])
def test_damaged_part_is_computed_again(content, whole, half_done, run):
    part = sorted((half_done / "mask.tif.parts").glob("window_*.npy"))[2]
    part.write_bytes(part.read_bytes()[:-100] if content is None else content)
    outcome = run(*call(whole, half_done), "--resume", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["windows_reused"] == 4
    check_whole(whole, half_done)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format": 1, "fingerprint": 3}', '{"format": 9, "fingerprint": {}}']
)
def test_damaged_journal_is_named(content, whole, half_done, run):
    (half_done / "mask.tif.parts" / "journal.json").write_text(content)
    outcome = run(*call(whole, half_done), "--resume")
    refused(outcome, "start anew with --overwrite", half_done, parts_of(half_done))
    assert run(*call(whole, half_done), "--overwrite").code == 0
    check_whole(whole, half_done)


def test_second_process_on_an_output_is_refused(whole, half_done, run):
    before = parts_of(half_done)
    with (half_done / "mask.tif.parts" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for how in ("--resume", "--overwrite"):
            refused(run(*call(whole, half_done), how), "another process is working on this output", half_done, before)


@pytest.mark.parametrize("name", ["confidence.tif", "probabilities.tif"])
def test_second_process_on_a_further_output_is_refused_before_it_computes(name, whole, tmp_path, run):
    """As where two masks of their own share one confidence: the first one holds it from its start to its end."""
    scene, model, _ = whole
    option = f"--{name.removesuffix('.tif')}"
    with held([tmp_path / name]):
        outcome = run("segment", scene, "-m", model, "-o", tmp_path / "mask.tif", option, tmp_path / name)
        assert outcome.code == 1
        assert f"{name}.parts: another process is working on this output; wait for its end" in outcome.err
        assert [path.name for path in tmp_path.iterdir()] == [f"{name}.parts"]
    assert list(tmp_path.iterdir()) == []


def test_further_outputs_are_held_while_windows_are_computed(whole, tmp_path):
    ended = killed("part:2", call(whole, tmp_path))
    assert ended.returncode == -9, ended.stderr
    assert "lock" in {path.name for path in (tmp_path / "confidence.tif.parts").iterdir()}


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_interrupt_tells_how_to_go_on(signal, whole, tmp_path, run):
    ended = killed("part:4", call(whole, tmp_path), signal)
    assert ended.returncode == 130
    assert ended.stdout == ""
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("glraster: interrupted; 3 of 9 windows are kept in ")
    assert "--resume" in line
    assert not (tmp_path / "mask.tif").exists()
    assert run(*call(whole, tmp_path), "--resume").code == 0
    check_whole(whole, tmp_path)


def test_a_run_on_a_file_system_without_locks_goes_on_after_it_was_killed(whole, tmp_path, run, monkeypatch):
    def refuse(_file, _how):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    assert killed("part:3", call(whole, tmp_path), lockless=True).returncode == -9
    assert "lock.soft" in {path.name for path in (tmp_path / "mask.tif.parts").iterdir()}
    monkeypatch.setattr(fcntl, "flock", refuse)
    outcome = run(*call(whole, tmp_path), "--resume", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["windows_reused"] == 2
    assert "the file system has no locks" in outcome.err
    check_whole(whole, tmp_path)


def test_interrupt_while_writing_leaves_parts_only(whole, tmp_path):
    ended = killed("block:2", call(whole, tmp_path), "SIGINT")
    assert ended.returncode == 130
    assert "9 of 9 windows are kept" in ended.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mask.tif.parts"]
    assert {p.suffix for p in (tmp_path / "mask.tif.parts").iterdir()} <= {".npy", ".json", ""}


def test_resume_with_nothing_to_resume_is_a_plain_run(whole, tmp_path, run):
    assert run(*call(whole, tmp_path), "--resume").code == 0
    check_whole(whole, tmp_path)
