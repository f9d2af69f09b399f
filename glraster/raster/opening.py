"""Open rasters: GDAL's settings, the bands to read, the files a raster is made of, and another nodata value."""

from __future__ import annotations

import ctypes
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader

from glraster.errors import SceneError
from glraster.raster.remote import advice, is_remote, telling

CACHE_BYTES = 64 * 2**20

LONGEST_SIDE = 2**26
"""Pixels along one side of a scene, at most: memory for blend weights grows with it, to 128 MiB."""

LARGEST_BLOCK = 2**30
"""Bytes of one block of a scene with all its bands, at most: GDAL decodes it whole."""


@contextmanager
def gdal_session(cache_bytes: int | None = None) -> Iterator[None]:
    """GDAL with a block cache of bounded size (its own default is a share of the machine's memory).

    rasterio's warning of a raster without georeference is left out: `Scene` gives it once, in words. So are the lines
    that libtiff itself prints of a full disk: they come as errors too.
    """
    _silence_libtiff()
    with (
        rasterio.Env(GDAL_CACHEMAX=cache_bytes or CACHE_BYTES),
        warnings.catch_warnings(category=NotGeoreferencedWarning, action="ignore"),
    ):
        yield


@cache
def _silence_libtiff() -> None:
    """Take away libtiff's own way to stderr, which GDAL leaves open for files that it writes."""
    try:
        libraries = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libtiff" in line}
        for library in libraries:
            ctypes.CDLL(library).TIFFSetErrorHandler(None)
    except (OSError, AttributeError):  # another system, or GDAL has a libtiff of its own inside
        return


def check_form(dataset: DatasetReader, path: str) -> None:
    """Refuse sizes that would take memory without bound.

    Raises:
        SceneError: where a side is longer than `LONGEST_SIDE`, or a block has more than `LARGEST_BLOCK` bytes.
    """
    if max(dataset.shape) > LONGEST_SIDE:
        raise SceneError(
            f"{path}: claims {dataset.width} x {dataset.height} px; no side may have more than {LONGEST_SIDE}"
        )
    rows, columns = dataset.block_shapes[0]
    pixel_bytes = sum(16 if "complex" in dtype else np.dtype(dtype).itemsize for dtype in dataset.dtypes)
    if rows * columns * pixel_bytes > LARGEST_BLOCK:
        raise SceneError(
            f"{path}: is stored in blocks of {columns} x {rows} px, too large to be decoded; make a tiled copy with "
            "'rio cogeo create'"
        )


def choose_bands(dataset: DatasetReader, path: str, indexes: Sequence[int] | None, bands: int) -> tuple[int, ...]:
    """The 1-based bands to read: those asked for, or the first that are not alpha.

    Raises:
        SceneError: where there are too few, or the ones asked for are not there or not as many as the model needs.
    """
    if dataset.count == 0:
        parts = f"; name one of its {len(dataset.subdatasets)} subdatasets" if dataset.subdatasets else ""
        raise SceneError(f"{path}: holds no raster band{parts}")
    if indexes is None:
        colour = [i for i in dataset.indexes if dataset.colorinterp[i - 1] != ColorInterp.alpha]
        if len(colour) < bands:
            raise SceneError(f"{path}: has {len(colour)} bands without alpha, the model needs {bands}")
        return tuple(colour[:bands])
    absent = [i for i in indexes if i not in dataset.indexes]
    if absent:
        raise SceneError(f"{path}: has no band {absent[0]}; its bands are 1 to {dataset.count}")
    if len(indexes) != bands:
        raise SceneError(f"--bidx names {len(indexes)} bands, the model needs {bands}")
    return tuple(indexes)


def local_files(path: str, dataset: DatasetReader) -> tuple[Path, ...]:
    """The local files that a dataset is read from: its own, side-cars, and the sources of a VRT, however deep."""
    found = {Path(path)} if Path(path).is_file() else set()
    waiting = [Path(name) for name in dataset.files if not name.startswith("/vsi")]
    while waiting:
        file = waiting.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        if file.suffix.lower() == ".vrt" and file != Path(path):
            with rasterio.open(file) as inner:
                waiting += [Path(name) for name in inner.files if not name.startswith("/vsi")]
    return tuple(sorted(found))


def with_nodata(dataset: DatasetReader, nodata: float) -> DatasetReader:
    """The same dataset with another nodata value in place of its own, of its alpha band and of its mask."""
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder) / "overlay.vrt"
        with dataset:
            rasterio.shutil.copy(dataset, overlay, driver="VRT")
        with rasterio.open(overlay, "r+") as writable:
            writable.nodata = nodata
        description = re.sub(r"<MaskBand>.*?</MaskBand>", "", overlay.read_text(), flags=re.DOTALL)
    return rasterio.open(description)


def reason(error: Exception, name: str, remote: str = "") -> str:
    """GDAL's own last word, in one line, without the name that the caller tells already and without secrets.

    Where the name, or a `remote` part of what it stands for, lies on the network, also what to do about it.
    """
    text = " ".join(str(error.__cause__ or error).split())
    told = telling(text.removeprefix(f"{name}: ").removeprefix(f"'{name}' ").rstrip(".") or type(error).__name__)
    todo = advice(told) if is_remote(remote or name) else ""
    return f"{told}; {todo}" if todo else told
