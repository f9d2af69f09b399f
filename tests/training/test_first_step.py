"""The first training step is that of the authors' released code, from the same weights and scenes.

`tests/data/training_ref.json` is what `reference_part` keeps of numbers made with the released code, on the
checkpoints and scenes of `tests/model/official_inputs.py`.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from model.official_inputs import make_label, official_state
from model.test_parity import view
from torch import Tensor

from glraster.config import Architecture
from glraster.model.glnet import GLNet
from glraster.model.official import _official_name
from glraster.training.dataset import Sample
from glraster.training.losses import make_loss
from glraster.training.stages import STAGES, make_optimizer, set_training
from glraster.training.steps import StepLosses, train_step

TOLERANCE = 1e-4
ROUNDING = 1e-2
"""For gradient norms of a backbone's layers before the last: there float32 itself is no surer than this.

Measured: with two threads all numbers of all runs are within 5e-7 of the reference; with one thread, which sums in
another order, these are off by up to 4e-3, and so they are in float64. The rest stays within 1e-4 with either.
"""
COMMITTED = Path(__file__).parents[1] / "data" / "training_ref.json"
SHARED = Path(__file__).parents[3] / "shared" / "parity" / "training_ref.json"
MODES = {1: "global", 2: "local", 3: "full"}
SCENE_PX, SIDE_PX, CLASSES = 300, 128, 3


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """One thread: maps are so small that a second one spins more than it computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def reference_part(run: dict[str, Any]) -> dict[str, Any]:
    """What the tests use of one run of the reference."""
    norms = {
        kind: {
            name: {norm: entry[norm] for norm in ("grad_norm", "update_norm")}
            for name, entry in run[kind].items()
            if entry["grad_norm"]
        }
        for kind in ("by_module", "tensors")
    }
    return {
        "seeds": run["seeds"],
        "losses": run["losses_in_call_order"],
        "similarity": run["fmreg_mse_in_call_order"],
        "modules": norms["by_module"],
        "tensors": norms["tensors"],
        "buffers": {name: entry["after"] for name, entry in run["bn_buffers"].items()},
        "batches": run["num_batches_tracked"],
    }


@pytest.mark.skipif(not SHARED.is_file(), reason="needs ../shared")
def test_the_committed_numbers_are_those_of_the_reference() -> None:
    runs = json.loads(SHARED.read_text())["runs"]
    assert json.loads(COMMITTED.read_text()) == {name: reference_part(run) for name, run in runs.items()}


@functools.cache
def official_part(part: str) -> dict[str, Tensor]:
    return official_state(1, CLASSES, part)


def starting_model(mode: int) -> GLNet:
    """The network at the first step of the reference: the stage before it is another checkpoint."""
    parts = {"guide": "g", "local": "g2l", "refined": "g2l", "aggregate": "g" if mode == 2 else "g2l"}
    with torch.device("meta"):
        model = GLNet(Architecture(MODES[mode], bands=3, classes=CLASSES))
    weights = {
        name: official_part(parts[name.partition(".")[0]])[f"module.{_official_name(name)}"].clone()
        for name in model.state_dict()
    }
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_()


def scene_sample(seed: int) -> Sample:
    """One scene of the reference; the window's label is as large as the scene."""
    seen = view((seed, SCENE_PX, SCENE_PX), SIDE_PX)
    label = torch.from_numpy(make_label(seed, SCENE_PX, SCENE_PX, CLASSES))
    corners = [(y, x) for y in seen.tiling.tops for x in seen.tiling.lefts]
    tile_labels = torch.stack([label[y : y + SIDE_PX, x : x + SIDE_PX] for y, x in corners])
    return Sample(seen.thumbnail[0], label, seen.tiles, tile_labels, seen.tiling)


def norm(tensors: Iterable[Tensor]) -> float:
    return float(torch.stack([torch.linalg.vector_norm(x.detach(), dtype=torch.float64) for x in tensors]).norm())


def in_call_order(losses: StepLosses) -> list[float]:
    """Losses as the reference lists them: windows first, then per sub-batch the local head's and the aggregated one."""
    windows = [*losses.terms.get("guide", ()), *losses.terms.get("refined", ())]
    local, aggregated = (losses.terms.get(term, ()) for term in ("local", "aggregated"))
    tiles = [value for pair in zip(local, aggregated, strict=True) for value in pair] if local else [*aggregated]
    return windows + tiles


@pytest.mark.parametrize(
    ("mode", "batch"),
    [
        (1, 1),
        (1, 2),
        pytest.param(2, 1, marks=pytest.mark.slow),
        pytest.param(2, 2, marks=pytest.mark.slow),
        (3, 1),
        pytest.param(3, 2, marks=pytest.mark.slow),
    ],
)
def test_the_first_step_is_the_authors(mode: int, batch: int) -> None:
    expected = json.loads(COMMITTED.read_text())[f"mode{mode}_batch{batch}"]
    model, stage = starting_model(mode), STAGES[MODES[mode]]
    set_training(model, stage)
    before = {name: x.clone() for name, x in model.named_parameters() if x.requires_grad}
    losses = train_step(model, stage, [scene_sample(seed) for seed in expected["seeds"]], make_loss("focal"))
    make_optimizer(model, stage).step()

    assert in_call_order(losses) == pytest.approx(expected["losses"], rel=TOLERANCE)
    assert [*losses.terms.get("similarity", ())] == pytest.approx(expected["similarity"], rel=TOLERANCE)
    assert_norms(model, before, expected)
    assert_buffers(model, mode, expected)


def assert_norms(model: GLNet, before: dict[str, Tensor], expected: dict[str, Any]) -> None:
    """Gradients and updates per tensor and per module are those of the reference, and nothing else moved."""
    modules = defaultdict(list)
    for name, x in model.named_parameters():
        assert (x.grad is not None) == (name in before)
        if x.grad is None:
            continue
        official = _official_name(name)
        change = (x.grad, x.detach() - before[name])
        modules[official.partition(".")[0]].append(change)
        if official in expected["tensors"]:
            assert_change([change], expected["tensors"][official], _rounding(official))
    assert modules.keys() == expected["modules"].keys()
    for official, changes in modules.items():
        assert_change(changes, expected["modules"][official], _rounding(official))


def _rounding(official: str) -> float:
    return ROUNDING if official.startswith("resnet_") and ".layer4." not in official else TOLERANCE


def assert_change(changes: list[tuple[Tensor, Tensor]], expected: dict[str, float], rounding: float) -> None:
    gradients, updates = zip(*changes, strict=True)
    assert norm(gradients) == pytest.approx(expected["grad_norm"], rel=rounding)
    assert norm(updates) == pytest.approx(expected["update_norm"], rel=TOLERANCE)


def assert_buffers(model: GLNet, mode: int, expected: dict[str, Any]) -> None:
    branches = {"resnet_global": "refined" if mode == 3 else "guide", "resnet_local": "local"}
    for official, value in expected["buffers"].items():
        side, _, rest = official.partition(".")
        if mode > 1 or side == "resnet_global":
            buffers = dict(getattr(model, branches[side]).backbone.named_buffers())
            assert norm([buffers[rest]]) == pytest.approx(value, rel=TOLERANCE)
            assert int(buffers["bn1.num_batches_tracked"]) == expected["batches"][side]
