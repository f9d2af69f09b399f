"""Parts come back together as the field they were cut from."""

from pathlib import Path

import numpy as np
import pytest

from glraster.raster.grid import STRIDE, Window, WindowGrid, WorkingGrid, context_axis, working_grid
from glraster.segmentation.assemble import Assembly, best_class, softmax
from glraster.segmentation.parts import PartFolder


def plane(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Two classes whose difference is linear in both axes, so that every axis swap and shift shows."""
    difference = 0.01 * rows[:, None] - 0.02 * columns[None, :] + 0.3
    return np.stack([difference, np.zeros_like(difference)]).astype(np.float32)


def assembly(folder: Path, height: int, width: int, scale: float, skipped: tuple[int, int] | None = None) -> Assembly:
    grid = working_grid(height, width, (scale, scale))
    windows = WindowGrid(context_axis(grid.rows.working, 128, 64), context_axis(grid.columns.working, 128, 64))
    parts = PartFolder(folder, 2)
    for row in range(len(windows.rows.offsets)):
        for column in range(len(windows.columns.offsets)):
            if (row, column) == skipped:
                parts.skip(row, column)
                continue
            window = windows.window(row, column)
            cells = [
                np.arange(start, start + length) // STRIDE
                for start, length in ((window.top, window.height), (window.left, window.width))
            ]
            parts.write(row, column, plane(cells[0][::STRIDE], cells[1][::STRIDE]))
    return Assembly(grid, windows, parts)


def difference(scores: np.ndarray) -> np.ndarray:
    return scores[0] - scores[1]


@pytest.mark.parametrize("scale", [1.0, 2.7, 0.4])
def test_overlapping_windows_blend_to_one_field(tmp_path: Path, scale: float) -> None:
    height, width = 400, 515
    whole = assembly(tmp_path, height, width, scale)
    scores, covered = whole.scores(Window(0, 0, height, width))
    rows, columns = whole.grid.rows.cell_positions(0, height), whole.grid.columns.cell_positions(0, width)
    inside = slice(4, -8)  # resizing repeats the rim
    expected = plane(rows, columns)
    np.testing.assert_allclose(difference(scores)[inside, inside], difference(expected)[inside, inside], atol=4e-3)
    assert covered.all()


def test_a_pixel_does_not_depend_on_the_block_it_is_asked_in(tmp_path: Path) -> None:
    whole = assembly(tmp_path, 300, 410, 1.0)
    scores, _ = whole.scores(Window(0, 0, 300, 410))
    for block in Window(13, 29, 250, 333).blocks(77, 101):
        part, _ = whole.scores(block)
        np.testing.assert_array_equal(part, scores[:, block.top : block.bottom, block.left : block.right])


def test_a_skipped_window_leaves_its_neighbours_scores_whole(tmp_path: Path) -> None:
    whole = assembly(tmp_path, 300, 410, 1.0, skipped=(0, 0))
    scores, covered = whole.scores(Window(0, 0, 300, 410))
    assert not covered[:64, :64].any()
    expected = plane(whole.grid.rows.cell_positions(0, 300), whole.grid.columns.cell_positions(0, 410))
    inner = (slice(150, 250), slice(4, 400))
    np.testing.assert_allclose(difference(scores)[inner], difference(expected)[inner], atol=4e-3)


def test_parts_are_whole_or_absent(tmp_path: Path) -> None:
    parts = PartFolder(tmp_path, 3)
    assert parts.shape(0, 0) is None
    parts.write(0, 0, np.random.default_rng(0).normal(size=(3, 8, 9)).astype(np.float32))
    parts.skip(0, 1)
    assert parts.shape(0, 0) == (8, 9)
    assert parts.shape(0, 1) == (0, 0)
    whole = parts.file(0, 0).read_bytes()
    for cut in (len(whole) - 1, 40, 0):
        parts.file(0, 0).write_bytes(whole[:cut])
        assert parts.shape(0, 0) is None


def test_extreme_logits_survive_float16(tmp_path: Path) -> None:
    logits = np.array([1e6, 999_990.0, -1e9], np.float32)[:, None, None] * np.ones((3, 4, 4), np.float32)
    parts = PartFolder(tmp_path, 3)
    parts.write(0, 0, logits)
    rows = parts.read_rows(0, 0, 0, 4)
    assert rows is not None
    np.testing.assert_array_equal(rows[0, :, 0], [0, -10, -60000])


def test_best_class_agrees_with_argmax() -> None:
    scores = np.random.default_rng(5).normal(size=(7, 40, 50)).astype(np.float32)
    np.testing.assert_array_equal(best_class(scores), scores.argmax(axis=0))
    np.testing.assert_allclose(softmax(scores).sum(axis=0), 1, atol=1e-5)


def test_working_grid_of_a_coarse_scene_is_larger() -> None:
    grid = working_grid(100, 200, (0.5, 0.25))
    assert isinstance(grid, WorkingGrid)
    assert (grid.rows.working, grid.columns.working) == (200, 800)
    assert not grid.native
