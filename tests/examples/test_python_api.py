"""The script of the Python API runs from its first cell to its last."""

import runpy
import sys
from pathlib import Path

import make_scene
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "python_api.py"


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    scene, truth = make_scene.make_scene(tmp_path / "scene.tif", seed=3, width=600, height=520)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(scene), str(truth)])
    ended = runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out
    assert ended["land_cover"].array.shape == (520, 600)
    assert "mIoU 0." in printed
    assert "(5, 512, 512)" in printed
    assert printed.splitlines()[-1].startswith("no_such_scene.tif: ")
