"""The loop in float16 skips a step that overflows; teams divide batches evenly."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training.test_stages import gradients, small_model, small_sample

from glraster.errors import ModelError, UsageError
from glraster.training.dataset import Sample
from glraster.training.ddp import ALONE, Team, TeamNorm, synchronise
from glraster.training.fit import Fit, Length, StepReport, check_division, mixed_precision
from glraster.training.losses import make_loss
from glraster.training.recipes import Recipe
from glraster.training.stages import STAGES, set_training
from glraster.training.steps import StepForm, train_step

RECIPE = Recipe(backbone="resnet18", stem=16, width=16, batch=2, sub_batch=4, ema=0.0, learning_rate=1e-3)


class Samples:
    """The same windows again and again."""

    def sample(self, number: int) -> Sample:
        return small_sample(1 + number % 2, (0, 64))


def run(fit: Fit, dtype: torch.dtype, steps: int) -> Iterator[StepReport]:
    return itertools.islice(fit.run(Samples(), make_loss("ce"), dtype), steps)  # type: ignore[arg-type]


def test_scaled_gradients_are_multiples_and_losses_are_not() -> None:
    found = []
    for scale in (1.0, 256.0):
        model = small_model("local")
        set_training(model, STAGES["joint"])
        losses = train_step(
            model, STAGES["joint"], [small_sample(1, (0, 64))], make_loss("ce"), 4, StepForm(scale=scale)
        )
        found.append((losses, gradients(model)))
    assert found[0][0] == found[1][0]
    for name, gradient in found[0][1].items():
        assert torch.allclose(gradient * 256, found[1][1][name], rtol=1e-4, atol=1e-6), name


def test_bfloat16_trains_as_float32_does() -> None:
    losses = {}
    for kind in (torch.float32, torch.bfloat16):
        fit = Fit(small_model("local"), RECIPE.stage("joint"), RECIPE, Length(8, 8))
        losses[kind] = [report.losses.total for report in run(fit, kind, 8)]
    assert losses[torch.bfloat16][0] == pytest.approx(losses[torch.float32][0], rel=0.03)
    assert losses[torch.bfloat16][-1] < 0.9 * losses[torch.bfloat16][0]


def test_a_step_that_overflows_is_left_out_and_the_scale_falls(tmp_path: Path) -> None:
    fit = Fit(small_model("local"), RECIPE.stage("joint"), RECIPE, Length(9, 9))
    fit._scaler_state = {
        "scale": 2.0**40,
        "growth_factor": 2.0,
        "backoff_factor": 0.5,
        "growth_interval": 2000,
        "_growth_tracker": 0,
    }
    before = {name: x.clone() for name, x in fit.model.named_parameters()}
    list(run(fit, torch.float16, 1))
    assert all(torch.equal(x, before[name]) for name, x in fit.model.named_parameters())
    assert fit.scaler.get_scale() == 2.0**39
    fit.save(tmp_path / "last.pt")
    again = Fit(small_model("local"), RECIPE.stage("joint"), RECIPE, Length(9, 9))
    again.restore(tmp_path / "last.pt")
    list(run(again, torch.float16, 1))
    assert again.scaler.get_scale() == 2.0**38


def test_the_half_format_of_a_processor_is_bfloat16() -> None:
    assert mixed_precision(torch.device("cpu")) is torch.bfloat16


def test_a_checkpoint_of_another_network_is_told(tmp_path: Path) -> None:
    fit = Fit(small_model("local"), RECIPE.stage("joint"), RECIPE, Length(9, 9))
    fit.save(tmp_path / "last.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    with pytest.raises(ModelError, match=r"last\.pt: does not fit this training"):
        Fit(small_model("full"), RECIPE.stage("joint"), RECIPE, Length(9, 9)).restore(tmp_path / "last.pt")


def test_a_batch_is_divided_evenly_and_wholly() -> None:
    for chunk in (2, 4, 12):
        parts = [Team(rank, 2).part(range(12, 24), chunk) for rank in range(2)]
        assert sorted(parts[0] + parts[1]) == list(range(12, 24))
        assert len(parts[0]) == len(parts[1])
        # every process has its half of each chunk
        assert [sum(12 <= n < 12 + chunk for n in part) for part in parts] == [chunk // 2] * 2
    assert ALONE.part(range(5), 3) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("batch", "sub_batch", "size"), [(3, 12, 2), (6, 6, 2), (6, 12, 4)])
def test_a_batch_that_cannot_be_divided_is_told(batch: int, sub_batch: int, size: int) -> None:
    recipe = Recipe(batch=batch, sub_batch=sub_batch, tiles=(1, 2))
    with pytest.raises(
        UsageError, match=f"cannot be divided evenly among {size} processes: choose another --set batch"
    ):
        check_division("local", recipe.stage("joint"), recipe, Team(0, size))
    check_division("local", recipe.stage("joint"), recipe, ALONE)


def test_norms_of_a_team_of_one_are_batch_norms() -> None:
    """The same values, gradients and statistics; over several processes see tests/training/test_train_team.py."""
    torch.manual_seed(0)
    plain, own = torch.nn.BatchNorm2d(5), TeamNorm(5)
    for norm in (plain, own):
        torch.nn.init.uniform_(norm.weight, 0.5, 2, generator=torch.Generator().manual_seed(1))
    x = torch.randn(4, 5, 6, 7) * 3 + 20
    results = []
    for norm in (plain, own):
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        (y * torch.arange(y.numel()).view_as(y).cos()).sum().backward()
        assert leaf.grad is not None
        assert norm.weight.grad is not None
        frozen = norm.eval()(x)
        results.append(
            [y, leaf.grad, norm.weight.grad, norm.running_mean, norm.running_var, norm.num_batches_tracked, frozen]
        )
        norm.train().track_running_stats = False
        norm(x)
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-4)
    assert int(own.num_batches_tracked) == 1


def test_synchronising_keeps_names_and_weights() -> None:
    model = small_model("local")
    before = {name: x.clone() for name, x in model.state_dict().items()}
    synchronise(model, ALONE)
    assert not any(isinstance(module, TeamNorm) for module in model.modules())
    synchronise(model.guide, Team(0, 2))
    assert {type(m) for m in model.guide.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {TeamNorm}
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert list(model.state_dict()) == list(before)


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_checkpoint_that_cannot_be_written_to_its_end_is_the_systems_error(tmp_path: Path, share: float) -> None:
    """As on a full disk. torch ends with an error of its own; what tells the user why is the system's."""
    fit = Fit(small_model("local"), RECIPE.stage("joint"), RECIPE, Length(8, 8))
    fit.save(tmp_path / "last.pt")
    before = (tmp_path / "last.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(len(before) * share), limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            fit.save(tmp_path / "last.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert (tmp_path / "last.pt").read_bytes() == before
