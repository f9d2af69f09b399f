"""What the fault campaign runs: a scene, three commands on it, and how to tell their outputs apart."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "examples")]

LONGEST_S = 900
"""A command that takes longer hangs."""

TRAINING = {"stem": 8, "width": 8, "tile_px": 64, "thumbnail_px": 64, "batch": 2, "warm_up": 2}
CATALOG = """name: faults
classes:
  - {{id: 0, name: building, color: [200, 60, 50]}}
  - {{id: 1, name: bare land, color: [205, 178, 132]}}
  - {{id: 2, name: road, color: [90, 90, 96]}}
  - {{id: 3, name: vegetation, color: [86, 140, 62]}}
  - {{id: 4, name: water, color: [52, 104, 176]}}
ignore: [255]
bands: 3
context_px: 256
labels: {{encoding: index}}
splits:
  train: [{{image: scene.tif, label: scene_truth.tif, window: [256, 0, {rows}, {side}]}}]
  val: [{{image: scene.tif, label: scene_truth.tif, window: [0, 0, 256, {side}]}}]
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """What `--json` printed."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    def untidy(self) -> list[str]:
        """What is wrong with the manners of a failure: status 1 and one line; a catalog's problems stand below it."""
        lines = [line for line in self.err.splitlines() if not line.startswith(("glraster: warning: ", "  "))]
        if self.code == 1 and not self.out and len(lines) == 1 and lines[0].startswith("glraster: error: "):
            return []
        return [f"ended with {self.code} and said {self.err[-500:]!r}"]


def nothing_kept(_: Path) -> int:
    """What a command keeps that always starts anew."""
    return 0


@dataclass(frozen=True)
class Command:
    """A command under test; all it writes lies in one folder.

    Attributes:
        line: its arguments; `FOLDER` stands for that folder.
        outputs: names of the files in the folder that must never be there half-written.
        digest: of an output's content, as far as it must be the same in every run; raises where it is damaged.
        kept: finished units of work (windows, steps) that an interrupted run left in the folder.
        redone: units that a run did anew, from its result.
        replaces: whether it has `--overwrite`; a training's folder is never replaced.
    """

    name: str
    line: tuple[str, ...]
    outputs: tuple[str, ...]
    digest: Callable[[Path], str]
    kept: Callable[[Path], int] = nothing_kept
    redone: Callable[[Mapping[str, Any]], int] = lambda _: 0
    replaces: bool = True

    def call(self, folder: Path, *options: str) -> list[str]:
        """The command line of a run."""
        arguments = [part.replace("FOLDER", str(folder)) for part in self.line]
        return [sys.executable, "-m", "glraster_cli", *arguments, "--json", "-q", *options]


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run left and took: digests and names of its files, units, seconds to the last rename."""

    digests: Mapping[str, str]
    names: frozenset[str]
    units: int
    seconds: float


@dataclass
class Case:
    """One attempt to lose something; `lost` names all that was."""

    group: str
    command: str
    what: str
    lost: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""


def start(call: list[str], said: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A command in a session of its own, so that all its processes can be found and killed."""
    with said.with_suffix(".out").open("wb") as out, said.with_suffix(".err").open("wb") as err:
        return subprocess.Popen(
            call, stdout=out, stderr=err, stdin=subprocess.DEVNULL, start_new_session=True, env=os.environ | environment
        )


def ended(process: subprocess.Popen[bytes], said: Path) -> Ended:
    """Wait for the end of what was started."""
    try:
        code = process.wait(LONGEST_S)
    except subprocess.TimeoutExpired:
        code = 124
    finally:
        process.kill()  # it is still there where it hangs, or where the campaign is interrupted
        process.wait()
    texts = (said.with_suffix(ending).read_text(errors="replace") for ending in (".out", ".err"))
    return Ended(code, *texts)


def run(call: list[str], said: Path, **environment: str) -> Ended:
    """Run a command to its end."""
    return ended(start(call, said, **environment), said)


def file_digest(path: Path) -> str:
    """A digest of all bytes of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def feature_digest(path: Path) -> str:
    """A digest of a layer's features, whatever their order; a GeoPackage's bytes hold the time."""
    from pyogrio.raw import read

    _, _, geometries, values = read(path, layer=path.stem)
    rows = sorted(repr((geometries[i], [column[i] for column in values])) for i in range(len(geometries)))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def training_digest(path: Path) -> str:
    """A digest of a model's or a checkpoint's weights, or of what a training measured; a model also holds the date."""
    if path.suffix == ".jsonl":
        lines = path.read_bytes().splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith(b"\n")]  # a killed training may cut the last one
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()
    digest = hashlib.sha256()
    for name, values in sorted(_weights(path).items()):
        digest.update(name.encode() + values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _weights(path: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        return dict(load_file(path))
    state = torch.load(path, weights_only=True)
    return {f"{part}.{name}": values for part in ("model", "averaged") for name, values in state[part].items()}


def windows_kept(folder: Path) -> int:
    """Finished windows of an interrupted segmentation."""
    return len(list((folder / "mask.tif.parts").glob("window_*.npy")))


def steps_kept(folder: Path) -> int:
    """Steps in the checkpoint of an interrupted training; none in a damaged one."""
    import torch

    try:
        return int(torch.load(folder / "run" / "last.pt", weights_only=True)["step"])
    except (OSError, RuntimeError, EOFError, ValueError):
        return 0


def make_commands(folder: Path, side: int, seed: int) -> dict[str, Command]:
    """Draw the scene, its truth, a mosaic and a catalog in a folder; return the commands by name."""
    from make_scene import make_scene
    from memory import repeat

    scene, truth = make_scene(folder / "scene.tif", seed=seed, width=side, height=side)
    mosaic = repeat(truth, max(2, side // 300), folder / "mosaic.vrt")
    catalog = folder / "catalog.yaml"
    catalog.write_text(CATALOG.format(rows=side - 256, side=side))
    epoch = max(4, side // 64)
    settings = [f"{key}={value}" for key, value in TRAINING.items()] + [
        f"steps={4 * epoch}",
        f"steps_per_epoch={epoch}",
    ]
    outputs = ("mask.tif", "mask.tif.aux.xml", "confidence.tif")
    segment = ("segment", str(scene), "-o", "FOLDER/mask.tif", "--confidence", "FOLDER/confidence.tif")
    windows = (outputs, file_digest, windows_kept, lambda result: int(result["windows_done"]))
    train = ("train", str(catalog), "-o", "FOLDER/run", *(part for setting in settings for part in ("--set", setting)))
    vectorize = ("vectorize", str(mosaic), "-o", "FOLDER/polygons.gpkg")
    files = ("model.safetensors", "model_joint.safetensors", "last.pt", "best.pt", "metrics.jsonl")
    steps = (tuple(f"run/{name}" for name in files), training_digest, steps_kept)
    found = [
        Command("segment", (*segment, "--context", "512"), *windows),
        Command("segment --workers 2", (*segment, "--context", "512", "--workers", "2"), *windows),
        Command("train", train, *steps, lambda result: int(result["steps"]), replaces=False),
        Command("vectorize", vectorize, ("polygons.gpkg",), feature_digest),
    ]
    return {command.name: command for command in found}


def names_in(folder: Path) -> frozenset[str]:
    """All files and folders in a folder; event files are named after the time."""
    found = (path for path in folder.rglob("*") if "tfevents" not in path.name)
    return frozenset(str(path.relative_to(folder)) for path in found)


def undisturbed(command: Command, folder: Path) -> Reference:
    """Run a command without faults; only the second of two runs is timed where the first one compiles."""
    for _ in range(1 + (command.name == "vectorize")):
        with working_folder(folder) as place:
            began = time.time()
            done = run(command.call(place), folder / "said")
            if done.code:
                raise SystemExit(f"{command.name} fails without any fault: {done.err}")
            digests = {name: command.digest(place / name) for name in command.outputs}
            seconds = max((place / name).stat().st_ctime for name in command.outputs) - began
            reference = Reference(digests, names_in(place), command.redone(done.result), seconds)
    return reference


OLDER = b"an older file, which stays until it is replaced"


def put_older(command: Command, folder: Path) -> None:
    """Files of an earlier run in the place of the outputs."""
    for name in command.outputs:
        (folder / name).write_bytes(OLDER)


def torn(command: Command, reference: Reference, folder: Path) -> list[str]:
    """Outputs in a folder that are neither absent nor older nor whole."""
    found = []
    for name in command.outputs:
        path = folder / name
        if not path.exists() or path.read_bytes() == OLDER:
            continue
        try:
            same = command.digest(path) == reference.digests[name] or not command.replaces
        except Exception as error:  # every kind means a damaged file
            same = False
            name = f"{name} ({type(error).__name__})"
        if not same:
            found.append(f"{name} is there half-written")
    return found


def is_whole(command: Command, reference: Reference, folder: Path) -> bool:
    """Whether all is there as after an undisturbed run."""
    return names_in(folder) == reference.names and not differing(command, reference, folder)


def differing(command: Command, reference: Reference, folder: Path) -> list[str]:
    """Outputs in a folder that are not as after an undisturbed run."""
    found = []
    for name, digest in reference.digests.items():
        try:
            same = command.digest(folder / name) == digest
        except Exception:  # every kind means a damaged or missing file
            same = False
        if not same:
            found.append(f"{name} differs from an undisturbed run's")
    left = names_in(folder) - reference.names
    return found + ([f"left behind: {', '.join(sorted(left))}"] if left else [])


@contextmanager
def working_folder(parent: Path) -> Iterator[Path]:
    """An empty folder, gone afterwards."""
    folder = parent / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
