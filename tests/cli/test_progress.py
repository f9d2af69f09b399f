"""What a terminal shows while several scenes are mapped; nothing of it reaches standard output."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading

import pytest
from rasters import landscape, write_raster


@pytest.fixture
def terminal():
    """A terminal as a file descriptor, and what appeared on it once it is closed."""
    shown, (ours, theirs) = [], pty.openpty()

    def read():
        try:
            while text := os.read(ours, 2**16):
                shown.append(text)
        except OSError:  # the last writer has closed it
            pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    def close():
        os.close(theirs)
        reader.join(timeout=30)
        return b"".join(shown).decode()

    yield theirs, close
    os.close(ours)


@pytest.mark.parametrize("quiet", [False, True], ids=["shown", "quiet"])
def test_a_bar_counts_scenes_and_names_the_one_at_work(quiet, terminal, tmp_path, model_file):
    (tmp_path / "scenes").mkdir()
    scenes = [write_raster(tmp_path / "scenes" / f"{name}[1].tif", landscape(330, 300, seed=3)) for name in "ab"]
    screen, close = terminal
    call = ["segment", *scenes, "-o", tmp_path / "maps", "-m", model_file(), *(["-q"] if quiet else [])]
    command = [sys.executable, "-m", "glraster_cli", *map(str, call)]
    size = {"COLUMNS": "120", "TERM": "xterm"}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=screen, env=os.environ | size, timeout=180, check=True, text=True
    )
    shown = close()
    assert ("1/2" in shown, "b[1].tif segmenting" in shown) == ((False, False) if quiet else (True, True))
    assert done.stdout.splitlines()[-1] == "2 scenes: 2 done"
    assert "segmenting" not in done.stdout
