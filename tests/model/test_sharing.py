"""Tiles and the window's map exchange the right cells, by the arithmetic of the authors' code."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from glraster.model.sharing import Canvas, Tiling, crop
from glraster.raster.grid import paper_axis


def coordinates(height: int, width: int) -> torch.Tensor:
    """A map (1, 2, height, width) whose cells tell their own row and column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns])[None].float()


def paper(height: int, width: int, side: int) -> Tiling:
    return Tiling(height, width, side, side, paper_axis(height, side).offsets, paper_axis(width, side).offsets)


def test_footprints_of_the_published_setting() -> None:
    tiling = paper(2448, 2448, 508)
    sizes = {cells: tiling.footprints((cells, cells), 0, 1)[0][0].stop for cells in (127, 64, 32, 16)}
    assert sizes == {127: 26, 64: 13, 32: 7, 16: 3}
    assert len(tiling) == 36
    rows, columns = tiling.footprints((127, 127), 7, 1)[0]  # tile in row 1, column 1
    assert (rows, columns) == (slice(20, 46), slice(20, 46))


def test_tiles_are_counted_row_by_row_on_a_window_that_is_not_square() -> None:
    tiling = Tiling(400, 800, 200, 400, (0, 100, 200), (0, 400))
    cells = crop(coordinates(40, 20), tiling, 0, 6)
    assert cells.shape == (6, 2, 20, 10)
    assert cells[:, :, 0, 0].tolist() == [[0, 0], [0, 10], [10, 0], [10, 10], [20, 0], [20, 10]]


@pytest.mark.parametrize("cells", [1, 2, 3, 5, 16, 127])
@pytest.mark.parametrize("tiling", [paper(1016, 1016, 508), Tiling(1016, 60, 508, 60, (0, 508), (0,))])
def test_footprints_stay_inside_and_are_never_empty(tiling: Tiling, cells: int) -> None:
    for rows, columns in tiling.footprints((cells, 2 * cells), 0, len(tiling)):
        assert 0 <= rows.start < rows.stop <= cells
        assert 0 <= columns.start < columns.stop <= 2 * cells


def test_a_tile_far_smaller_than_a_cell_still_gets_one() -> None:
    tiling = Tiling(4000, 4000, 40, 40, (0, 3960), (0, 3960))
    assert crop(coordinates(8, 8), tiling, 0, 4)[:, :, 0, 0].tolist() == [[0, 0], [0, 7], [7, 0], [7, 7]]


def test_one_tile_that_is_the_window_passes_through_unchanged() -> None:
    tiling = Tiling(64, 96, 64, 96, (0,), (0,))
    window = torch.rand(1, 3, 16, 24)
    assert torch.equal(crop(window, tiling, 0, 1), window)
    canvas = Canvas(tiling, window)
    canvas.add(window, 0)
    assert torch.equal(canvas.merged(), window)


@pytest.mark.parametrize("batch", [1, 4, 100])
@pytest.mark.parametrize("tiling", [paper(220, 300, 128), paper(256, 256, 128)], ids=["overlap", "two tiles"])
def test_merging_sums_resized_tiles_over_the_resized_overlap(tiling: Tiling, batch: int) -> None:
    maps = torch.rand(len(tiling), 3, 32, 32)
    canvas = Canvas(tiling, torch.empty(1, 3, 19, 23))
    for first in range(0, len(tiling), batch):
        canvas.add(maps[first : first + batch], first)
    torch.testing.assert_close(canvas.merged(), merged_naively(maps, tiling, (19, 23)))


def merged_naively(maps: torch.Tensor, tiling: Tiling, size: tuple[int, int]) -> torch.Tensor:
    """As released: a count at full resolution, tiles added one by one."""
    count, total = torch.zeros(1, 1, tiling.height, tiling.width), torch.zeros(1, maps.shape[1], *size)
    corners = [(top, left) for top in tiling.tops for left in tiling.lefts]
    height = round(size[0] * (tiling.tile_height / tiling.height))
    width = round(size[1] * (tiling.tile_width / tiling.width))
    for tile, (top, left) in zip(maps, corners, strict=True):
        count[..., top : top + tiling.tile_height, left : left + tiling.tile_width] += 1
        y, x = round(size[0] * (top / tiling.height)), round(size[1] * (left / tiling.width))
        y, x = min(y, size[0] - height), min(x, size[1] - width)
        small = F.interpolate(tile[None], (height, width), mode="bilinear")
        total[..., y : y + height, x : x + width] += small
    return total / F.interpolate(count, size, mode="bilinear")


def test_cells_without_a_tile_stay_zero() -> None:
    tiling = Tiling(64, 64, 16, 16, (0,), (48,))
    canvas = Canvas(tiling, torch.empty(1, 1, 4, 4))
    canvas.add(torch.ones(1, 1, 4, 4), 0)
    assert canvas.merged()[0, 0].tolist() == [[0, 0, 0, 1], [0] * 4, [0] * 4, [0] * 4]


def test_merging_half_precision_maps_adds_in_single_precision() -> None:
    tiling = Tiling(8, 520, 8, 8, (0,), tuple(range(513)))
    canvas = Canvas(tiling, torch.empty(1, 1, 1, 1, dtype=torch.bfloat16))
    for first in range(len(tiling)):
        canvas.add(torch.ones(1, 1, 1, 1, dtype=torch.bfloat16), first)
    assert canvas.merged().dtype == torch.bfloat16
    assert canvas._sum.item() == len(tiling)


@pytest.mark.parametrize(
    ("tiling", "message"),
    [
        ((64, 64, 128, 64, (0,), (0,)), "a tile of 128 px does not fit a window of 64 px"),
        ((64, 64, 0, 64, (0,), (0,)), "a tile of 0 px does not fit"),
        ((64, 64, 32, 32, (0,), ()), r"tile offsets \(\) leave the window"),
        ((64, 64, 32, 32, (0, 33), (0,)), r"tile offsets \(0, 33\) leave the window of 64 px"),
        ((64, 64, 32, 32, (0,), (-1,)), r"tile offsets \(-1,\) leave the window"),
    ],
)
def test_tiles_outside_the_window_are_refused(tiling: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tiling(*tiling)  # type: ignore[arg-type]
