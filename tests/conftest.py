"""What every test may use: model files with random weights, and the command line in this process."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from training.scenes import SMALL, write_catalog

# torch's threads spin while they wait: on cores that test processes share they make a test ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CLASSES = ((3, "building & roof", (200, 30, 30)), (7, "bare land", (180, 150, 90)), (1, "water", (40, 90, 200)))
"""Ids that ascend nowhere, so that an index taken for an id cannot hide; a name that XML must escape."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


_COLLECT_BYTES = 350 * 2**20
"""Growth of this process after which what tests left behind is collected."""

_collected_at = 0


def pytest_runtest_teardown() -> None:
    """Free what cycles hold: `pytest.raises(...) as raised` keeps the frames of a whole segmentation.

    Threads that are gone leave free memory of their own behind, which glibc gives back on request only.
    """
    global _collected_at
    process = psutil.Process()
    if process.memory_info().rss > _collected_at + _COLLECT_BYTES:
        gc.collect()
        with contextlib.suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)
        _collected_at = process.memory_info().rss


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Model files of a small network with random weights, each form written once: `model_file(mode, bands, **spec)`."""
    folder = tmp_path_factory.mktemp("models")

    @functools.cache
    def make(mode: str = "local", bands: int = 3, seed: int = 0, **spec: Any) -> Path:
        path = folder / f"{mode}-{bands}-{seed}-{'-'.join(map(str, spec.values()))}.safetensors"
        _save_random(path, mode, bands, seed, spec)
        return path

    yield make
    shutil.rmtree(folder)


def _save_random(path: Path, mode: str, bands: int, seed: int, spec: dict[str, Any]) -> None:
    import torch

    from glraster.config import Architecture, LandClass, ModelSpec
    from glraster.model.checkpoint import save
    from glraster.model.glnet import GLNet

    torch.manual_seed(seed)
    architecture = Architecture(mode, bands, classes=len(CLASSES), backbone="resnet18", width=16)
    network = GLNet(architecture)
    for name, weight in network.named_parameters():
        if weight.dim() == 4 and ("fpn" in name or "aggregate" in name):
            torch.nn.init.kaiming_normal_(weight)
    sizes = {"context_px": 128, "tile_px": 96, "thumbnail_px": 64, "mean": (0.35,), "std": (0.2,)}
    classes = tuple(LandClass(*c) for c in CLASSES)
    save(network.eval(), ModelSpec(architecture, classes, **(sizes | spec)), path)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call the command line in this process: `run("segment", scene, "-o", mask)`."""
    from glraster_cli.main import main

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        printed = capfd.readouterr()
        return Outcome(int(ended.value.code or 0), printed.out, printed.err)

    return call


@pytest.fixture
def pointwise_model(model_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model file whose network sees no surroundings: a cell brighter than 0.4 is of the second class, else the first.

    Its scores are linear in the brightness of the cell's first band, and the same for every branch.
    """
    import torch

    from glraster.segmentation import job as prepare

    class Pointwise(torch.nn.Module):
        def global_logits(self, image: torch.Tensor) -> torch.Tensor:
            brightness = torch.nn.functional.avg_pool2d(image[:, :1], 4, ceil_mode=True) * 0.2 + 0.35
            return torch.cat([4 - 10 * brightness, 10 * brightness - 4, 0 * brightness - 20], dim=1)

        def tile_logits(self, _thumbnail: object, tiles: Iterator[torch.Tensor], *_: object) -> Iterator[torch.Tensor]:
            return map(self.global_logits, tiles)

    load = prepare.load
    monkeypatch.setattr(prepare, "load", lambda path: (Pointwise(), load(path)[1]))
    monkeypatch.setattr(prepare, "FoldedGLNet", lambda network, *_: network)
    return model_file("full")


@pytest.fixture
def evaluated(run):
    """Call `glraster evaluate` and return its JSON."""

    def call(*arguments):
        outcome = run("evaluate", *arguments, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    return call


@pytest.fixture(scope="session")
def cluster():
    """Two processes of this machine, shared by all tests that spread work."""
    from glraster.cluster.client import connected

    with connected(workers=2) as found:
        yield found


@pytest.fixture(scope="session")
def catalog(tmp_path_factory):
    """The catalog of three small scenes; not to be changed."""
    return write_catalog(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def finished(catalog, tmp_path_factory):
    """The folder of an undisturbed training with the settings `SMALL`; not to be changed."""
    from glraster.training.train import TrainOptions, train

    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(catalog, folder, TrainOptions(settings=SMALL))
    return folder


@pytest.fixture(scope="session")
def interrupted_once(catalog, tmp_path_factory):
    """The folder of the same training, interrupted at step 3, a step after the first checkpoint."""
    from glraster.training.train import TrainOptions, train

    def interrupt(report: object) -> None:
        if report.step == 3:
            raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("runs") / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        train(catalog, folder, TrainOptions(settings=SMALL), interrupt)
    return folder


@pytest.fixture
def interrupted(interrupted_once, tmp_path):
    """A copy of the folder of an interrupted training, to go on in."""
    return Path(shutil.copytree(interrupted_once, tmp_path / "interrupted"))
