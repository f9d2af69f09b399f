"""Each loss is its formula, computed pixel by pixel with numpy, and 255 never counts."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from glraster.errors import UsageError
from glraster.training.losses import LOSSES, make_loss, resize_labels

CLASSES = 4
WEIGHTS = (0.5, 2.0, 1.0, 3.0)
Floats = npt.NDArray[np.float64]


def scene(seed: int, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 4, 5, 7), and labels that never hold class 3, of which every sixth is ignored."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 255], (2, 5, 7), p=[0.5, 0.2, 0.15, 0.15]).astype(np.uint8)
    labels[0, 0, :3] = 0, 1, 2
    return torch.from_numpy(rng.normal(0, scale, (2, CLASSES, 5, 7))).float(), torch.from_numpy(labels)


def pixels(logits: torch.Tensor, labels: torch.Tensor) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Probabilities (n, classes) and labels (n,) of the pixels that count."""
    x = logits.double().permute(0, 2, 3, 1).reshape(-1, CLASSES).numpy()
    y = labels.reshape(-1).numpy().astype(np.int64)
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return p[y != 255], y[y != 255]


def focal(p: Floats, y: npt.NDArray[np.int64], weights: Floats) -> float:
    own = [min(max(row[label], 1e-7), 1 - 1e-7) for row, label in zip(p, y, strict=True)]
    return float(np.average([-((1 - q) ** 3) * np.log(q) for q in own], weights=weights[y]))


def cross_entropy(p: Floats, y: npt.NDArray[np.int64], weights: Floats) -> float:
    return float(np.average([-np.log(row[label]) for row, label in zip(p, y, strict=True)], weights=weights[y]))


def dice(p: Floats, y: npt.NDArray[np.int64], weights: Floats) -> float:
    present = np.unique(y)
    values = [1 - 2 * p[y == c, c].sum() / (p[:, c].sum() + (y == c).sum()) for c in present]
    return float(np.average(values, weights=weights[present]))


def lovasz(p: Floats, y: npt.NDArray[np.int64], weights: Floats) -> float:
    """The definition: errors, largest first, times what each adds to 1 - IoU of a map that errs just there."""
    present, values = np.unique(y), []
    for c in present:
        errors = np.abs((y == c) - p[:, c])
        wrong, before, value = np.zeros(len(y), bool), 0.0, 0.0
        for i in np.argsort(-errors):
            wrong[i] = True
            truth = y == c
            seen = truth ^ wrong
            after = 1 - (truth & seen).sum() / (truth | seen).sum()
            value += errors[i] * (after - before)
            before = after
        values.append(value)
    return float(np.average(values, weights=weights[present]))


BRUTE = {"focal": focal, "ce": cross_entropy, "dice": dice, "lovasz": lovasz}


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(5))
def test_a_loss_is_its_formula(name: str, weights: tuple[float, ...] | None, seed: int) -> None:
    logits, labels = scene(seed)
    expected = BRUTE[name](*pixels(logits, labels), np.array(weights or (1.0,) * CLASSES))
    assert float(make_loss(name, weights)(logits, labels)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_label_types_agree(name: str) -> None:
    logits, labels = scene(0)
    assert torch.equal(make_loss(name)(logits, labels), make_loss(name)(logits, labels.long()))


@pytest.mark.parametrize("name", [*LOSSES, "focal+lovasz"])
def test_ignored_pixels_change_nothing(name: str) -> None:
    logits, labels = scene(1)
    logits.requires_grad_()
    make_loss(name)(logits, labels).backward()
    ignored = (labels == 255)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].any()
    other = torch.where(ignored, torch.randn(logits.shape) * 5, logits.detach())
    assert torch.allclose(make_loss(name)(other, labels), make_loss(name)(logits, labels))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", [*LOSSES, "ce+lovasz"])
def test_without_labels_the_loss_is_zero(name: str, weights: tuple[float, ...] | None) -> None:
    logits, labels = scene(2)
    logits.requires_grad_()
    loss = make_loss(name, weights)(logits, torch.full_like(labels, 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", LOSSES)
def test_a_class_of_weight_zero_does_not_count(name: str) -> None:
    logits, labels = scene(3)
    kept = make_loss(name, (1, 0, 1, 1))(logits, labels)
    assert float(kept) == pytest.approx(BRUTE[name](*pixels(logits, labels), np.array([1.0, 0, 1, 1])), rel=1e-5)
    only = torch.full_like(labels, 1)
    assert float(make_loss(name, (1, 0, 1, 1))(logits, only)) == 0


@pytest.mark.parametrize("name", ["focal", "ce", "lovasz", "dice"])
def test_a_sure_network_has_finite_gradients(name: str) -> None:
    logits, labels = scene(4, scale=200.0)
    logits.requires_grad_()
    make_loss(name)(logits, labels).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_pixel_beyond_the_clamp_has_no_focal_gradient() -> None:
    logits = torch.tensor([0.0, 40.0]).reshape(1, 2, 1, 1).requires_grad_()
    loss = make_loss("focal")(logits, torch.zeros(1, 1, 1, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == pytest.approx(-np.log(1e-7), rel=1e-5)
    assert not logits.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    logits, labels = scene(5, scale=1.0)
    logits.requires_grad_()
    make_loss(name, WEIGHTS)(logits, labels).backward()
    brute = BRUTE[name]
    for place in ((0, 0, 0, 0), (0, 1, 0, 1), (1, 3, 2, 2)):
        sides = []
        for shift in (1e-4, -1e-4):
            moved = logits.detach().double()
            moved[place] += shift
            sides.append(brute(*pixels(moved, labels), np.array(WEIGHTS)))
        assert float(logits.grad[place]) == pytest.approx((sides[0] - sides[1]) / 2e-4, rel=1e-3, abs=1e-6)


def test_a_sum_is_the_sum() -> None:
    logits, labels = scene(6)
    parts = [float(make_loss(name)(logits, labels)) for name in ("ce", "lovasz")]
    assert float(make_loss("ce + lovasz")(logits, labels)) == pytest.approx(sum(parts))


def test_half_precision_logits_are_scored_in_single() -> None:
    logits, labels = scene(7)
    assert make_loss("focal+ce+dice+lovasz")(logits.bfloat16(), labels).dtype == torch.float32


@pytest.mark.parametrize("name", ["focl", "", "ce+", "ce+jaccard"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"unknown loss .*: use focal, ce, dice, lovasz"):
        make_loss(name)


@pytest.mark.parametrize("weights", [(1.0, -1.0), (1.0, float("nan")), (float("inf"), 1.0)])
def test_impossible_weights_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="finite and at least 0"):
        make_loss("ce", weights)


def pillow_nearest(side: int, cells: int) -> npt.NDArray[np.int32]:
    """Which of `side` rows Pillow takes for each of `cells`."""
    rows = np.arange(side, dtype=np.int32)[:, None]
    return np.asarray(Image.fromarray(rows).resize((1, cells), Image.Resampling.NEAREST))[:, 0]


@pytest.mark.parametrize(("side", "cells"), [(2448, 127), (508, 127), (5000, 127), (300, 32), (128, 32)])
def test_labels_are_resized_as_the_authors_do(side: int, cells: int) -> None:
    rows = torch.arange(side)[None, :, None].expand(1, side, side)
    assert np.array_equal(resize_labels(rows, (cells, 7))[0, :, 0], pillow_nearest(side, cells))
    assert np.array_equal(resize_labels(rows.mT, (7, cells))[0, 0], pillow_nearest(side, cells))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.integers(1, 600))
def test_labels_are_resized_as_pillow_does(side: int, cells: int) -> None:
    """But for centres on the border of two rows, where Pillow's sum of steps may fall on either side."""
    actual = resize_labels(torch.arange(side)[None, :, None], (cells, 1))[0, :, 0].numpy()
    tie = (2 * np.arange(cells) + 1) * side % (2 * cells) == 0
    assert np.array_equal(actual[~tie], pillow_nearest(side, cells)[~tie])
    assert np.abs(actual - pillow_nearest(side, cells)).max() <= 1


def test_offsets_teach_logits_that_do_not_favour_common_classes() -> None:
    share = torch.tensor([0.9, 0.1])
    labels = (torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.9).to(torch.uint8)
    learned = {}
    for strength in (0.0, 1.0):
        bias = torch.zeros(1, 2, 1, 1, requires_grad=True)
        loss = make_loss("ce", offsets=(strength * share.log()).tolist() if strength else None)
        optimizer = torch.optim.SGD([bias], lr=1.0)
        for _ in range(200):
            optimizer.zero_grad()
            loss(bias.expand(1, 2, 64, 64), labels).backward()
            optimizer.step()
        learned[strength] = float((bias[0, 0] - bias[0, 1]).detach())
    assert learned[0.0] == pytest.approx(math.log(9), abs=0.2)
    assert learned[1.0] == pytest.approx(0.0, abs=0.2)
