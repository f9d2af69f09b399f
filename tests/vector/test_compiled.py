"""Machine code: made once, told where somebody waits for it, and made anew when a part of it changed."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

from rasters import write_raster
from vector.masks import blobs

PREPARING = "preparing the tracer for this machine, once"


def on_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What a command prints on a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=os.environ | environment) as process:
        os.close(theirs)
        printed = b""
        try:
            while piece := os.read(ours, 4096):
                printed += piece
        except OSError:  # Linux: the other side has closed
            pass
    os.close(ours)
    assert process.returncode == 0, printed
    return printed.decode()


def test_the_first_run_on_a_machine_says_why_it_takes_long(tmp_path: Path) -> None:
    """Takes half a minute on one core: everything is compiled."""
    mask = write_raster(tmp_path / "mask.tif", blobs(60, 80, seed=1)[None], nodata=0)
    command = [sys.executable, "-m", "glraster_cli", "vectorize", str(mask), "--layer", "cover", "-o"]
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    first = on_a_terminal([*command, str(tmp_path / "first.fgb")], environment)
    again = on_a_terminal([*command, str(tmp_path / "again.fgb")], environment)
    assert first.count(PREPARING) == 1
    assert PREPARING not in again
    assert (tmp_path / "first.fgb").read_bytes() == (tmp_path / "again.fgb").read_bytes()


PART = "from glraster.vector.compiled import inlined\n@inlined\ndef part(x):\n    return x + {}\n"
WHOLE = (
    "import numpy as np\nfrom glraster.vector.compiled import compiled, first_compilation\nfrom part import part\n"
    "@compiled\ndef whole(x):\n    return part(x)\n"
    "told = []\nwith first_compilation(told.append):\n    print(whole(np.int64(1)), len(told))\n"
)


def test_a_changed_part_in_another_file_is_compiled_again(tmp_path: Path) -> None:
    (tmp_path / "whole.py").write_text(WHOLE)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    printed = []
    for added, minutes in ((1, 2), (1, None), (10, 0)):
        if minutes is not None:
            (tmp_path / "part.py").write_text(PART.format(added))
            _age(tmp_path, minutes)
        command = [sys.executable, "-c", "import whole"]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        printed.append(ended.stdout.split())
    assert printed == [["2", "1"], ["2", "0"], ["11", "1"]]


def _age(folder: Path, minutes: int) -> None:
    """Let the part be that old; what was compiled before is a minute old."""
    now = time.time()
    os.utime(folder / "part.py", (now - 60 * minutes,) * 2)
    for index in folder.glob("cache/**/*.nbi"):
        os.utime(index, (now - 60,) * 2)
