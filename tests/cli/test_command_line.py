"""What the command line prints, where, and with which status."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from rasters import landscape, write_raster

from glraster import __version__


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "scene.tif", landscape(150, 200))


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


HELP = """
import sys
before = set(sys.modules)
from glraster_cli.main import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code
loaded = {{name.split(".")[0] for name in set(sys.modules) - before}}
print(sorted(loaded - sys.stdlib_module_names))
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["segment", "--help"], ["train", "--help"], ["model", "--help"]], ids=str
)
def test_help_loads_no_library_but_click(arguments):
    assert python(HELP.format(arguments=arguments)).splitlines()[-1] == "['click', 'glraster', 'glraster_cli']"


def test_help_names_every_verb_and_version_is_the_packages(run):
    listed = run("--help")
    assert listed.code == 0
    assert {"segment", "model"} <= set(listed.out.split())
    assert run("--version").out.strip().endswith(__version__)


def test_help_of_segment_names_the_options_of_the_manual(run):
    text = run("segment", "--help").out
    names = "output model bidx bounds nodata gsd scale context tile overlap branch merge tta batch device precision"
    names += " confidence probabilities co resume overwrite dry-run json verbose quiet"
    options = [f"--{name}" for name in names.split()] + ["-o", "-m", "-b", "-v", "-q"]
    assert [option for option in options if option not in text] == []


@pytest.mark.parametrize(
    "arguments", [["segmnt"], ["segment"], ["segment", "a.tif"], ["segment", "--nonsense"]], ids=str
)
def test_wrong_call_is_a_usage_error(arguments, run):
    outcome = run(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Usage: glraster")
    assert "\nError: " in outcome.err


def test_json_is_all_that_stands_on_stdout(scene, tmp_path, model_file, run):
    mask = tmp_path / "mask.tif"
    outcome = run("segment", scene, "-o", mask, "-m", model_file(), "--json")
    assert (outcome.code, outcome.err) == (0, "")
    result = json.loads(outcome.out)
    assert (result["output"], result["height"], result["width"]) == (str(mask), 150, 200)
    assert result["windows_done"] == 2
    assert result["windows_skipped"] == result["windows_reused"] == 0
    assert result["peak_memory_bytes"] > 2**20


def test_text_on_stdout_tells_classes_and_areas(scene, tmp_path, model_file, run):
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file())
    assert "200 x 150 px, 2 windows computed" in outcome.out
    assert " ha" in outcome.out
    assert outcome.err == ""


def test_warnings_go_to_stderr_and_quiet_silences_them(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.png", landscape(60, 60), driver="PNG", crs=None, transform=None)
    loud = run("segment", scene, "-o", tmp_path / "a.tif", "-m", model_file(), "--json")
    quiet = run("segment", scene, "-o", tmp_path / "b.tif", "-m", model_file(), "--json", "-q")
    assert "glraster: warning: " in loud.err
    assert json.loads(loud.out)
    assert (quiet.code, quiet.err) == (0, "")


def test_quiet_does_not_silence_the_next_call(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "scene.png", landscape(60, 60), driver="PNG", crs=None, transform=None)
    run("segment", scene, "-o", tmp_path / "a.tif", "-m", model_file(), "-q")
    assert "warning" in run("segment", scene, "-o", tmp_path / "b.tif", "-m", model_file()).err


def test_errors_are_told_however_quiet(tmp_path, model_file, run):
    outcome = run("segment", tmp_path / "none.tif", "-o", tmp_path / "mask.tif", "-m", model_file(), "-q")
    assert outcome.code == 1
    assert outcome.err.startswith("glraster: error: ")


def test_dry_run_tells_the_cost_and_writes_nothing(scene, tmp_path, model_file, run):
    before = sorted(tmp_path.rglob("*"))
    text = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file("full"), "--dry-run")
    estimate = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file("full"), "--dry-run", "--json")
    assert sorted(tmp_path.rglob("*")) == before
    assert [line.split()[0] for line in text.out.splitlines()] == [
        "windows",
        "tiles",
        "compute",
        "parts",
        "memory",
        "time",
    ]
    cost = json.loads(estimate.out)
    assert (cost["windows"], cost["tiles"]) == (2, 8)
    assert cost["parts_bytes"] >= 3 * 2 * 150 * 200 / 16
    assert all(cost[key] > 0 for key in ("tera_flop", "memory_bytes", "seconds"))


def test_dry_run_checks_what_the_run_would_check(tmp_path, model_file, run):
    scene = write_raster(tmp_path / "two.tif", landscape(60, 60, 2))
    outcome = run("segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file(), "--dry-run")
    assert (outcome.code, outcome.out) == (1, "")
    assert "has 2 bands without alpha, the model needs 3" in outcome.err


def test_model_and_device_may_come_from_the_environment(scene, tmp_path, model_file, monkeypatch, run):
    monkeypatch.setenv("GLRASTER_MODEL", str(model_file()))
    assert run("segment", scene, "-o", tmp_path / "mask.tif").code == 0
    monkeypatch.setenv("GLRASTER_DEVICE", "foo")
    outcome = run("segment", scene, "-o", tmp_path / "other.tif")
    assert outcome.code != 0
    assert "'foo'" in outcome.err


def test_closed_pipe_is_no_traceback(scene, tmp_path, model_file):
    command = [sys.executable, "-m", "glraster_cli", "segment", scene, "-o", tmp_path / "mask.tif", "-m", model_file()]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert "Traceback" not in errors
    assert (tmp_path / "mask.tif").exists()
