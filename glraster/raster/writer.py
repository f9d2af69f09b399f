"""Write rasters as Cloud-Optimized GeoTIFFs that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterioWindow

from glraster.config import NODATA, LandClass
from glraster.errors import UsageError
from glraster.files import LITTLE_SPACE, cannot_write, publish, refuse_foreign, remove_if_empty, staging_folder, sync
from glraster.raster.grid import Window

BLOCK_PX = 512
CLASSES_TAG = "GLRASTER_CLASSES"

GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""What rasterio raises: its own errors, and those of GDAL that some of its functions let through."""

_UNFINISHED = ("blocks.tif", "cog.tif", "names.xml")
"""The files of a writer in its staging folder: plain blocks, finished COG, side-car. GDAL may append endings."""

COG_DEFAULTS = {
    "COMPRESS": "DEFLATE",
    "BLOCKSIZE": str(BLOCK_PX),
    "BIGTIFF": "IF_SAFER",
    "NUM_THREADS": "ALL_CPUS",
}


@dataclass(frozen=True)
class RasterForm:
    """Grid and meaning of an output raster of uint8 values with nodata 255.

    `classes` colours a single band and names its values; `band_names` describes the bands; `overviews` is the
    GDAL resampling of the overviews.
    """

    height: int
    width: int
    crs: CRS | None
    transform: Affine
    classes: tuple[LandClass, ...] = ()
    band_names: tuple[str, ...] = ("",)
    overviews: str = "MODE"
    tags: Mapping[str, str] = field(default_factory=dict)


class CogWriter:
    """A raster that is written block by block in a staging folder and moved to its place when it is complete.

    Use as a context manager: on an error nothing appears under the final name. `options` are creation options
    of GDAL's COG driver. Memory: GDAL's block cache.
    """

    def __init__(self, path: Path, form: RasterForm, options: Sequence[tuple[str, str]] = ()) -> None:
        self.path = path
        self._form = form
        self._options = {**COG_DEFAULTS, **{name.upper(): value for name, value in options}}
        self._staging = staging_folder(path)
        self._little_space = LITTLE_SPACE
        self._plain, self._cog, self._names = (self._staging / name for name in _UNFINISHED)
        with self._writing():
            refuse_foreign(self._staging)
            self._staging.mkdir(exist_ok=True)
            self._clean()
            self._dataset = rasterio.open(self._plain, "w", **self._profile())
            self._describe()

    def _profile(self) -> dict[str, object]:
        return {
            "driver": "GTiff",
            "width": self._form.width,
            "height": self._form.height,
            "count": len(self._form.band_names),
            "dtype": "uint8",
            "nodata": NODATA,
            "crs": self._form.crs,
            "transform": self._form.transform,
            "tiled": True,
            "blockxsize": BLOCK_PX,
            "blockysize": BLOCK_PX,
            "interleave": "band",
            "compress": "deflate",
            "zlevel": 1,
            "bigtiff": "if_safer",
        }

    def _describe(self) -> None:
        self._dataset.update_tags(**self._form.tags)
        for index, name in enumerate(self._form.band_names, start=1):
            self._dataset.set_band_description(index, name)
        if self._form.classes:
            self._dataset.update_tags(**{CLASSES_TAG: classes_json(self._form.classes)})
            self._dataset.write_colormap(1, {c.id: (*c.color, 255) for c in self._form.classes})

    def write(self, window: Window, values: npt.NDArray[np.uint8]) -> None:
        """Write (bands, height, width) or (height, width) values at a window of the output's grid."""
        bands = values if values.ndim == 3 else values[None]
        with self._writing():
            # told before GDAL is at the end of the disk: libtiff prints lines of its own about that
            if shutil.disk_usage(self._staging).free < bands.nbytes + LITTLE_SPACE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._dataset.write(bands, window=RasterioWindow(window.left, window.top, window.width, window.height))

    def finish(self) -> None:
        """Turn the blocks into a COG with overviews, still in the staging folder."""
        with self._writing():
            self._dataset.close()
            self._little_space = max(LITTLE_SPACE, self._plain.stat().st_size)
            rasterio.shutil.copy(
                self._plain,
                self._cog,
                driver="COG",
                **{"OVERVIEW_RESAMPLING": self._form.overviews, **self._options},
            )
            self._plain.unlink()
            with rasterio.open(self._cog) as written:
                if (written.height, written.width) != (self._form.height, self._form.width):
                    raise OSError("the COG driver wrote an incomplete file")
            sync(self._cog)

    def publish(self) -> None:
        """Move the finished COG and its side-car with class names to their place; those of an older raster go."""
        with self._writing():
            if self._form.classes:
                self._names.write_text(_names_xml(self._form.classes), encoding="utf-8")
            publish(self._cog, self.path, self._names if self._form.classes else None, raster=True)

    def __enter__(self) -> CogWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._dataset.closed:
            try:
                self._dataset.close()
            except GDAL_ERRORS:
                if error is None:
                    raise
        self._clean()
        remove_if_empty(self._staging)

    def _clean(self) -> None:
        for name in _UNFINISHED:
            for leftover in self._staging.glob(f"{name}*"):
                leftover.unlink()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except GDAL_ERRORS as error:
            raise cannot_write(self.path, error, self._little_space) from error


def check_creation_options(options: Sequence[tuple[str, str]]) -> None:
    """Try the creation options on a small mask, before hours of work depend on them.

    Raises:
        UsageError: if GDAL's COG driver refuses or ignores them, or if they change grid or values.
    """
    flags = " ".join(f"--co {name}={value}" for name, value in options)
    grid = {"crs": CRS.from_epsg(32633), "transform": Affine(1, 0, 500_000, 0, -1, 5_000_000)}
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    try:
        with MemoryFile() as tiny, MemoryFile() as cog, _gdal_warnings() as warnings:
            with tiny.open(driver="GTiff", width=16, height=16, count=1, dtype="uint8", **grid) as dataset:
                dataset.write_colormap(1, {0: (0, 0, 0, 255)})
                dataset.write(values)
            rasterio.shutil.copy(
                tiny.name, cog.name, driver="COG", **COG_DEFAULTS | {name.upper(): value for name, value in options}
            )
            with cog.open() as written:
                same = written.transform == grid["transform"] and np.array_equal(written.read(), values)
    except GDAL_ERRORS as error:
        raise UsageError(f"GDAL refuses {flags}: {error.__cause__ or error}") from error
    if warnings:
        raise UsageError(f"GDAL refuses {flags}: {warnings[0]}")
    if not same:
        raise UsageError(f"{flags} would change the grid or the values of the map; leave it out")


@contextmanager
def _gdal_warnings() -> Iterator[list[str]]:
    """Collect GDAL's warnings, which rasterio logs."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("rasterio._env")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def classes_json(classes: Sequence[LandClass]) -> str:
    """Classes as the text of a raster's `GLRASTER_CLASSES` tag."""
    return json.dumps([{"id": c.id, "name": c.name, "color": list(c.color)} for c in classes])


def xml_characters(text: str) -> str:
    """A text with only the characters that XML 1.0 can hold, however escaped; others become U+FFFD."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _names_xml(classes: Sequence[LandClass]) -> str:
    """GDAL's side-car with category names and a raster attribute table, which GIS programs show as a legend."""
    classes = [replace(c, name=xml_characters(c.name)) for c in classes]
    by_id = {c.id: c for c in classes}
    names = [by_id[i].name if i in by_id else "" for i in range(max(by_id) + 1)]
    categories = "".join(f"<Category>{escape(name)}</Category>" for name in names)
    columns = [("Value", 0, 0), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8)]
    fields = "".join(
        f'<FieldDefn index="{i}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for i, (name, kind, usage) in enumerate(columns)
    )
    rows = "".join(
        f'<Row index="{i}">' + "".join(f"<F>{escape(str(v))}</F>" for v in (c.id, c.name, *c.color)) + "</Row>"
        for i, c in enumerate(classes)
    )
    table = f'<GDALRasterAttributeTable tableType="thematic">{fields}{rows}</GDALRasterAttributeTable>'
    return (
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames>{table}'
        "</PAMRasterBand></PAMDataset>\n"
    )
