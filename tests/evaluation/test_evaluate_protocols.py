"""`glraster evaluate --protocol`: the forms and counts of published benchmarks."""

from __future__ import annotations

import numpy as np
import pytest
from maps import disturbed, patches, write_map, write_truth
from rasters import write_raster
from sklearn import metrics as reference

from glraster.model.published import DEEPGLOBE, INRIA


def test_deepglobe_takes_coloured_masks(tmp_path, evaluated):
    ids = tuple(range(7))
    truth = patches(90, 110, side=9, ids=ids)
    prediction = disturbed(truth, 0.3, choices=ids)
    colors = np.array([c.color for c in DEEPGLOBE], np.uint8)[truth].transpose(2, 0, 1)
    mask = write_map(tmp_path / "map.tif", prediction, DEEPGLOBE)
    found = evaluated(mask, write_raster(tmp_path / "truth.tif", colors), "--protocol", "deepglobe")
    scores = found["deepglobe"]
    kept = truth != 0
    strict = reference.jaccard_score(truth[kept], prediction[kept], labels=list(range(1, 7)), average=None)
    authors = reference.jaccard_score(truth.ravel(), prediction.ravel(), labels=list(range(1, 7)), average=None)
    assert scores["strict_iou"] == pytest.approx(strict)
    assert scores["authors_iou"] == pytest.approx(authors)
    assert scores["authors"] == pytest.approx(authors.mean())


def test_inria_takes_masks_of_0_and_255(tmp_path, evaluated):
    truth = patches(90, 110, side=9, ids=(0, 1))
    prediction = disturbed(truth, 0.3, choices=(0, 1))
    mask = write_map(tmp_path / "austin1.tif", prediction, INRIA)
    found = evaluated(mask, write_truth(tmp_path / "truth.tif", truth * np.uint8(255)), "--protocol", "inria")
    assert [s["city"] for s in found["inria"]] == ["austin", "overall"]
    assert found["inria"][0]["iou"] == pytest.approx(reference.jaccard_score(truth.ravel(), prediction.ravel()))
    assert found["inria"][0]["accuracy"] == pytest.approx((truth == prediction).mean())


@pytest.mark.parametrize(("protocol", "needed"), [("deepglobe", "unknown"), ("inria", "building")])
def test_a_protocol_needs_its_classes(protocol, needed, tmp_path, run):
    mask = write_map(tmp_path / "map.tif", patches(40, 40))
    outcome = run("evaluate", mask, mask, "--protocol", protocol)
    assert outcome.code == 2
    assert f"'{needed}'" in outcome.err
