"""What a Python user may pass: rasters that are no files yet, and options as keywords."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeAlias, TypeVar, get_type_hints

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from glraster.errors import UsageError

PathLike = str | os.PathLike[str]


class OnDisk(Protocol):
    """Whatever keeps its raster in a file, such as a `LandCover`."""

    @property
    def path(self) -> Path: ...


RasterLike: TypeAlias = "PathLike | DatasetReader | WarpedVRT | tuple[Any, Affine, Any]"
"""A path or URL, an open rasterio dataset, or (array, transform, crs): (bands, H, W) or (H, W)."""

Options = TypeVar("Options")


@contextmanager
def raster_path(raster: RasterLike | OnDisk) -> Iterator[str]:
    """Yield a name under which GDAL opens the raster; what is no file becomes a temporary one meanwhile.

    Raises:
        TypeError: if it is nothing of this kind. UsageError: if the array has another shape.
    """
    if isinstance(raster, WarpedVRT | tuple):
        with TemporaryDirectory(prefix="glraster-") as folder:
            path = Path(folder) / "raster.tif"
            if isinstance(raster, WarpedVRT):
                rasterio.shutil.copy(raster, path, driver="GTiff", bigtiff="IF_SAFER")
            else:
                _write(path, *raster)
            yield str(path)
    elif isinstance(raster, DatasetReader):
        yield str(raster.name)
    elif isinstance(raster, str | os.PathLike):
        yield os.fspath(raster)
    elif hasattr(raster, "path"):
        yield str(raster.path)
    else:
        raise TypeError(
            f"a {type(raster).__name__} is no raster; give a path, a rasterio dataset open for reading, or (array, "
            "transform, crs)"
        )


def _write(path: Path, array: Any, transform: Affine | None, crs: Any) -> None:
    pixels = np.asarray(array)
    bands = pixels[None] if pixels.ndim == 2 else pixels
    if bands.ndim != 3 or not bands.size:
        raise UsageError(f"an array of the shape {pixels.shape} is no raster; give (bands, H, W) or (H, W)")
    count, height, width = bands.shape
    form: dict[str, Any] = {"height": height, "width": width, "count": count, "dtype": bands.dtype, "crs": crs}
    if transform is not None:
        form["transform"] = transform
    with rasterio.open(path, "w", driver="GTiff", tiled=True, bigtiff="IF_SAFER", **form) as dataset:
        dataset.write(bands)


def as_options(record: type[Options], verb: str, keywords: dict[str, Any]) -> Options:
    """Make an options record of keywords.

    Raises:
        TypeError: if a keyword is no field of the record.
    """
    known = [field.name for field in fields(record)]  # type: ignore[arg-type]
    for name in keywords:
        if name not in known:
            close = get_close_matches(name, known, 1)
            advice = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(known)}"
            raise TypeError(f"{verb}() has no option {name!r}{advice}")
    hints = get_type_hints(record)
    return record(**{name: _in_type(value, hints[name]) for name, value in keywords.items()})


def take_options(record: type[Options], keywords: dict[str, Any]) -> Options:
    """Make an options record of those keywords that are its fields, and remove them."""
    names = [field.name for field in fields(record) if field.name in keywords]  # type: ignore[arg-type]
    return record(**{name: keywords.pop(name) for name in names})


def _in_type(value: Any, hint: Any) -> Any:
    """Lists become tuples, and texts paths if the field holds paths only."""
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if isinstance(value, str) and hint == Path | None else value
