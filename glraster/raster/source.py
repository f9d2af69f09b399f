"""A raster that is open for reading, wherever it lies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetReader

from glraster.errors import GlrasterError, SceneError
from glraster.raster.grid import Window
from glraster.raster.opening import reason
from glraster.raster.remote import is_remote, remote_settings, retry_pauses, telling
from glraster.raster.writer import GDAL_ERRORS

T = TypeVar("T")


class OpenRaster:
    """An open raster, local or remote, whose errors are told in one line; use as a context manager.

    `name` is what was opened, `path` the same for messages, `dataset` what GDAL has of it; its pixels are read by
    `read_bands`, `read_masks` and `fetch`. What a subclass has against the raster it says inside `closed_on_error()`.

    Raises:
        SceneError: on creation, where it cannot be opened; a subclass may name another error.
    """

    error: type[GlrasterError] = SceneError

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = telling(name)
        self._remote = name if is_remote(name) else ""
        self._reading = threading.Lock()  # GDAL's datasets are not for several threads at once
        with self.opening():
            self.dataset: DatasetReader = rasterio.open(name)
            # a local VRT can have remote sources
            self._remote = next(filter(is_remote, (name, *self.dataset.files)), "")

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
        """Close the raster where the block refuses it."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    @contextmanager
    def opening(self) -> Iterator[None]:
        """GDAL's settings for the network where they are needed, and its errors in words."""
        with self._told("cannot be opened as a raster"):
            yield

    def read_bands(self, indexes: int | Sequence[int], **how: Any) -> npt.NDArray[Any]:
        """What `dataset.read` gives, by `fetch`."""
        return self.fetch(lambda: self.dataset.read(indexes, **how))

    def read_masks(self, indexes: int | Sequence[int], **how: Any) -> npt.NDArray[np.uint8]:
        """What `dataset.read_masks` gives, by `fetch`: 0 where a pixel is invalid."""
        return self.fetch(lambda: self.dataset.read_masks(indexes, **how))

    def fetch(self, read: Callable[[], T]) -> T:
        """What a function reads from `dataset`.

        GDAL takes an answer that was cut off for a whole one, and keeps it: a remote raster is then opened anew and
        read again, after pauses that grow. One thread reads at a time.
        """
        with self._reading, self._told("cannot be read" if self._remote else "cannot be read, it may be damaged"):
            for pause in retry_pauses() if self._remote else ():
                try:
                    return read()
                except GDAL_ERRORS:
                    time.sleep(pause)
                    self.reopen()
            return read()

    def reopen(self) -> None:
        """Open the same raster again, without what GDAL remembers of it."""
        self.close()
        self.dataset = rasterio.open(self.name)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
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
