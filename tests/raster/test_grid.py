"""Windows and tiles cover everything once blended, stay inside, and sit on the cell grid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glraster.raster.grid import (
    ONE_CONTEXT,
    STRIDE,
    Axis,
    Window,
    WindowGrid,
    context_axis,
    even_axis,
    paper_axis,
    round_up,
    working_grid,
)

sides = st.integers(1, 60_000)
cells = st.integers(1, 400)


def covered(axis: Axis) -> np.ndarray:
    counts = np.zeros(axis.side, int)
    for offset in axis.offsets:
        assert 0 <= offset <= axis.side - axis.length
        counts[offset : offset + axis.length] += 1
    return counts


@given(side=cells, length=cells, overlap=st.integers(0, 399))
def test_even_tiles_cover_every_pixel_inside_the_side(side: int, length: int, overlap: int) -> None:
    side, length, overlap = max(side, length) * STRIDE, length * STRIDE, min(overlap, length - 1) * STRIDE
    axis = even_axis(side, length, overlap)
    assert covered(axis).min() >= 1
    assert all(offset % STRIDE == 0 for offset in axis.offsets)
    assert all(b - a <= length - overlap for a, b in zip(axis.offsets, axis.offsets[1:], strict=False))


@given(side=cells, length=cells, overlap=st.integers(0, 399))
def test_blend_weights_sum_to_one_at_every_cell(side: int, length: int, overlap: int) -> None:
    side, length, overlap = max(side, length) * STRIDE, length * STRIDE, min(overlap, length - 1) * STRIDE
    axis = even_axis(side, length, overlap)
    total = np.zeros(side // STRIDE)
    for offset, weights in zip(axis.offsets, axis.weights, strict=True):
        assert (weights > 0).all()
        total[offset // STRIDE :][: len(weights)] += weights
    np.testing.assert_allclose(total, 1, atol=1e-5)


@given(side=sides, context=st.integers(64, 4000), tile=st.integers(1, 1000))
def test_context_windows_cover_the_scene_from_its_origin(side: int, context: int, tile: int) -> None:
    tile *= STRIDE
    context = max(context, tile)
    axis = context_axis(side, context, tile)
    assert covered(axis)[:side].min() >= 1
    assert axis.offsets[0] == 0
    assert all(offset % STRIDE == 0 for offset in axis.offsets)
    assert axis.side - max(side, tile) < STRIDE
    assert axis.length >= tile
    if max(side, tile) + STRIDE <= ONE_CONTEXT * context:
        assert axis.offsets == (0,)


def test_context_windows_overlap_by_an_eighth() -> None:
    axis = context_axis(50_000, 2448, 508)
    steps = np.diff(axis.offsets)
    assert axis.length == 2448
    assert steps.max() <= 2448 - 2448 // 8


@given(side=sides, length=st.integers(60, 1000))
def test_paper_patches_cover_every_pixel_and_overlap_by_fifty(side: int, length: int) -> None:
    axis = paper_axis(side, length)
    assert covered(axis).min() >= 1
    steps = np.diff(axis.offsets)
    assert (length - steps >= 49).all()


def test_paper_patches_of_the_published_size() -> None:
    assert paper_axis(2448, 508) == Axis(2448, 508, (0, 388, 776, 1164, 1552, 1940))


@pytest.mark.parametrize("side", [37, 508])
def test_paper_patch_of_a_small_side_is_the_side(side: int) -> None:
    assert paper_axis(side, 508) == Axis(side, side, (0,))


def test_tiles_off_the_cell_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        even_axis(1000, 510, 64)
    with pytest.raises(ValueError, match="overlap < length <= side"):
        even_axis(400, 508, 64)


@given(scene=sides, scale=st.floats(0.05, 20), data=st.data())
def test_a_region_finds_all_cells_its_pixels_are_resized_from(scene: int, scale: float, data: st.DataObject) -> None:
    grid = working_grid(scene, scene, (scale, scale))
    start = data.draw(st.integers(0, scene - 1))
    stop = data.draw(st.integers(start + 1, min(scene, start + 3000)))
    axis = context_axis(grid.rows.working, 256, 64)
    needed = grid.to_working(Window(start, start, stop - start, stop - start))
    positions = grid.rows.cell_positions(start, stop)
    last_cell = axis.side // STRIDE - 1
    first, last = np.clip(np.floor(positions[[0, -1]]) + np.array([0, 1]), 0, last_cell)
    found = WindowGrid(axis, axis).touching(needed)
    rows = {row for row, _ in found}
    holders = {
        i for i, offset in enumerate(axis.offsets) if offset <= last * STRIDE and offset + axis.length > first * STRIDE
    }
    assert holders <= rows


def test_cell_positions_of_native_pixels() -> None:
    grid = working_grid(100, 100, (1.0, 1.0))
    assert grid.native
    np.testing.assert_allclose(grid.rows.cell_positions(0, 5), [-0.375, -0.125, 0.125, 0.375, 0.625])


def test_blocks_tile_a_window_without_overlap() -> None:
    seen = np.zeros((30, 50), int)
    for block in Window(3, 7, 21, 40).blocks(8, 16):
        seen[block.top : block.bottom, block.left : block.right] += 1
    assert (seen[3:24, 7:47] == 1).all()
    assert seen.sum() == 21 * 40


def test_intersection_of_disjoint_windows_is_none() -> None:
    assert Window(0, 0, 4, 4).intersection(Window(4, 0, 4, 4)) is None
    assert Window(0, 0, 4, 4).intersection(Window(2, 3, 4, 4)) == Window(2, 3, 2, 1)


def test_round_up() -> None:
    assert [round_up(value) for value in (0, 1, 4, 5)] == [0, 4, 4, 8]
