"""Lay a truth on the grid of a map, and bring the classes of both together."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyogrio
import rasterio.shutil
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from glraster.catalog import Catalog, LabelEncoding, Pair
from glraster.catalog.records import Encoding, LabelValue
from glraster.config import NODATA, LandClass
from glraster.errors import CatalogError, SceneError, TruthError, UsageError
from glraster.labels.grid import grid_of
from glraster.labels.reader import LabelReader
from glraster.names import is_remote, redact
from glraster.raster.georef import raster_bounds
from glraster.raster.mask import Mask, declared_classes, distinct_color
from glraster.raster.remote import remote_settings, remote_vectors
from glraster.raster.source import OpenRaster, reason

_COLUMNS = ("class", "class_name", "class_id", "label")

_WELL_APART = 70.0
"""Distance of two colours in RGB that are told apart at once."""

TruthKind = Literal["raster", "polygons", "points"]


@dataclass(frozen=True)
class TruthOptions:
    """What a truth says.

    Attributes:
        classes: (value, name) of its classes; those of its `GLRASTER_CLASSES` tag, or the map's by id, otherwise.
        ignore: values or names that are not judged; nodata and 255 never are.
        others: the class that stands for all classes of the map that the truth does not name.
        column, layer: where a vector truth keeps its classes. background: the class outside its polygons.
        resample: lay a raster truth of another grid on the map's, nearest neighbour.
        zero_and_255: a raster truth of 0 and 255 means the ids 0 and 1.
    """

    classes: tuple[tuple[int, str], ...] = ()
    ignore: tuple[LabelValue, ...] = ()
    others: str | None = None
    column: str | None = None
    layer: str | None = None
    background: str | None = None
    resample: bool = False
    zero_and_255: bool = False


@dataclass(frozen=True, eq=False)
class Legend:
    """The classes by which map and truth are compared.

    `table` (256,) turns mask values into class indexes, 255 for none; `truth_ids` are (truth value, class id) where
    the truth has ids of its own; `in_mean` tells the classes that count in mean scores.
    """

    classes: tuple[LandClass, ...]
    table: npt.NDArray[np.uint8]
    truth_ids: tuple[tuple[LabelValue, int], ...] = ()
    in_mean: tuple[bool, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)


def join_classes(
    mapped: Sequence[LandClass], true: Sequence[LandClass], others: str | None = None, *, same_ids: bool = False
) -> Legend:
    """Bring the classes of a map and of a truth together by their names.

    Args:
        mapped: classes of the map.
        true: classes of the truth.
        others: name of the true class that mapped classes without a namesake become; otherwise they stay as they are,
            and are wrong wherever they are mapped.
        same_ids: the ids of `true` are final and stay.

    Raises:
        TruthError: where no name agrees.
    """
    ours = {c.name: c for c in mapped}
    names = [c.name for c in true]
    if others is not None and others not in names:
        raise UsageError(f"--others {others!r} is no class of the truth, which has {', '.join(names)}")
    if not set(names) & set(ours):
        raise TruthError(
            f"no class of the map ({', '.join(ours)}) has a namesake in the truth ({', '.join(names)}); name the "
            "truth's values with --classes"
        )
    extra = [c for c in mapped if c.name not in names] if others is None else []
    taken = {c.id for c in true} if same_ids else {c.id for c in mapped}
    free = iter([i for i in range(NODATA) if i not in taken])
    judged = list(true) if same_ids else [ours.get(c.name) or replace(c, id=next(free)) for c in true]
    judged += [replace(c, id=next(free)) for c in extra] if same_ids else extra
    places = {c.name: i for i, c in enumerate(judged)}
    table = np.full(256, NODATA, np.uint8)
    for c in mapped:
        table[c.id] = places[c.name if c.name in places else others or ""]
    pairs: list[tuple[LabelValue, int]] = [(c.id, j.id) for c, j in zip(true, judged, strict=False)]
    pairs += [(c.name, j.id) for c, j in zip(true, judged, strict=False)]
    return Legend(tuple(judged), table, tuple(pairs))


def named_classes(named: Sequence[tuple[int, str]], beside: Sequence[LandClass]) -> tuple[LandClass, ...]:
    """Classes from values and names, in the colours that their namesakes have, or in colours unlike all others."""
    colors = {c.name: c.color for c in beside}
    for _, name in named:
        if name not in colors:
            colors[name] = _unlike(list(colors.values()))
    return tuple(LandClass(value, name, colors[name]) for value, name in named)


def _unlike(taken: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """A light grey, or else a bright colour, that differs well from all taken; the most different where none does."""
    choices = np.array([(206, 211, 214), *(distinct_color(i) for i in range(24))])
    others = np.array(taken, np.float64).reshape(1, -1, 3)
    distances = np.linalg.norm(choices[:, None] - others, axis=2).min(axis=1, initial=1e3)
    well = np.flatnonzero(distances >= _WELL_APART)
    red, green, blue = (int(channel) for channel in choices[well[0] if well.size else distances.argmax()])
    return red, green, blue


def own_classes(mapped: Sequence[LandClass]) -> Legend:
    """The classes of a map, for a truth that has the same ids."""
    table = np.full(256, NODATA, np.uint8)
    table[[c.id for c in mapped]] = range(len(mapped))
    return Legend(tuple(mapped), table)


def truth_kind(truth: str, layer: str | None) -> TruthKind:
    """Whether a truth is a raster, polygons or points.

    Raises:
        TruthError: where it can be opened as none of them.
    """
    try:
        with OpenRaster(truth):
            return "raster"
    except SceneError as error:
        told = str(error)
    try:
        with remote_vectors(truth):
            geometry = str(pyogrio.read_info(truth, layer=layer)["geometry_type"])
    except (DataSourceError, DataLayerError) as error:
        absent = not (is_remote(truth) or Path(truth).exists())
        problem = "does not exist" if absent else told.split(": cannot be opened as a raster: ")[-1]
        raise TruthError(f"{redact(truth)}: cannot be opened as a raster or as vectors: {problem}") from error
    return "points" if "Point" in geometry else "polygons"


@contextmanager
def opened_truth(mask: Mask, truth: str, options: TruthOptions) -> Iterator[tuple[LabelReader, Legend]]:
    """Open a raster or polygons as class indexes on the grid of a map.

    Raises:
        TruthError: where the grids differ and `resample` is not asked for, or no class agrees.
        CatalogError: where the file cannot be read.
    """
    vector = truth_kind(truth, options.layer) == "polygons"
    with tempfile.TemporaryDirectory() as folder:
        read_from = truth
        encoding: Encoding = "vector"
        declared: tuple[LandClass, ...] = ()
        if not vector:
            with OpenRaster(truth) as raster:
                read_from = _on_grid(mask, raster, options.resample, Path(folder))
                encoding = "rgb" if raster.dataset.count >= 3 else "index"
                declared = declared_classes(raster.dataset)
        named = named_classes(options.classes, mask.classes) or declared
        plain = encoding == "rgb" or not named
        legend = own_classes(mask.classes) if plain else join_classes(mask.classes, named, options.others)
        column = truth_column(truth, options) if vector else None
        catalog = _as_catalog(legend, LabelEncoding(encoding, column=column, layer=options.layer), options)
        with LabelReader(Pair(mask.name, read_from), catalog) as reader:
            yield reader, legend


def _as_catalog(legend: Legend, labels: LabelEncoding, options: TruthOptions) -> Catalog:
    """A catalog that says of labels what the options say of the truth."""
    values: tuple[tuple[LabelValue, int], ...] = legend.truth_ids
    if options.zero_and_255 and labels.encoding == "index":
        first, second = (c.id for c in legend.classes[:2])
        values = ((0, first), (1, second), (255, second))
    ids = {name: value for value, name in options.classes}
    ignore = {*options.ignore, *(ids[i] for i in options.ignore if isinstance(i, str) and i in ids)}
    if labels.encoding == "index" and NODATA not in {value for value, _ in values}:
        ignore.add(NODATA)
    background = None
    if options.background is not None:
        known = {c.name: c.id for c in legend.classes}
        if options.background not in known:
            raise UsageError(f"--background {options.background!r} is no class; the classes are {', '.join(known)}")
        background = known[options.background]
    return Catalog(
        name="truth",
        classes=legend.classes,
        bands=1,
        labels=replace(labels, values=() if labels.encoding == "rgb" else values, background=background),
        ignore=tuple(sorted(ignore, key=str)) if labels.encoding != "rgb" else (),
    )


def truth_column(truth: str, options: TruthOptions) -> str:
    """The column of a vector truth that holds its classes.

    Raises:
        UsageError: where none is named and none has a usual name.
    """
    if options.column is not None:
        return options.column
    with remote_vectors(truth):
        columns = [str(name) for name in pyogrio.read_info(truth, layer=options.layer)["fields"]]
    usual = [name for name in _COLUMNS if name in columns]
    if not usual:
        raise UsageError(
            f"{redact(truth)}: which column holds the classes? Give --column with one of {', '.join(columns)}"
        )
    return usual[0]


def _on_grid(mask: Mask, truth: OpenRaster, resample: bool, folder: Path) -> str:
    """What to read so that the truth lies on the map's grid: itself, or a virtual raster."""
    grid, own, dataset = grid_of(mask), grid_of(truth), truth.dataset
    mismatch = grid.mismatch(own)
    if mismatch is None:
        return truth.name
    if not (grid.georeferenced and own.georeferenced and mask.crs and truth.crs):
        sizes = " and ".join(f"{width} x {height} px" for height, width in (own.shape, grid.shape))
        raise TruthError(
            f"{truth.path}: truth and map {mask.path} differ in size ({sizes}) and lack the georeference to lay one on "
            "the other; crop or assign a CRS first (rio clip, rio edit-info)"
        )
    if not resample:
        command = shlex.join(_warp_command(mask, truth))
        raise TruthError(f"{_where(mismatch)}; --resample lays the truth on the map's grid, or run: {command}")
    form = {"crs": mask.crs, "transform": mask.transform, "height": mask.shape[0], "width": mask.shape[1]}
    # beyond the truth there must be nothing, not its value 0
    beyond = {} if dataset.nodata is not None else {"add_alpha": True} if dataset.count >= 3 else {"nodata": NODATA}
    try:
        with remote_settings(truth.name), WarpedVRT(dataset, resampling=Resampling.nearest, **form, **beyond) as warped:
            rasterio.shutil.copy(warped, folder / "truth.vrt", driver="VRT")
    except RasterioError as error:
        told = reason(error, truth.name)
        raise TruthError(f"{truth.path}: cannot be laid on the grid of {mask.path}: {told}") from error
    return str(folder / "truth.vrt")


def _warp_command(mask: Mask, truth: OpenRaster) -> list[str]:
    """The command that does what `--resample` does."""
    dataset, beside = truth.dataset, f"{Path(truth.path).stem}_on_map.tif"
    aside = beside if is_remote(truth.name) else str(Path(truth.path).with_name(beside))
    if dataset.count >= 3 and dataset.nodata is None:
        sides = [str(side) for side in (*raster_bounds(mask.transform, *mask.shape), *reversed(mask.shape))]
        target = ["-t_srs", mask.crs.to_string() if mask.crs else "", "-te", *sides[:4], "-ts", *sides[4:]]
        return ["gdalwarp", *target, "-r", "near", "-dstalpha", truth.path, aside]
    beyond = [] if dataset.nodata is not None else ["--src-nodata", str(NODATA), "--dst-nodata", str(NODATA)]
    return ["rio", "warp", truth.path, aside, "--like", mask.path, "--resampling", "nearest", *beyond]


def _where(mismatch: str) -> str:
    return mismatch.replace("its image", "the map").split(";", maxsplit=1)[0]


def as_truth_error(error: CatalogError, truth: str) -> TruthError:
    """An error of reading a label, in the words of somebody who evaluates."""
    told = redact(truth)
    return TruthError("; ".join(f"{told}: {text}" if told not in text else text for text in error.problems))
