"""Blend the parts of overlapping context windows into full-resolution class scores, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from glraster.raster.grid import STRIDE, FloatArray, Window, WindowGrid, WorkingGrid


class PartRows(Protocol):
    """What an assembly reads of parts; see `parts.Parts`."""

    @property
    def classes(self) -> int: ...

    def read_rows(self, row: int, column: int, start: int, stop: int) -> npt.NDArray[Any] | None: ...

    def forget_above(self, row: int) -> None: ...


@dataclass(frozen=True)
class Assembly:
    """Finished parts as one map: `windows` laid over the `grid` of a scene, their `parts`.

    `wait` is called with the (row, column) of windows before their parts are read: it may sleep until they are there.

    Memory: one block, and the rows of one part that it needs.
    """

    grid: WorkingGrid
    windows: WindowGrid
    parts: PartRows
    wait: Callable[[Iterable[tuple[int, int]]], None] = lambda _: None

    def scores(self, block: Window) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Blended logits of a block of the scene's own grid.

        Cells are blended with weights that fade towards each window's rim, then resized bilinearly. A pixel's
        score does not depend on the block in which it is computed.

        Returns:
            scores (classes, height, width), each pixel's up to a constant; covered (height, width): whether any
            window that was computed reaches the pixel.
        """
        rows = self.grid.rows.cell_positions(block.top, block.bottom)
        columns = self.grid.columns.cell_positions(block.left, block.right)
        area = self._cells(rows, columns)
        cells, weight = self._blend(area)
        row_taps = _Taps.at(rows, area.top, self.windows.rows.side // STRIDE)
        column_taps = _Taps.at(columns, area.left, self.windows.columns.side // STRIDE)
        scores = column_taps.interpolate(row_taps.interpolate(cells, axis=1), axis=2)
        if weight.all():
            return scores, np.ones(scores.shape[1:], bool)
        present = (weight > 0).astype(np.float32)
        return scores, column_taps.interpolate(row_taps.interpolate(present, axis=0), axis=1) > 0

    def _cells(self, rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]) -> Window:
        height, width = self.windows.rows.side // STRIDE, self.windows.columns.side // STRIDE
        top, left = max(0, int(np.floor(rows[0]))), max(0, int(np.floor(columns[0])))
        # the first pixels lie before the centre of cell 0, yet their taps are cells 0 and 1
        last_row, last_column = max(0, int(np.floor(rows[-1]))), max(0, int(np.floor(columns[-1])))
        bottom, right = min(height, last_row + 2), min(width, last_column + 2)
        return Window(top, left, bottom - top, right - left)

    def _blend(self, area: Window) -> tuple[FloatArray, FloatArray]:
        """Weighted mean of the parts over an area of cells: (classes, rows, columns), and the weight present."""
        total = np.zeros((area.height, self.parts.classes, area.width), np.float32)
        weight = np.zeros((area.height, area.width), np.float32)
        row_weights, column_weights = self.windows.rows.weights, self.windows.columns.weights
        pixels = Window(area.top * STRIDE, area.left * STRIDE, area.height * STRIDE, area.width * STRIDE)
        touching = self.windows.touching(pixels)
        self.wait(touching)
        self.parts.forget_above(min((row for row, _ in touching), default=0))
        for row, column in touching:
            window = self.windows.window(row, column)
            top, left = window.top // STRIDE, window.left // STRIDE
            shared = Window(top, left, window.height // STRIDE, window.width // STRIDE).intersection(area)
            assert shared is not None  # `touching` says so
            part = self.parts.read_rows(row, column, shared.top - top, shared.bottom - top)
            if part is None:
                continue
            fade = np.outer(
                row_weights[row][shared.top - top : shared.bottom - top],
                column_weights[column][shared.left - left : shared.right - left],
            )
            target = (
                slice(shared.top - area.top, shared.bottom - area.top),
                slice(shared.left - area.left, shared.right - area.left),
            )
            inner = part[:, :, shared.left - left : shared.right - left].astype(np.float32)
            total[target[0], :, target[1]] += inner * fade[:, None, :]
            weight[target] += fade
        total /= np.where(weight > 0, weight, 1)[:, None, :]
        return np.ascontiguousarray(total.transpose(1, 0, 2)), weight


@dataclass(frozen=True)
class _Taps:
    """Linear interpolation along one axis: the two neighbours of each position and the share of the second."""

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    share: FloatArray

    @staticmethod
    def at(positions: npt.NDArray[np.float64], origin: int, side: int) -> _Taps:
        """Taps for `positions` in an array that starts at `origin` of an axis of `side` cells, edges repeated."""
        clamped = np.clip(positions, 0, side - 1)
        first = np.floor(clamped).astype(np.intp)
        second = np.minimum(first + 1, side - 1)
        return _Taps(first - origin, second - origin, (clamped - first).astype(np.float32))

    def interpolate(self, values: FloatArray, axis: int) -> FloatArray:
        before, after = np.take(values, self.first, axis), np.take(values, self.second, axis)
        share = self.share.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        after -= before
        after *= share
        after += before
        return after


def best_class(scores: FloatArray) -> npt.NDArray[np.uint8]:
    """Index of the highest score of each pixel, (classes, height, width) to (height, width)."""
    best = scores[0].copy()
    index = np.zeros(best.shape, np.uint8)
    for i, score in enumerate(scores[1:], start=1):
        np.copyto(index, i, where=score > best)
        np.maximum(best, score, out=best)
    return index


def softmax(scores: FloatArray) -> FloatArray:
    """Class probabilities of each pixel, (classes, height, width)."""
    exponential: FloatArray = np.exp(scores - scores.max(axis=0))
    exponential /= exponential.sum(axis=0)
    return exponential


@dataclass(frozen=True)
class ScoreArray:
    """Scores of every pixel of a scene, held in memory: (classes, height, width)."""

    values: FloatArray

    def scores(self, block: Window) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """The block's scores (classes, height, width), and that all of it is covered."""
        part = self.values[:, block.top : block.bottom, block.left : block.right]
        return part, np.ones(part.shape[1:], bool)
