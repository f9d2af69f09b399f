"""The parts of a map: one file of quarter-resolution logits for every context window.

A part is a `.npy` array (rows, classes, columns) of cells in float16, so that a band of rows is one stretch of the
file. It is written beside its name and then renamed: a part that exists is whole. The part of a window
without any valid pixel is an empty array.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import numpy as np
import numpy.typing as npt

LOWEST = -60000.0
"""The lowest logit a part holds: float16 ends at -65504."""


@dataclass(frozen=True)
class PartFolder:
    """Parts of one scene in a folder, each known by the (row, column) of its window."""

    path: Path
    classes: int

    def file(self, row: int, column: int) -> Path:
        return self.path / f"window_{row}_{column}.npy"

    def write(self, row: int, column: int, logits: npt.NDArray[np.float32]) -> None:
        """Keep the logits (classes, rows, columns) of a window.

        The best class of each cell is moved to zero, which changes no arg-max and no softmax but leaves
        float16 its precision where classes compete.
        """
        relative = np.maximum(logits - logits.max(axis=0, keepdims=True), LOWEST).astype(np.float16)
        self._save(row, column, np.ascontiguousarray(relative.transpose(1, 0, 2)))

    def skip(self, row: int, column: int) -> None:
        """Note that the window has no valid pixel."""
        self._save(row, column, np.zeros((0, self.classes, 0), np.float16))

    def _save(self, row: int, column: int, array: npt.NDArray[np.float16]) -> None:
        final = self.file(row, column)
        # a name of its own: a worker that was given up for lost may still write the same part
        temporary = final.with_suffix(f".{uuid4().hex}.tmp")
        with temporary.open("wb") as stream:
            np.save(stream, array)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(final)

    def shape(self, row: int, column: int) -> tuple[int, int] | None:
        """Rows and columns of cells of a finished part ((0, 0): skipped); None where there is none."""
        path = self.file(row, column)
        if not path.exists():
            return None
        try:
            with path.open("rb") as stream:
                (rows, classes, columns), offset = _header(stream)
        except ValueError:  # a damaged header
            return None
        whole = path.stat().st_size == offset + rows * classes * columns * 2
        return (rows, columns) if whole and classes == self.classes else None

    def read_rows(self, row: int, column: int, start: int, stop: int) -> npt.NDArray[np.float16] | None:
        """Cells of rows [start, stop) of a part as (rows, classes, columns); None where it was skipped."""
        with self.file(row, column).open("rb") as stream:
            (_, classes, columns), offset = _header(stream)
            if columns == 0:
                return None
            stream.seek(offset + start * classes * columns * 2)
            count = (stop - start) * classes * columns
            return np.fromfile(stream, np.float16, count).reshape(stop - start, classes, columns)


def _header(stream: BinaryIO) -> tuple[tuple[int, int, int], int]:
    np.lib.format.read_magic(stream)
    shape, _, _ = np.lib.format.read_array_header_1_0(stream)
    return (shape[0], shape[1], shape[2]), stream.tell()
