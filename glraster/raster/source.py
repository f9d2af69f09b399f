"""Open a raster wherever it lies: GDAL's settings, checks against hostile headers, and errors in one line."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader

from glraster.errors import GlrasterError, SceneError
from glraster.names import is_remote, redact
from glraster.raster.grid import Window
from glraster.raster.remote import advice, remote_settings, retry_pauses
from glraster.raster.writer import GDAL_ERRORS

CACHE_BYTES = 64 * 2**20

LONGEST_SIDE = 2**26
"""Most pixels along one side of a raster. Memory for blend weights grows with it, up to 128 MiB."""

LARGEST_BLOCK = 2**30
"""Most bytes of one block of a raster with all its bands. GDAL decodes a block whole."""

T = TypeVar("T")


@contextmanager
def gdal_session(cache_bytes: int | None = None) -> Iterator[None]:
    """GDAL with a block cache of bounded size; its own default is a share of the machine's memory.

    Mutes rasterio's warning about rasters without georeference, because `Scene` logs one of its own.
    """
    with (
        rasterio.Env(GDAL_CACHEMAX=cache_bytes or CACHE_BYTES),
        warnings.catch_warnings(category=NotGeoreferencedWarning, action="ignore"),
    ):
        yield


class OpenRaster:
    """An open raster, local or remote, whose errors are one line each; use as a context manager.

    `name` is what was opened, `path` the same without credentials for messages, `dataset` the open dataset. Read its
    pixels with `read_bands`, `read_masks` and `fetch`, which retry on the network. A subclass that refuses a raster
    does so inside `closed_on_error()`; it may set `error`, and `open_options` of the GDAL driver.

    Raises:
        SceneError: on creation, if it cannot be opened or its header claims sizes that would take memory without
            bound; of the class `error` in a subclass.
    """

    error: ClassVar[type[GlrasterError]] = SceneError
    open_options: ClassVar[Mapping[str, str]] = {}

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = redact(name)
        self._remote = name if is_remote(name) else ""
        self._reading = threading.Lock()  # GDAL's datasets are not for several threads at once
        with self.opening():
            self.dataset: DatasetReader = rasterio.open(name, **self.open_options)
            # a local VRT can have remote sources
            self._remote = next(filter(is_remote, (name, *self.dataset.files)), "")
        with self.closed_on_error():
            self._refuse_hostile_header()

    def _refuse_hostile_header(self) -> None:
        """Refuse sizes that would take memory without bound."""
        dataset = self.dataset
        if max(dataset.shape) > LONGEST_SIDE:
            raise self.error(
                f"{self.path}: claims {dataset.width} x {dataset.height} px; no side may have more than {LONGEST_SIDE}"
            )
        rows, columns = dataset.block_shapes[0] if dataset.count else (0, 0)
        pixel_bytes = sum(16 if "complex" in dtype else np.dtype(dtype).itemsize for dtype in dataset.dtypes)
        if rows * columns * pixel_bytes > LARGEST_BLOCK:
            raise self.error(
                f"{self.path}: is stored in blocks of {columns} x {rows} px, too large to be decoded; make a tiled "
                "copy with 'rio cogeo create'"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.dataset.close()

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the raster if the block raises."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    @contextmanager
    def opening(self) -> Iterator[None]:
        """GDAL's network settings if they are needed, and its errors as `error`."""
        with self._translated("cannot be opened as a raster"):
            yield

    def read_bands(self, indexes: int | Sequence[int], **how: Any) -> npt.NDArray[Any]:
        """`dataset.read`, by `fetch`."""
        return self.fetch(lambda: self.dataset.read(indexes, **how))

    def read_masks(self, indexes: int | Sequence[int], **how: Any) -> npt.NDArray[np.uint8]:
        """`dataset.read_masks`, by `fetch`: 0 marks an invalid pixel."""
        return self.fetch(lambda: self.dataset.read_masks(indexes, **how))

    def fetch(self, read: Callable[[], T]) -> T:
        """Call a function that reads from `dataset`, one thread at a time.

        GDAL takes a response that was cut off for a complete one, and caches it. So a remote raster is opened anew and
        read again, after pauses that grow.
        """
        with self._reading, self._translated("cannot be read" if self._remote else "cannot be read, it may be damaged"):
            for pause in retry_pauses() if self._remote else ():
                try:
                    return read()
                except GDAL_ERRORS:
                    time.sleep(pause)
                    self.reopen()
            return read()

    def reopen(self) -> None:
        """Open the same raster again, without what GDAL caches of it."""
        self.close()
        self.dataset = rasterio.open(self.name, **self.open_options)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn GDAL's errors into `error`, whose message says what failed."""
        try:
            with remote_settings(self._remote):
                yield
        except UnicodeDecodeError as error:
            raise self.error(
                f"{self.path}: holds text that is not UTF-8, most likely the name of its CRS; name the CRS anew with "
                "'gdal_edit.py -a_srs EPSG:CODE'"
            ) from error
        except GDAL_ERRORS as error:
            raise self.error(f"{self.path}: {what}: {reason(error, self.name, self._remote)}") from error

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.dataset.height, self.dataset.width

    @property
    def extent(self) -> Window:
        """All of the raster in its own pixels."""
        return Window(0, 0, *self.shape)

    @property
    def crs(self) -> CRS | None:
        return self.dataset.crs

    @property
    def transform(self) -> Affine:
        transform: Affine = self.dataset.transform
        return transform

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.dataset.tags())

    @cached_property
    def alpha_bands(self) -> tuple[int, ...]:
        """The 1-based indexes of its alpha bands."""
        # rasterio builds the whole tuple at every access, so that asking band by band is quadratic
        kinds = zip(self.dataset.indexes, self.dataset.colorinterp, strict=True)
        return tuple(i for i, kind in kinds if kind == ColorInterp.alpha)

    @cached_property
    def value_bands(self) -> tuple[int, ...]:
        """The 1-based indexes of the bands that are not alpha."""
        alpha = set(self.alpha_bands)
        return tuple(i for i in self.dataset.indexes if i not in alpha)


def local_files(path: str, dataset: DatasetReader) -> tuple[Path, ...]:
    """The local files that a dataset is read from: its own, side-cars, and the sources of a VRT, however deep."""
    files = {Path(path)} if Path(path).is_file() else set()
    to_visit = [Path(name) for name in dataset.files if not name.startswith("/vsi")]
    while to_visit:
        file = to_visit.pop()
        if file in files or not file.is_file():
            continue
        files.add(file)
        if file.suffix.lower() == ".vrt" and file != Path(path):
            with rasterio.open(file) as inner:
                to_visit += [Path(name) for name in inner.files if not name.startswith("/vsi")]
    return tuple(sorted(files))


def input_files(*names: str | os.PathLike[str] | None) -> Iterator[str | Path]:
    """The names that a call reads and, if they are rasters, all local files behind them: for `files.claim`."""
    for name in (os.fspath(name) for name in names if name is not None):
        yield name
        files: tuple[Path, ...] = ()  # collected first: whoever stops here must not do so inside a session of GDAL
        if not is_remote(name):
            with suppress(*GDAL_ERRORS, UnicodeDecodeError), gdal_session(), rasterio.open(name) as dataset:
                files = local_files(name, dataset)
        yield from files


def reason(error: Exception, name: str, remote: str = "") -> str:
    """GDAL's last error message in one line, without credentials and without `name`, which the caller says already.

    If the name, or the `remote` part of what it stands for, lies on the network, also what to do about it.
    """
    text = " ".join(str(error.__cause__ or error).split())
    message = redact(text.removeprefix(f"{name}: ").removeprefix(f"'{name}' ").rstrip(".") or type(error).__name__)
    next_step = advice(message) if is_remote(remote or name) else ""
    return f"{message}; {next_step}" if next_step else message
