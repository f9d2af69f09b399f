"""`--merge paper` labels a scene as the authors' released evaluation does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from model.conftest import Import
from model.official_inputs import make_image
from model.test_parity import COMMITTED, SHARED, SMALL, needs_shared

from glraster.config import LandClass, ModelSpec
from glraster.segmentation.predict import Predictor, TileForm

SIDE = 128
CLASSES = tuple(LandClass(i, f"class {i}", (0, 0, 80 * i)) for i in range(3))
MODES = {"mode1": ("global", {"global": "global"}), "mode2": ("local", {"local": "local", "full": "ensemble"})}
MODES["mode3"] = ("full", {"local": "local", "full": "ensemble"})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scene", SMALL)
def test_labels_of_the_authors_evaluation(scene: str, mode: str, official_model: Import) -> None:
    model_mode, branches = MODES[mode]
    image = np.ascontiguousarray(make_image(*SMALL[scene]).transpose(2, 0, 1))
    reference = np.load(COMMITTED)
    for branch, name in branches.items():
        scores = predictor(official_model(3, model_mode), branch).paper_scores(image)
        expected = reference[f"{scene}_{mode}/pred_{name}"]
        assert (scores.argmax(axis=0) != expected).mean() <= 1e-4
        assert len(np.unique(expected)) > 1


@needs_shared
def test_labels_of_the_authors_eight_views(official_model: Import) -> None:
    image = np.ascontiguousarray(make_image(*SMALL["sq"]).transpose(2, 0, 1))
    turning = replace(predictor(official_model(3, "global"), "global"), tta=True)
    expected = np.load(SHARED / "small" / "tta_mode1.npz")["pred_global"]
    assert (turning.paper_scores(image).argmax(axis=0) != expected).mean() <= 1e-4


def predictor(model: torch.nn.Module, branch: str) -> Predictor:
    spec = ModelSpec(model.arch, CLASSES, thumbnail_px=SIDE, tile_px=SIDE)
    return Predictor(
        model.eval(), spec, branch, TileForm(SIDE, 32), torch.device("cpu"), torch.float32, batch=4, context_px=2448
    )
