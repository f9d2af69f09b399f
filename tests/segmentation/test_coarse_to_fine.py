"""Coarse to fine: the local branch sees the tiles near the foreground, the guide's scores stand in for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glraster.config import Architecture, LandClass, ModelSpec
from glraster.errors import UsageError
from glraster.model.fold import FoldedGLNet, GuideOutput
from glraster.model.glnet import GLNet
from glraster.model.sharing import Tiling
from glraster.raster.grid import FloatArray
from glraster.segmentation.foreground import foreground_tiles
from glraster.segmentation.predict import Predictor, TileForm, WindowScores

ARCH = Architecture("local", 3, classes=2, backbone="resnet18", width=8, stem=8)
SPEC = ModelSpec(ARCH, (LandClass(0, "a", (0, 0, 0)), LandClass(1, "b", (1, 1, 1))), tile_px=64, thumbnail_px=96)
IMAGE = np.random.default_rng(0).integers(0, 255, (3, 240, 304), np.uint8)
CELLS = (60, 76)
FORM = TileForm(64, 16)
TILES = 5 * 6

Seen = Callable[[Tensor], Tensor]


class Watched(FoldedGLNet):
    """Counts the tiles that the local branch classes; its guide gives `seen` of its logits."""

    def __init__(self, seen: Seen, mode: str = "local") -> None:
        torch.manual_seed(0)
        network = GLNet(replace(ARCH, mode=mode)).eval()
        for name, weight in network.named_parameters():  # new weights are too small to tell tiles apart
            if weight.dim() == 4 and ("fpn" in name or "aggregate" in name):
                torch.nn.init.kaiming_normal_(weight)
        super().__init__(network, "full")
        self._seen, self.classed = seen, 0

    def run_guide(self, thumbnail: Tensor) -> GuideOutput:
        output = super().run_guide(thumbnail)
        return replace(output, logits=self._seen(output.logits))

    def _guided_logits(self, *arguments: object) -> Iterator[Tensor]:
        for batch in super()._guided_logits(*arguments):  # type: ignore[arg-type]
            self.classed += batch.shape[0]
            yield batch


def everywhere(logits: Tensor) -> Tensor:
    return logits + 1e4 * torch.tensor([-1.0, 1.0])[:, None, None]


def nowhere(logits: Tensor) -> Tensor:
    return logits - 1e4 * torch.tensor([-1.0, 1.0])[:, None, None]


def in_the_corner(logits: Tensor) -> Tensor:
    """The foreground is one cell near the lower left corner."""
    spread = nowhere(logits) / 1e4
    spread[0, 1, -3, 2] = 9
    return spread


def scores(network: FoldedGLNet, coarse: bool = True, tta: bool = False) -> WindowScores:
    device = torch.device("cpu")
    predictor = Predictor(network, SPEC, "full", FORM, device, torch.float32, 4, 256, tta, coarse_to_fine=coarse)
    return predictor.window_scores(IMAGE)


@pytest.mark.parametrize("tta", [False, True], ids=["one view", "eight views"])
def test_where_every_tile_is_kept_the_scores_are_the_plain_ones(tta: bool) -> None:
    plain, coarse = (scores(Watched(everywhere), chosen, tta) for chosen in (False, True))
    np.testing.assert_array_equal(coarse.cells, plain.cells)
    views = 8 if tta else 1
    assert (plain.tiles, plain.tiles_skipped) == (coarse.tiles, coarse.tiles_skipped) == (views * TILES, 0)


def test_where_the_guide_sees_nothing_no_tile_is_computed() -> None:
    network = Watched(nowhere)
    found = scores(network)
    assert network.classed == 0
    assert (found.tiles, found.tiles_skipped) == (TILES, TILES)
    np.testing.assert_allclose(found.cells, guide_cells(network), rtol=1e-6)


def guide_cells(network: Watched) -> FloatArray:
    """What the guide says of the window, on its cells: what the global branch's map would be."""
    device = torch.device("cpu")
    predictor = Predictor(network, SPEC, "global", FORM, device, torch.float32, 4, 256)
    return predictor.cell_scores(IMAGE)


def test_skipped_tiles_vote_as_the_guide_with_the_weights_of_a_tile() -> None:
    """Against a plain sum over all tiles, of which some take the guide's logits instead of their own."""
    rows, columns = FORM.tiling(*IMAGE.shape[1:])
    guide, network = guide_cells(Watched(in_the_corner)), Watched(in_the_corner)
    small = torch.full((1, 2, 23, 29), -1.0)
    found = scores(network)
    seen = network.run_guide(thumbnail_of(network)).logits
    assert seen.shape == small.shape
    near = foreground_tiles((seen[0].argmax(0) == 1).numpy(), rows, columns)
    assert 0 < near.sum() < TILES
    assert network.classed == near.sum() == found.tiles - found.tiles_skipped
    own = list(plain_logits(network))
    expected = np.zeros((2, *CELLS))
    for i, (row, column) in enumerate(np.ndindex(near.shape)):
        top, left = rows.offsets[row] // 4, columns.offsets[column] // 4
        spot = (slice(None), slice(top, top + 16), slice(left, left + 16))
        fade = rows.weights[row][:, None] * columns.weights[column]
        expected[spot] += fade * (own[i].numpy() if near[row, column] else guide[spot])
    np.testing.assert_allclose(found.cells, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(found.cells - scores(Watched(in_the_corner), coarse=False).cells).max() > 1  # skipping is no no-op


def thumbnail_of(network: FoldedGLNet) -> Tensor:
    device = torch.device("cpu")
    predictor = Predictor(network, SPEC, "full", FORM, device, torch.float32, 4, 256)
    return normalised(predictor.thumbnail(IMAGE))


def normalised(image: np.ndarray) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (SPEC.mean, SPEC.std))
    return ((torch.from_numpy(image).float() / SPEC.scale - mean) / std)[None]


def window_tiling() -> Tiling:
    rows, columns = FORM.tiling(*IMAGE.shape[1:])
    return Tiling(rows.side, columns.side, rows.length, columns.length, rows.offsets, columns.offsets)


def tiles_of(which: Iterable[int]) -> Tensor:
    tiling, pixels = window_tiling(), normalised(IMAGE)
    corners = [(tiling.tops[i // len(tiling.lefts)], tiling.lefts[i % len(tiling.lefts)]) for i in which]
    return torch.cat([pixels[..., y : y + 64, x : x + 64] for y, x in corners])


def plain_logits(network: FoldedGLNet) -> Tensor:
    return torch.cat(list(network.tile_logits(thumbnail_of(network), [tiles_of(range(TILES))], window_tiling())))


def test_the_logits_of_chosen_tiles_are_those_of_all() -> None:
    network, chosen = Watched(everywhere), (3, 7, 8, 29)
    guide = network.run_guide(thumbnail_of(network))
    tiling = replace(window_tiling(), selection=chosen)
    batches = torch.split(tiles_of(chosen), 3)
    found = torch.cat(list(network.guided_logits(guide, batches, tiling)))
    torch.testing.assert_close(found, plain_logits(network)[list(chosen)], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="got 3 tiles of 4"):
        list(network.guided_logits(guide, batches[:1], tiling))


def test_a_full_network_needs_all_tiles() -> None:
    network = Watched(everywhere, "full")
    guide = network.run_guide(thumbnail_of(network))
    with pytest.raises(UsageError, match="tiles cannot be selected: this needs a model of mode local"):
        network.guided_logits(guide, [], window_tiling())


def test_a_choice_of_tiles_is_of_the_grid_and_not_merged() -> None:
    with pytest.raises(ValueError, match=r"selected tiles \(30,\) are not among the 30 of the grid"):
        replace(window_tiling(), selection=(30,))
    with pytest.raises(ValueError, match="this needs all tiles of the window"):
        replace(window_tiling(), selection=(1,)).overlap((20, 20))


def test_no_seam_where_kept_and_skipped_tiles_meet() -> None:
    """Tiles that say 4 beside a guide that says 0: neighbouring cells differ by no more than the steepest fade."""

    class Steps(Watched):
        def _guided_logits(self, *arguments: object) -> Iterator[Tensor]:
            return (torch.full_like(batch, 4.0) for batch in super()._guided_logits(*arguments))

    def flat_but_for_the_corner(logits: Tensor) -> Tensor:
        flat = F.pad(torch.zeros_like(logits[:, :1]), (0, 0, 0, 0, 0, 1), value=-1e-3)
        flat[0, 1, -3, 2] = 1e-3
        return flat

    cells = scores(Steps(flat_but_for_the_corner)).cells[0]
    assert cells.min() == pytest.approx(0, abs=1e-5)
    assert cells.max() == pytest.approx(4, abs=1e-5)
    steepest = max(np.abs(np.diff(w)).max() for axis in FORM.tiling(*IMAGE.shape[1:]) for w in axis.weights)
    assert max(np.abs(np.diff(cells, axis=axis)).max() for axis in (0, 1)) <= 4 * steepest + 1e-5
    assert steepest < 0.5
