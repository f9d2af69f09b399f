"""The parts of a map: one file of quarter-resolution logits for every context window.

A part is a `.npy` array (rows, classes, columns) of cells in float16, so that a band of rows is one stretch of the
file. A part that exists is whole: in a folder it is written beside its name and renamed, in an object store it is put
with a digest. The part of a window without any valid pixel is an empty array.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from glraster.errors import OutputError
from glraster.files import replacing, staging_folder
from glraster.segmentation.stores import FolderStore, Store, store_at

LOWEST = -60000.0
"""The lowest logit a part holds: float16 ends at -65504."""

FETCHED = "fetched"
"""Folder beside the output with the parts of a store that are being assembled."""

Cells = npt.NDArray[np.float16]


class Parts(Protocol):
    """Parts of one scene, each known by the (row, column) of its window."""

    @property
    def classes(self) -> int: ...

    @property
    def store(self) -> Store:
        """Where they are."""

    def write(self, row: int, column: int, logits: npt.NDArray[np.float32]) -> None:
        """Keep the logits (classes, rows, columns) of a window."""

    def skip(self, row: int, column: int) -> None:
        """Note that the window has no valid pixel."""

    def finished(self, windows: Iterable[tuple[int, int]], cells: tuple[int, int]) -> dict[tuple[int, int], bool]:
        """Those of the windows that have a part of (rows, columns) `cells`, or were skipped; whether they were."""

    def read_rows(self, row: int, column: int, start: int, stop: int) -> Cells | None:
        """Cells of rows [start, stop) of a part as (rows, classes, columns); None if it was skipped."""

    def forget_above(self, row: int) -> None:
        """Note that no part of a row of windows above `row` will be read any more."""


@dataclass(frozen=True)
class PartFolder:
    """Parts in a folder; see `Parts`. `before_save` is called before every part."""

    path: Path
    classes: int
    before_save: Callable[[], None] = lambda: None

    @property
    def store(self) -> Store:
        return FolderStore(self.path)

    def file(self, row: int, column: int) -> Path:
        return self.path / _file(row, column)

    def write(self, row: int, column: int, logits: npt.NDArray[np.float32]) -> None:
        self._save(row, column, _cells(logits))

    def skip(self, row: int, column: int) -> None:
        self._save(row, column, _nothing(self.classes))

    def _save(self, row: int, column: int, array: Cells) -> None:
        self.before_save()
        with replacing(self.file(row, column), durable=True) as beside:
            beside.write_bytes(_as_file(array))  # not by NumPy, which does not say why a file cannot be written

    def finished(self, windows: Iterable[tuple[int, int]], cells: tuple[int, int]) -> dict[tuple[int, int], bool]:
        shapes = {window: self.shape(*window) for window in windows}
        return {window: shape == (0, 0) for window, shape in shapes.items() if shape in (cells, (0, 0))}

    def shape(self, row: int, column: int) -> tuple[int, int] | None:
        """Rows and columns of cells of a finished part ((0, 0): skipped); None if there is none."""
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

    def read_rows(self, row: int, column: int, start: int, stop: int) -> Cells | None:
        with self.file(row, column).open("rb") as stream:
            (_, classes, columns), offset = _header(stream)
            if columns == 0:
                return None
            stream.seek(offset + start * classes * columns * 2)
            count = (stop - start) * classes * columns
            return np.fromfile(stream, np.float16, count).reshape(stop - start, classes, columns)

    def forget_above(self, row: int) -> None:
        """All parts stay: a run that is interrupted goes on with them."""


@dataclass(frozen=True)
class PartStore:
    """Parts in an object store; see `Parts`.

    A part is fetched once, to a folder in `beside`, and stays there while its rows are read: disk for two rows of
    windows. `before_save` is called before every part.
    """

    store: Store
    classes: int
    beside: Path
    before_save: Callable[[], None] = lambda: None

    def write(self, row: int, column: int, logits: npt.NDArray[np.float32]) -> None:
        self._save(row, column, _cells(logits))

    def skip(self, row: int, column: int) -> None:
        self._save(row, column, _nothing(self.classes))

    def _save(self, row: int, column: int, array: Cells) -> None:
        self.before_save()
        self.store.write(_file(row, column), _as_file(array))

    def finished(self, windows: Iterable[tuple[int, int]], cells: tuple[int, int]) -> dict[tuple[int, int], bool]:
        """By their sizes; a torn part of the right size is found when it is read."""
        windows_of = {_file(*window): window for window in windows}
        rows, columns = cells
        none, some = _bytes(0, self.classes, 0), _bytes(rows, self.classes, columns)
        sizes = self.store.sizes(windows_of)
        return {windows_of[file]: size == none for file, size in sizes.items() if size in (none, some)}

    def read_rows(self, row: int, column: int, start: int, stop: int) -> Cells | None:
        fetched = PartFolder(self.beside / FETCHED, self.classes)
        if not fetched.file(row, column).exists():
            self._fetch(_file(row, column), fetched.file(row, column))
        return fetched.read_rows(row, column, start, stop)

    def _fetch(self, file: str, path: Path) -> None:
        content = self.store.read(file)
        if content is None:
            self.store.remove([file])
            raise OutputError(f"{self.store.name}/{file}: is torn and was removed; repeat the call with --resume")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    def forget_above(self, row: int) -> None:
        for path in (self.beside / FETCHED).glob("window_*.npy"):
            if int(path.name.split("_")[1]) < row:
                path.unlink()


def parts_in(store: Store, classes: int, beside: Path, before_save: Callable[[], None] = lambda: None) -> Parts:
    """The parts in a store; see `PartFolder` and `PartStore`."""
    if isinstance(store, FolderStore):
        return PartFolder(store.path, classes, before_save)
    return PartStore(store, classes, beside, before_save)


def parts_store(output: Path, place: str | None) -> Store:
    """Where the parts of an output are: beside it, or in a folder of the output's name in `place`.

    Raises:
        UsageError, OutputError: see `stores.store_at`.
    """
    beside = staging_folder(output)
    return FolderStore(beside) if place is None else store_at(f"{place.rstrip('/')}/{beside.name}")


def check_place(place: str) -> None:
    """Refuse a place that cannot hold parts, before anything is computed.

    Raises:
        UsageError, OutputError: see `stores.store_at`; or if it is a folder that does not exist.
    """
    store = store_at(place)
    if isinstance(store, FolderStore) and not store.path.is_dir():
        raise OutputError(f"{place}: no such folder for parts; create it first")


def forget_fetched(beside: Path) -> None:
    """Remove what a `PartStore` fetched."""
    shutil.rmtree(beside / FETCHED, ignore_errors=True)


def _file(row: int, column: int) -> str:
    return f"window_{row}_{column}.npy"


def _cells(logits: npt.NDArray[np.float32]) -> Cells:
    """Logits (classes, rows, columns) as a part keeps them.

    The best class of each cell is moved to zero, which changes no arg-max and no softmax but leaves
    float16 its precision between classes that compete.
    """
    relative = np.maximum(logits - logits.max(axis=0, keepdims=True), LOWEST).astype(np.float16)
    return np.ascontiguousarray(relative.transpose(1, 0, 2))


def _as_file(array: Cells) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _nothing(classes: int) -> Cells:
    return np.zeros((0, classes, 0), np.float16)


def _bytes(rows: int, classes: int, columns: int) -> int:
    """Length of the file of a part."""
    content = io.BytesIO()
    form = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False}
    np.lib.format.write_array_header_1_0(content, {**form, "shape": (rows, classes, columns)})
    return len(content.getvalue()) + rows * classes * columns * 2


def _header(stream: BinaryIO) -> tuple[tuple[int, int, int], int]:
    np.lib.format.read_magic(stream)
    shape, _, _ = np.lib.format.read_array_header_1_0(stream)
    return (shape[0], shape[1], shape[2]), stream.tell()
