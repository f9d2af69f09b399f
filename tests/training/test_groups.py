"""Labels that stand for several classes: what they teach, and how they are scored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from training.scenes import write_catalog

from glraster.catalog import load_catalog
from glraster.catalog import write_catalog as write_file
from glraster.config import LandClass
from glraster.errors import UsageError
from glraster.metrics import class_iou, confusion
from glraster.training.losses import LOSSES, make_loss
from glraster.training.train import TrainOptions, train

SMALL = (
    *("stem=8", "width=8", "tile_px=64", "thumbnail_px=64", "batch=2", "steps=2", "steps_per_epoch=2", "warm_up=1"),
    *("loss=ce+lovasz", "class_weights=sqrt"),
)


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return torch.randn(2, 4, 5, 6, requires_grad=True)


def test_the_probability_of_a_group_is_the_sum_of_its_classes(logits):
    labels = torch.full((2, 5, 6), 4)
    p = logits.softmax(1)[:, [1, 3]].sum(1)
    assert torch.allclose(make_loss("ce", groups=[(1, 3)])(logits, labels), -p.log().mean())
    focal = (-((1 - p) ** 3) * p.log()).mean()
    assert torch.allclose(make_loss("focal", groups=[(1, 3)])(logits, labels), focal, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_group_leaves_its_classes_free_among_themselves(name, logits):
    """What shifts probability between the group's classes changes nothing; what takes it out of the group does."""
    labels = torch.full((2, 5, 6), 4)
    labels[:, :2] = 0
    loss = make_loss(name, groups=[(1, 3)])
    with torch.no_grad():
        p = logits.softmax(1)
        swapped = p[:, [0, 3, 2, 1]].log()
        assert torch.allclose(loss(swapped, labels), loss(logits, labels), rtol=1e-5)
    loss(logits, labels).backward()
    assert torch.isfinite(logits.grad).all()
    inside = logits.grad[:, :, 2:]
    assert (inside[:, 0] != 0).any() or (inside[:, 2] != 0).any()


@pytest.mark.parametrize("name", LOSSES)
def test_groups_change_nothing_where_no_label_is_one(name, logits):
    labels = torch.randint(0, 4, (2, 5, 6))
    labels[0, 0, 0] = 255
    assert torch.allclose(make_loss(name, groups=[(1, 3)])(logits, labels), make_loss(name)(logits, labels))


def test_a_group_weighs_as_its_classes_on_average(logits):
    labels = torch.full((2, 5, 6), 4)
    labels[0] = 0
    weighted = make_loss("ce", (1.0, 2.0, 0.0, 6.0), groups=[(1, 3)])(logits, labels)
    p = logits.softmax(1)
    group, plain = -p[1, [1, 3]].sum(0).log(), -p[0, 0].log()
    assert torch.allclose(weighted, (4 * group.sum() + plain.sum()) / (4 * 30 + 30))


def test_predictions_beside_a_group_are_false_alarms():
    truth = np.array([0, 0, 1, 2, 2, 2], np.uint8)  # 2 stands for class 1 or another
    prediction = np.array([0, 1, 1, 1, 0, 0], np.uint8)
    counts = confusion(truth, prediction, 2, 3)
    counts[2, 1] = 0
    assert class_iou(counts).tolist() == [1 / 4, 1 / 2]


def test_catalogs_of_other_label_sets_train_one_model(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = write_catalog(tmp_path / "a")
    catalog = load_catalog(write_catalog(tmp_path / "b"))
    names = [c.name for c in catalog.classes]
    coarse = replace(
        catalog,
        classes=(*catalog.classes[:-1], LandClass(99, "something else", (5, 5, 5))),
        labels=replace(
            catalog.labels, values=(*((c.id, c.id) for c in catalog.classes[:-1]), (catalog.classes[-1].id, 99))
        ),
        stands_for=((99, tuple(names[:2])),),
    )
    write_file(coarse, tmp_path / "b" / "coarse.yaml")
    files = [first, tmp_path / "b" / "coarse.yaml"]
    result = train(files, tmp_path / "run", TrainOptions(settings=(*SMALL, "shares=[1, 2]")))
    assert len(result.best.iou) == len(names)
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["shares"] == [1.0, 2.0]
    with pytest.raises(UsageError, match="shares has 3 numbers for 2 catalogs; give one each"):
        train(files, tmp_path / "other", TrainOptions(settings=(*SMALL, "shares=[1, 2, 3]")))
