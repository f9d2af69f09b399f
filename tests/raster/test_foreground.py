"""Boxes are those of the connected parts of a mask, and tiles are kept where they touch a relaxed one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glraster.raster.grid import Axis
from glraster.segmentation.foreground import foreground_boxes, foreground_tiles

Mask = npt.NDArray[np.bool_]


def flood_boxes(mask: Mask) -> set[tuple[int, ...]]:
    """The boxes of eight-connected parts, found cell by cell."""
    left, boxes = mask.copy(), set()
    while left.any():
        waiting, cells = [tuple(int(v) for v in np.argwhere(left)[0])], []
        left[waiting[0]] = False
        while waiting:
            y, x = waiting.pop()
            cells.append((y, x))
            for ny in range(max(0, y - 1), min(mask.shape[0], y + 2)):
                for nx in range(max(0, x - 1), min(mask.shape[1], x + 2)):
                    if left[ny, nx]:
                        left[ny, nx] = False
                        waiting.append((ny, nx))
        low, high = np.min(cells, axis=0), np.max(cells, axis=0) + 1
        boxes.add((*low.tolist(), *high.tolist()))
    return boxes


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10**6), st.integers(1, 14), st.integers(1, 14), st.floats(0, 0.7))
def test_boxes_are_those_of_connected_parts(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    assert {tuple(box) for box in foreground_boxes(mask).tolist()} == flood_boxes(mask)


def test_a_spiral_is_one_part() -> None:
    rows = ["#####", "....#", "###.#", "#...#", "#####"]
    mask = np.array([[cell == "#" for cell in row] for row in rows])
    assert foreground_boxes(mask).tolist() == [[0, 0, 5, 5]]


ROWS, COLUMNS = Axis(400, 100, (0, 100, 200, 300)), Axis(600, 100, (0, 100, 200, 300, 400, 500))


def kept(mask: Mask, relax: float) -> list[tuple[int, int]]:
    return [(int(y), int(x)) for y, x in np.argwhere(foreground_tiles(mask, ROWS, COLUMNS, relax))]


def test_tiles_that_touch_a_box_are_kept() -> None:
    mask = np.zeros((40, 60), bool)
    mask[12:18, 33:37] = True  # pixels 120 to 180 and 330 to 370, a cell of margin: one tile
    assert kept(mask, 0.0) == [(1, 3)]
    # half of its height, 30 px, more on each side: rows 90 to 210, columns 310 to 390
    assert kept(mask, 0.5) == [(0, 3), (1, 3), (2, 3)]


def test_parts_far_apart_do_not_bridge() -> None:
    mask = np.zeros((40, 60), bool)
    mask[2, 2] = mask[37, 57] = True
    assert kept(mask, 0.25) == [(0, 0), (3, 5)]


def test_a_mask_of_any_resolution_tells_the_same() -> None:
    coarse = np.zeros((4, 6), bool)
    coarse[2, 4] = True
    assert kept(coarse.repeat(10, 0).repeat(10, 1), 0.05) == [(1, 3), (1, 4), (1, 5), *((2, c) for c in (3, 4, 5))] + [
        (3, c) for c in (3, 4, 5)
    ]


@pytest.mark.parametrize(("value", "count"), [(False, 0), (True, 24)])
def test_nothing_or_everything(value: bool, count: int) -> None:
    assert foreground_tiles(np.full((8, 12), value), ROWS, COLUMNS).sum() == count


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.floats(0, 0.2), st.floats(0, 2))
def test_no_foreground_lies_outside_the_kept_tiles(seed: int, share: float, relax: float) -> None:
    mask = np.random.default_rng(seed).random((20, 30)) < share
    keep = foreground_tiles(mask, ROWS, COLUMNS, relax)
    for y, x in np.argwhere(mask):
        assert keep[min(3, y * 20 // 100), min(5, x * 20 // 100)]
