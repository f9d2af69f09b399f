"""The folded network computes what the authors' released code computes, in every mode, to the last ring of cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model.conftest import Import
from model.test_parity import BIG, CORNERS, SHARED, SMALL, assert_big_scene, assert_small_scene, needs_shared, view

from glraster.model.fold import FoldedGLNet


def folded_outputs(official_model: Import, scene: str, mode: int) -> dict[str, torch.Tensor]:
    model, seen = official_model(3, {1: "global", 2: "local", 3: "full"}[mode]), view(SMALL[scene], 128)
    name = "fixed_global_logits" if mode == 3 else "global_logits"
    outputs = {name: FoldedGLNet(model, "global").global_logits(seen.thumbnail)}
    for branch, key in (("local", "local_logits"), ("full", "ensemble_logits")) if mode > 1 else ():
        folded = FoldedGLNet(model, branch)
        outputs[key] = torch.cat([*folded.tile_logits(seen.thumbnail, seen.tiles.split(5), seen.tiling)])
    return outputs


@pytest.mark.parametrize("mode", [1, 2, 3])
@pytest.mark.parametrize("scene", SMALL)
def test_small_scenes(official_model: Import, scene: str, mode: int) -> None:
    assert_small_scene(folded_outputs(official_model, scene, mode), scene, mode)


@needs_shared
@pytest.mark.slow
def test_big_scene_local(official_model: Import) -> None:
    """Tiles are independent in this mode, so four of the 36 stand for all."""
    model, seen = official_model(7, "local"), view(BIG["sq2448"], 508, corners_only=True)
    with np.load(SHARED / "big" / "sq2448_mode2.npz") as shared:
        for branch, name in (("local", "local"), ("full", "ensemble")):
            folded = FoldedGLNet(model, branch)
            logits = torch.cat([*folded.tile_logits(seen.thumbnail, seen.tiles.split(2), seen.tiling)])
            assert_big_scene(logits, shared, name, CORNERS)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("scene", BIG)
def test_big_scene_full(official_model: Import, scene: str) -> None:
    folded, seen = FoldedGLNet(official_model(7, "full"), "full"), view(BIG[scene], 508)
    outputs = torch.cat([*folded.tile_logits(seen.thumbnail, seen.tiles.split(2), seen.tiling)])
    with np.load(SHARED / "big" / f"{scene}_mode3.npz") as shared:
        assert_big_scene(outputs, shared, "ensemble")
