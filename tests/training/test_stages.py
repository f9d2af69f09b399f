"""Stages move what they say, start from one another, and the joint one is plain autograd in parts, and learns."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
import torch
from model.official_inputs import make_image, make_label
from torch import Tensor

from glraster.config import Architecture
from glraster.errors import ModelError, UsageError
from glraster.model.fpn import Maps, Shared
from glraster.model.glnet import GLNet
from glraster.model.sharing import Collage, Tiling, crop_shared
from glraster.training.dataset import Sample
from glraster.training.fit import Fit, Length
from glraster.training.losses import make_loss
from glraster.training.recipes import Recipe
from glraster.training.stages import STAGES, Weights, make_optimizer, poly_rate, set_training, start_stage
from glraster.training.steps import train_step

CLASSES = 3


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """One thread: maps are so small that a second one spins more than it computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def norm(tensors: Iterable[Tensor]) -> float:
    return float(torch.stack([x.detach().double().norm() for x in tensors]).norm())


def small_model(mode: str, seed: int = 0) -> GLNet:
    """A small network whose pyramids start with weights large enough that every branch matters."""
    torch.manual_seed(seed)
    model = GLNet(Architecture(mode, bands=3, classes=CLASSES, backbone="resnet18", width=16, stem=16))
    for name, x in model.named_parameters():
        if x.dim() == 4 and "backbone" not in name:
            torch.nn.init.kaiming_normal_(x, nonlinearity="linear")
    return model


def small_sample(seed: int, offsets: tuple[int, ...] = (0, 32, 64)) -> Sample:
    """A window of 128 px with four kinds of ground, of which one is not labelled, and tiles of 64 px."""
    label = torch.from_numpy(make_label(seed, 128, 128, 4))
    pixels = torch.from_numpy(make_image(seed, 128, 128)).permute(2, 0, 1) / 255 * 0.2
    pixels = pixels + torch.tensor([[0.0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0]])[:, label.long()]
    label[label == 3] = 255
    corners = [(y, x) for y in offsets for x in offsets]
    tiles = torch.stack([pixels[:, y : y + 64, x : x + 64] for y, x in corners])
    tile_labels = torch.stack([label[y : y + 64, x : x + 64] for y, x in corners])
    return Sample(pixels[:, ::2, ::2], label, tiles, tile_labels, Tiling(128, 128, 64, 64, offsets, offsets))


def gradients(model: GLNet) -> dict[str, Tensor]:
    return {name: x.grad.clone() for name, x in model.named_parameters() if x.grad is not None}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    largest = max(norm([x]) for x in expected.values())
    for name, x in expected.items():
        assert norm([actual[name] - x]) <= tolerance * max(norm([x]), 1e-3 * largest), name


def joint_sum(model: GLNet, weights: Weights, samples: list[Sample], sub_batch: int) -> Tensor:
    """The loss of the joint stage in one graph, written as the definition says."""
    loss, (thumbnails, labels) = make_loss("ce"), windows(samples)
    guide = model.guide(thumbnails)
    guides = [part(guide, i) for i in range(len(samples))]
    contexts, total = [seen.ps3 for seen in guides], weights.guide * loss(guide.logits, labels)
    if model.refined is not None:
        merged = zip(*[merge(model, *both, sub_batch) for both in zip(samples, guides, strict=True)], strict=True)
        refined = model.refined(thumbnails, [[torch.cat(x) for x in zip(*levels, strict=True)] for levels in merged])
        contexts, total = [*refined.ps3.split(1)], total + weights.refined * loss(refined.logits, labels)
    tiles_of_all = sum(len(sample.tiles) for sample in samples)
    for sample, seen, context in zip(samples, guides, contexts, strict=True):
        for first, maps in model.local_maps(sample.tiles.split(sub_batch), seen, sample.tiling):
            votes = model.tile_votes(maps.ps3)
            votes = votes + model.window_votes(context, sample.tiling, first, votes.shape)
            target = sample.tile_labels[first : first + len(votes), 2::4, 2::4]
            tiles = weights.local * loss(maps.logits, target) + weights.aggregated * loss(votes, target)
            total = total + tiles * len(votes) / tiles_of_all
    return total


def windows(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    labels = torch.stack([sample.thumbnail_label for sample in samples])
    return torch.stack([sample.thumbnail for sample in samples]), labels[:, 4::8, 4::8]


def part(maps: Maps, i: int) -> Maps:
    shared = tuple(tuple(level[i : i + 1] for level in levels) for levels in maps.shared)
    return Maps(shared, maps.ps3[i : i + 1], maps.logits[i : i + 1])


def merge(model: GLNet, sample: Sample, guide: Maps, sub_batch: int) -> Shared:
    collage = Collage(sample.tiling, guide.shared)
    for first, maps in model.local_maps(sample.tiles.split(sub_batch), guide, sample.tiling):
        collage.add(maps.shared, first)
    return collage.merged()


@pytest.mark.parametrize("mode", ["local", "full"])
def test_a_joint_step_is_autograd_of_the_whole_sum(mode: str) -> None:
    samples, stage = [small_sample(1), small_sample(2)], STAGES["joint"]
    model = small_model(mode)
    set_training(model, stage)
    plain = copy.deepcopy(model)
    total = joint_sum(plain, stage.weights, samples, sub_batch=4)
    total.backward()
    losses = train_step(model, stage, samples, make_loss("ce"), sub_batch=4)
    assert losses.total == pytest.approx(total.item(), rel=1e-5)
    assert_same(gradients(model), gradients(plain), 1e-3)


def test_a_step_of_tiles_alone_is_autograd_of_their_loss() -> None:
    samples, stage = [small_sample(1), small_sample(2)], STAGES["tiles"]
    model = small_model("tiles")
    set_training(model, stage)
    plain = copy.deepcopy(model)
    assert plain.local is not None
    loss, total = make_loss("ce"), torch.zeros(())
    for sample in samples:
        for tiles, label in zip(sample.tiles.split(4), sample.tile_labels.split(4), strict=True):
            total = total + loss(plain.local(tiles).logits, label[:, 2::4, 2::4]) * len(tiles) / 18
    total.backward()
    losses = train_step(model, stage, samples, loss, sub_batch=4)
    assert losses.total == pytest.approx(total.item(), rel=1e-5)
    assert list(losses.terms) == ["local"]
    assert_same(gradients(model), gradients(plain), 1e-3)


def test_windows_with_few_tiles_share_a_sub_batch() -> None:
    samples, stage = [small_sample(seed, (0, 64)) for seed in (1, 2)], STAGES["joint"]
    model = small_model("local")
    set_training(model, stage)
    plain = copy.deepcopy(model)
    assert plain.local is not None
    loss, (thumbnails, labels) = make_loss("ce"), windows(samples)
    guide = plain.guide(thumbnails)
    guides = [part(guide, i) for i in range(2)]
    crops = [crop_shared(seen.shared, sample.tiling, 0, 4) for seen, sample in zip(guides, samples, strict=True)]
    both = tuple(tuple(torch.cat(x) for x in zip(*levels, strict=True)) for levels in zip(*crops, strict=True))
    maps = plain.local(torch.cat([sample.tiles for sample in samples]), both)
    votes = [
        plain.window_votes(seen.ps3, sample.tiling, 0, maps.ps3[:4].shape)
        for seen, sample in zip(guides, samples, strict=True)
    ]
    target = torch.cat([sample.tile_labels for sample in samples])[:, 2::4, 2::4]
    total = 0.4 * loss(guide.logits, labels) + 0.4 * loss(maps.logits, target)
    total = total + loss(plain.tile_votes(maps.ps3) + torch.cat(votes), target)
    total.backward()
    losses = train_step(model, stage, samples, loss, sub_batch=8)
    assert losses.total == pytest.approx(total.item(), rel=1e-5)
    assert_same(gradients(model), gradients(plain), 1e-3)


def test_a_joint_step_moves_running_statistics_once_per_sub_batch() -> None:
    samples, model = [small_sample(1)], small_model("full")
    set_training(model, STAGES["joint"])
    other = small_model("local")
    start_stage(other, model)
    set_training(other, STAGES["joint"])
    train_step(model, STAGES["joint"], samples, make_loss("ce"), sub_batch=4)
    train_step(other, STAGES["joint"], samples, make_loss("ce"), sub_batch=4)
    assert model.local is not None
    assert other.local is not None
    seen = dict(other.local.named_buffers())
    assert_same(dict(model.local.named_buffers()), seen, 1e-6)
    assert int(seen["backbone.bn1.num_batches_tracked"]) == 3


def test_parking_changes_no_gradient() -> None:
    steps = []
    for park in (True, False):
        model, stage = small_model("full"), replace(STAGES["full"], park=park)
        set_training(model, stage)
        losses = train_step(model, stage, [small_sample(1)], make_loss("focal"), sub_batch=4)
        steps.append((losses, gradients(model)))
    assert steps[0][0] == steps[1][0]
    assert_same(steps[0][1], steps[1][1], 1e-6)


@pytest.mark.parametrize("name", ["global", "local", "full", "joint"])
def test_a_batch_without_labels_has_no_loss_and_zero_gradients(name: str) -> None:
    stage = replace(STAGES[name], weights=replace(STAGES[name].weights, similarity=0.0))
    model, sample = small_model(stage.modes[-1]), small_sample(1)
    set_training(model, stage)
    nothing = replace(
        sample,
        thumbnail_label=torch.full_like(sample.thumbnail_label, 255),
        tile_labels=torch.full_like(sample.tile_labels, 255),
    )
    assert train_step(model, stage, [nothing], make_loss("focal+ce+dice+lovasz")).total == 0
    assert all(not x.any() for x in gradients(model).values())


@pytest.mark.parametrize("mode", ["local", "full"])
def test_joint_training_learns_a_scene(mode: str) -> None:
    model, stage, samples = small_model(mode), STAGES["joint"], [small_sample(1, (0, 64))]
    set_training(model, stage)
    optimizer = make_optimizer(model, replace(stage, learning_rate=1e-3))
    totals = []
    for _ in range(20):
        optimizer.zero_grad()
        totals.append(train_step(model, stage, samples, make_loss("ce+lovasz"), sub_batch=4).total)
        optimizer.step()
    assert totals[-1] < 0.5 * totals[0]


@pytest.mark.parametrize(
    ("name", "moving"),
    [
        ("global", {"guide"}),
        ("local", {"local", "aggregate"}),
        ("full", {"refined", "aggregate"}),
        ("joint", {"guide", "local", "refined", "aggregate"}),
        ("tiles", {"local"}),
    ],
)
def test_a_stage_moves_its_modules_only(name: str, moving: set[str]) -> None:
    stage = STAGES[name]
    model = small_model(stage.modes[-1]).train()
    set_training(model, stage)
    for branch, module in model.named_children():
        assert all(each.training == (branch in moving) for each in module.modules())
        assert all(x.requires_grad == (branch in moving) for x in module.parameters())
    train_step(model, stage, [small_sample(1)], make_loss("focal"))
    optimizer = make_optimizer(model, stage)
    assert {id(x) for group in optimizer.param_groups for x in group["params"]} == {
        id(x) for x in model.parameters() if x.grad is not None
    }


def test_a_stage_refuses_another_mode() -> None:
    with pytest.raises(UsageError, match="stage 'local' trains a local model, this one is full"):
        set_training(small_model("full"), STAGES["local"])


def test_a_new_refined_branch_starts_from_the_guide() -> None:
    previous, model = small_model("local", seed=1), small_model("full", seed=2)
    fresh = copy.deepcopy(model)
    start_stage(model, previous)
    state, learned, new = model.state_dict(), previous.state_dict(), fresh.state_dict()
    for name, x in state.items():
        branch, _, rest = name.partition(".")
        if branch != "refined":
            source = learned[name]
        elif rest.startswith(("backbone.", "fpn.classify.")):
            source = learned[f"guide.{rest}"]
        else:
            source = new[name]
        assert torch.equal(x, source), name


def test_a_later_stage_keeps_the_refined_branch() -> None:
    previous, model = small_model("full", seed=1), small_model("full", seed=2)
    start_stage(model, previous)
    assert all(torch.equal(x, previous.state_dict()[name]) for name, x in model.state_dict().items())


def test_a_local_branch_that_is_new_keeps_its_weights() -> None:
    previous, model = small_model("global", seed=1), small_model("local", seed=2)
    fresh = copy.deepcopy(model)
    start_stage(model, previous)
    for name, x in model.state_dict().items():
        source = previous if name.startswith("guide.") else fresh
        assert torch.equal(x, source.state_dict()[name]), name


def test_stages_differ_in_their_mode_only() -> None:
    other = GLNet(Architecture("local", bands=4, classes=CLASSES, backbone="resnet18", width=16, stem=16))
    with pytest.raises(ModelError, match="may differ in their mode only"):
        start_stage(other, small_model("global"))


def test_tiles_alone_and_context_do_not_start_from_each_other() -> None:
    for modes in (("tiles", "local"), ("full", "tiles")):
        with pytest.raises(ModelError, match=f"a model of mode {modes[1]} cannot start from one of mode {modes[0]}"):
            start_stage(small_model(modes[1]), small_model(modes[0]))


def test_the_rate_falls_from_its_base_to_zero() -> None:
    assert poly_rate(5e-5, 0, 100) == 5e-5
    assert poly_rate(5e-5, 75, 100) == pytest.approx(5e-5 * 0.25**0.9)
    assert poly_rate(5e-5, 100, 100) == 0


def test_a_step_needs_samples() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        train_step(small_model("global"), STAGES["global"], [], make_loss("focal"))


@pytest.mark.parametrize("backbone", ["resnet18", "lite0"])
def test_frozen_parts_of_a_backbone_stay_and_the_rest_moves_slowly(backbone: str) -> None:
    torch.manual_seed(0)
    model = GLNet(Architecture("local", 3, CLASSES, backbone, 16, 32))
    stage = replace(STAGES["joint"], freeze=2, backbone_rate=0.25)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    fit = Fit(model, stage, Recipe(backbone=backbone, ema=0.0, warm_up=0, clip=0.0), Length(1, 1))
    list(fit.run(Source(), make_loss("ce")))  # type: ignore[arg-type]
    moved = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    assert model.local is not None
    for branch in (model.guide, model.local):
        *frozen, c3, _, _ = branch.backbone.parts()
        for module in (module for part in frozen for module in part):
            assert not any(same_storage(x, module) for name, x in model.state_dict().items() if name in moved)
        assert any(same_storage(x, c3[0]) for name, x in model.state_dict().items() if name in moved)
    rates = {group["lr"] for group in fit.optimizer.param_groups}
    assert rates == {stage.learning_rate, 0.25 * stage.learning_rate}


def same_storage(x: Tensor, module: torch.nn.Module) -> bool:
    return x.data_ptr() in {y.data_ptr() for y in module.state_dict().values()}


class Source:
    """Two samples, always the same."""

    def sample(self, number: int) -> Sample:
        return small_sample(number, (0, 64))
