"""Pixel geometry of context windows and tiles: pure integer maths, no I/O.

Three grids cover the same extent:

    scene grid    |..|..|..|..|..|..|..|..|..|..|..|..|..|..|..|..|    the file's own pixels
    working grid  |...|...|...|...|...|...|...|...|...|...|...|...|    the scene at the model's ground sample distance
    cell grid     |...............|...............|...............|    `STRIDE` x `STRIDE` working pixels per cell

Windows and tiles lie on the working grid, at multiples of `STRIDE` pixels; logits lie on the cell grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from glraster.errors import SceneError

STRIDE = 4
"""Working pixels per cell and axis: the resolution of the network's logits."""

ONE_CONTEXT = 1.5
"""A side up to this many contexts is covered by one window."""

MOST_WINDOWS = 2**24
"""Most context windows of one run: their list takes 1 GiB. With a context of 2448 px that is 77 terapixels."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """A rectangle of a grid in whole pixels (or cells): `top`, `left`, `height`, `width`."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def size(self) -> int:
        return self.height * self.width

    def intersection(self, other: Window) -> Window | None:
        """The rectangle that both share, or None if they share no pixel."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        if bottom <= top or right <= left:
            return None
        return Window(top, left, bottom - top, right - left)

    def blocks(self, height: int, width: int) -> Iterator[Window]:
        """Cover the window row by row with blocks of at most `height` x `width`."""
        for top in range(self.top, self.bottom, height):
            for left in range(self.left, self.right, width):
                yield Window(top, left, min(height, self.bottom - top), min(width, self.right - left))


@dataclass(frozen=True)
class Axis:
    """How equal pieces cover one side: their `offsets`, their `length`, the `side` they cover, all in pixels.

    Offsets ascend from 0 to `side - length`; neighbouring pieces overlap or touch:

        side      |--------------------------------|
        piece 0   |-- length --|
        piece 1             |-- length --|
        piece 2                       |-- length --|
        offsets   ^         ^         ^
    """

    side: int
    length: int
    offsets: tuple[int, ...]

    @cached_property
    def weights(self) -> tuple[FloatArray, ...]:
        r"""Blend weights of every piece per cell; at each cell of the side they sum to one.

        Raised-cosine ramps over the overlap: the rim of a piece, where the network saw padding instead of
        surroundings, counts least. Array i has `length / STRIDE` values.

            1 |--------.      .------------.      .--------
              |         \    /              \    /
              |          \  /                \  /
            0 |           ''                  ''
              | piece 0  |ramp|   piece 1    |ramp| piece 2
        """
        cells = self.length // STRIDE
        step = max(np.diff(self.offsets), default=self.length) // STRIDE
        ramp = max(1, cells - int(step))
        inward = np.minimum(np.arange(cells), np.arange(cells)[::-1]) + 0.5
        taper = np.sin(0.5 * np.pi * np.minimum(inward / ramp, 1.0)) ** 2
        total = np.zeros(self.side // STRIDE)
        for offset in self.offsets:
            total[offset // STRIDE :][:cells] += taper
        return tuple((taper / total[o // STRIDE :][:cells]).astype(np.float32) for o in self.offsets)


def round_up(value: int, multiple: int = STRIDE) -> int:
    """The smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


def usual_overlap(tile: int) -> int:
    """Default overlap of tiles: 64 px, or a quarter of a small tile."""
    return min(64, tile // (4 * STRIDE) * STRIDE)


def even_axis(side: int, length: int, overlap: int) -> Axis:
    """Cover `side` with evenly spaced pieces of `length` that overlap by `overlap` pixels or more.

    All three are multiples of `STRIDE` and so is every offset.

    Raises:
        ValueError: if the pieces cannot cover the side.
    """
    if any(value % STRIDE for value in (side, length, overlap)):
        raise ValueError(f"side {side}, length {length} and overlap {overlap} must be multiples of {STRIDE}")
    if not 0 <= overlap < length <= side:
        raise ValueError(f"need 0 <= overlap < length <= side, got {overlap}, {length}, {side}")
    count = math.ceil((side - overlap) / (length - overlap))
    if count == 1:
        return Axis(side, length, (0,))
    free_cells = (side - length) // STRIDE
    return Axis(side, length, tuple(STRIDE * (i * free_cells // (count - 1)) for i in range(count)))


def paper_axis(side: int, length: int, least_overlap: int = 50) -> Axis:
    """Cover `side` as the authors' released code does: the fewest pieces that overlap by 50 px or more.

    Offsets are rounded half to even and need not be multiples of `STRIDE`. A side no longer than a piece has
    one piece (the released code divides by zero there).
    """
    if side <= length:
        return Axis(side, side, (0,))
    count = 1
    while side > length * count:
        count += 1
    while length - (side - length) / (count - 1) < least_overlap:
        count += 1
    step = (side - length) / (count - 1)
    return Axis(side, length, (*(round(i * step) for i in range(count - 1)), side - length))


def context_axis(side: int, context: int, tile: int, overlap: int | None = None) -> Axis:
    """Cover a side of the working grid with context windows that overlap by `overlap`, an eighth of them if None.

    A side up to `ONE_CONTEXT` contexts is one window, padded to a whole tile and a multiple of `STRIDE`.
    """
    padded = round_up(max(side, tile))
    length = max(round_up(context), tile)
    if padded <= max(ONE_CONTEXT * length, length):
        return Axis(padded, padded, (0,))
    return even_axis(padded, length, round_up(length // 8) if overlap is None else overlap)


@dataclass(frozen=True)
class WindowGrid:
    """The context windows of a scene: every pair of a row of `rows` and a column of `columns`."""

    rows: Axis
    columns: Axis

    def window(self, row: int, column: int) -> Window:
        """The window of that row and column, in working pixels."""
        return Window(self.rows.offsets[row], self.columns.offsets[column], self.rows.length, self.columns.length)

    def touching(self, area: Window) -> tuple[tuple[int, int], ...]:
        """(row, column) of each window that shares a pixel with `area`, row by row.

        Raises:
            SceneError: if they are more than `MOST_WINDOWS`.
        """
        rows = _touching(self.rows, area.top, area.bottom)
        columns = _touching(self.columns, area.left, area.right)
        if len(rows) * len(columns) > MOST_WINDOWS:
            raise SceneError(
                f"{area.width} x {area.height} px need {len(rows) * len(columns)} context windows, more than "
                f"{MOST_WINDOWS}; map a part at a time with --bounds, or use a larger --context"
            )
        return tuple((row, column) for row in rows for column in columns)


def _touching(axis: Axis, start: int, stop: int) -> list[int]:
    return [i for i, offset in enumerate(axis.offsets) if offset < stop and offset + axis.length > start]


@dataclass(frozen=True)
class WorkingAxis:
    """One side of the scene (`scene` pixels) seen as `working` pixels, the same extent."""

    scene: int
    working: int

    @property
    def scale(self) -> float:
        """Scene pixels per working pixel."""
        return self.scene / self.working

    def to_working(self, start: int, stop: int) -> tuple[int, int]:
        """The working pixels that scene pixels [start, stop) need, with a cell on either side for bilinear resizing."""
        first = math.floor(start / self.scale) - STRIDE
        last = math.ceil(stop / self.scale) + STRIDE
        return max(0, first), min(self.working, last)

    def cell_positions(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """Where the centres of scene pixels [start, stop) lie on the cell grid, whose cell i has its centre at i.

        With a scale of 1 and cells of 4 pixels:

            scene pixel    |  0  |  1  |  2  |  3  |  4  |  5  |  6  |  7  |
            cell position   -3/8  -1/8   1/8   3/8   5/8   7/8   9/8  11/8
            cell           |           0           |           1           |
        """
        centres = np.arange(start, stop, dtype=np.float64) + 0.5
        return np.asarray(centres / (self.scale * STRIDE) - 0.5)


@dataclass(frozen=True)
class WorkingGrid:
    """The scene resampled to the model's ground sample distance; `rows` and `columns` map between the grids."""

    rows: WorkingAxis
    columns: WorkingAxis

    @property
    def native(self) -> bool:
        """Whether working pixels are the scene's own."""
        return self.rows.scene == self.rows.working and self.columns.scene == self.columns.working

    def to_working(self, region: Window) -> Window:
        """The working pixels that a region of the scene needs."""
        top, bottom = self.rows.to_working(region.top, region.bottom)
        left, right = self.columns.to_working(region.left, region.right)
        return Window(top, left, bottom - top, right - left)


def working_grid(height: int, width: int, scale: tuple[float, float]) -> WorkingGrid:
    """Lay the working grid over a scene: `scale` is scene pixels per working pixel for rows and columns."""
    return WorkingGrid(
        WorkingAxis(height, max(1, round(height / scale[0]))),
        WorkingAxis(width, max(1, round(width / scale[1]))),
    )
