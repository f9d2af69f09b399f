"""The network computes what the authors' released code computes, on checkpoints and scenes made from a seed.

`tests/data/glnet_small.npz` holds outputs of the released code, logits at every second row and column. The rest
of its outputs, far larger, is read from beside the checkout where it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from model.conftest import Import
from model.official_inputs import make_image, official_state, state_digest
from PIL import Image

from glraster.model.sharing import Tiling
from glraster.raster.grid import paper_axis

TOLERANCE = 1e-4
COMMITTED = Path(__file__).parents[1] / "data" / "glnet_small.npz"
SHARED = Path(__file__).parents[3] / "shared" / "parity"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
SMALL = {"sq": (1, 300, 300), "ns": (2, 220, 300)}
CORNERS = (0, 5, 30, 35)
BIG = {"sq2448": (1, 2448, 2448), "ns1500x1100": (2, 1100, 1500)}
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class View:
    """A scene as the network sees it."""

    thumbnail: torch.Tensor
    tiles: torch.Tensor
    tiling: Tiling


def view(scene: tuple[int, int, int], side: int, corners_only: bool = False) -> View:
    """The authors' thumbnail and tiles of a scene, `side` pixels both; or only its four corner tiles."""
    image = make_image(*scene)
    small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
    tops, lefts = (paper_axis(length, side).offsets for length in image.shape[:2])
    if corners_only:
        tops, lefts = (tops[0], tops[-1]), (lefts[0], lefts[-1])
    full = scaled(image)
    tiles = torch.cat([full[..., y : y + side, x : x + side] for y in tops for x in lefts])
    return View(scaled(small), tiles, Tiling(image.shape[0], image.shape[1], side, side, tops, lefts))


def scaled(image: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def assert_close(actual: torch.Tensor | Array, expected: Array) -> None:
    actual = np.asarray(actual)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()


def assert_small_scene(outputs: Mapping[str, torch.Tensor], scene: str, mode: int) -> None:
    """The reference's outputs of a small scene: committed at every second row and column, shared whole."""
    with np.load(COMMITTED) as committed:
        for name, value in outputs.items():
            assert_close(value[..., 1::2, ::2], committed[f"{scene}_mode{mode}/{name}"])
    if SHARED.is_dir():
        with np.load(SHARED / "small" / f"{scene}_mode{mode}.npz") as shared:
            for name, value in outputs.items():
                assert_close(value, shared[name])


def assert_big_scene(logits: torch.Tensor, shared: Mapping[str, Array], name: str, tiles: Sequence[int] = ()) -> None:
    """The reference's logits of all tiles of a big scene, or of some: each eighth of all, the first and last whole."""
    coarse = shared[f"{name}_logits_s8"]
    assert_close(logits[..., 3::8, 3::8], coarse[list(tiles)] if tiles else coarse)
    assert_close(logits[0], shared[f"{name}_logits_first"])
    assert_close(logits[-1], shared[f"{name}_logits_last"])


@pytest.mark.parametrize(("part", "digest"), [("g", "376aa5c5ca3ad929"), ("l2g", "9b2f46c7354bc6db")])
def test_the_checkpoints_are_those_of_the_reference(part: str, digest: str) -> None:
    state = official_state(1, 3, part)
    assert (len(state), state_digest(state)) == (718, digest)


def small_outputs(official_model: Import, scene: str, mode: int) -> dict[str, torch.Tensor]:
    """Everything that the reference keeps of a small scene, computed through the public methods alone."""
    model, seen = official_model(3, {1: "global", 2: "local", 3: "full"}[mode]), view(SMALL[scene], 128)
    if mode == 1:
        return {"global_logits": model.global_logits(seen.thumbnail)}
    outputs = {
        "fixed_global_logits" if mode == 3 else "global_logits": model.global_logits(seen.thumbnail),
        "local_logits": torch.cat([*model.tile_logits(seen.thumbnail, seen.tiles.split(5), seen.tiling, "local")]),
        "ensemble_logits": torch.cat([*model.tile_logits(seen.thumbnail, seen.tiles.split(6), seen.tiling)]),
    }
    if mode == 3:
        with torch.inference_mode():
            gathered = model.gather(seen.tiles.split(6), model.guide(seen.thumbnail), seen.tiling)
            outputs["global_logits"] = model.refined(seen.thumbnail, gathered.merged).logits
    return outputs


@pytest.mark.parametrize("mode", [1, 2, 3])
@pytest.mark.parametrize("scene", SMALL)
def test_small_scenes(official_model: Import, scene: str, mode: int) -> None:
    assert_small_scene(small_outputs(official_model, scene, mode), scene, mode)


@needs_shared
def test_merged_maps_and_last_maps(official_model: Import) -> None:
    model, seen = official_model(3, "full"), view(SMALL["sq"], 128)
    with torch.inference_mode():
        guide = model.guide(seen.thumbnail)
        merged = model.gather(seen.tiles.split(3), guide, seen.tiling).merged
        context = model.refined(seen.thumbnail, merged)
        *_, (_, last) = model.local_maps(seen.tiles.split(3), guide, seen.tiling)
    with np.load(SHARED / "small" / "sq_mode3.npz") as shared:
        for i in range(4):
            assert_close(merged[0][i][0], shared[f"merged_c{i + 2}"])
            for depth in (1, 2, 3):
                assert_close(merged[depth][i][0], shared[f"merged_ps{depth - 1}_{3 - i}"])
        assert_close(context.ps3[0], shared["ps3_global"])
        assert_close(last.ps3[0], shared["ps3_local_patch15"])


@needs_shared
@pytest.mark.slow
def test_big_scene_local(official_model: Import) -> None:
    """Tiles are independent in this mode, so four of the 36 stand for all."""
    model, seen = official_model(7, "local"), view(BIG["sq2448"], 508, corners_only=True)
    with np.load(SHARED / "big" / "sq2448_mode2.npz") as shared:
        assert_close(model.global_logits(seen.thumbnail), shared["global_logits"])
        for branch, name in (("local", "local"), ("full", "ensemble")):
            logits = torch.cat([*model.tile_logits(seen.thumbnail, seen.tiles.split(2), seen.tiling, branch)])
            assert_big_scene(logits, shared, name, CORNERS)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("scene", BIG)
def test_big_scene_full(official_model: Import, scene: str) -> None:
    model, seen = official_model(7, "full"), view(BIG[scene], 508)
    outputs = torch.cat([*model.tile_logits(seen.thumbnail, seen.tiles.split(2), seen.tiling)])
    with np.load(SHARED / "big" / f"{scene}_mode3.npz") as shared:
        assert_big_scene(outputs, shared, "ensemble")
        assert_close(model.global_logits(seen.thumbnail), shared["fixed_global_logits"])
