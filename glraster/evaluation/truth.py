"""Lay a truth on the grid of a map, and join the classes of both."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyogrio
import rasterio.shutil
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from glraster.catalog import IGNORE, Encoding
from glraster.catalog.records import LabelValue, color_code
from glraster.config import NODATA, LandClass, class_color
from glraster.errors import SceneError, TruthError, UsageError
from glraster.labels.grid import grid_of
from glraster.labels.polygons import only_layer
from glraster.labels.reader import LabelReader
from glraster.labels.spec import LabelSpec, LabelWording
from glraster.names import is_remote, redact
from glraster.raster.class_names import declared_classes
from glraster.raster.class_raster import ClassRaster
from glraster.raster.georef import raster_bounds
from glraster.raster.remote import remote_settings, remote_vectors
from glraster.raster.source import OpenRaster, reason

_COLUMNS = ("class", "class_name", "class_id", "label")

_WELL_APART = 70.0
"""Distance in RGB of two colours that nobody confuses."""

_WORDING = LabelWording(
    image="the map",
    missing="check the path",
    values="name the truth's values with --classes, or leave them out with --ignore",
    encoding="give a raster of class numbers or colours",
    layer="choose one with --layer",
    grid="lay it on the map's grid with --resample",
)

TruthKind = Literal["raster", "polygons", "points"]


@dataclass(frozen=True)
class TruthOptions:
    """What a truth says.

    Attributes:
        classes: (value, name) of its classes; without any, those of its `GLRASTER_CLASSES` tag, else the map's by id.
        ignore: values or names to leave out; nodata and 255 always are.
        others: the class that stands for all classes of the map that the truth does not name.
        column, layer: where a vector truth keeps its classes. background: the class outside its polygons.
        resample: lay a raster truth of another grid on the map's, by nearest neighbour.
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

    `table` (256,) turns mask values into class indexes, 255 for none; `meanings` are the class indexes of truth values,
    which are ids or names; `in_mean` tells for every class whether it counts in mean scores.
    """

    classes: tuple[LandClass, ...]
    table: npt.NDArray[np.uint8]
    meanings: Mapping[LabelValue, int]
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
        others: name of the true class that stands for mapped classes of other names; without it they stay as they are,
            and are wrong wherever they are mapped.
        same_ids: keep the ids of `true`.

    Raises:
        TruthError: if no name agrees.
    """
    mapped_by_name = {c.name: c for c in mapped}
    names = [c.name for c in true]
    if others is not None and others not in names:
        raise UsageError(f"--others {others!r} is no class of the truth, which has {', '.join(names)}")
    if not set(names) & set(mapped_by_name):
        raise TruthError(
            f"no class of the map ({', '.join(mapped_by_name)}) has a namesake in the truth ({', '.join(names)})",
            advice="name the truth's values with --classes",
        )
    extra = [c for c in mapped if c.name not in names] if others is None else []
    taken = {c.id for c in true} if same_ids else {c.id for c in mapped}
    free = iter([i for i in range(NODATA) if i not in taken])
    judged = list(true) if same_ids else [mapped_by_name.get(c.name) or replace(c, id=next(free)) for c in true]
    judged += [replace(c, id=next(free)) for c in extra] if same_ids else extra
    places = {c.name: i for i, c in enumerate(judged)}
    table = np.full(256, NODATA, np.uint8)
    for c in mapped:
        table[c.id] = places[c.name if c.name in places else others or ""]
    return Legend(tuple(judged), table, _meanings(true))


def _meanings(true: Sequence[LandClass]) -> dict[LabelValue, int]:
    """The place in `true` of every id and name."""
    by_id: dict[LabelValue, int] = {c.id: i for i, c in enumerate(true)}
    return by_id | {c.name: i for i, c in enumerate(true)}


def named_classes(named: Sequence[tuple[int, str]], beside: Sequence[LandClass]) -> tuple[LandClass, ...]:
    """Classes from values and names, in the colours that their namesakes have, or in colours unlike all others."""
    colors = {c.name: c.color for c in beside}
    for _, name in named:
        if name not in colors:
            colors[name] = _unlike(list(colors.values()))
    return tuple(LandClass(value, name, colors[name]) for value, name in named)


def _unlike(taken: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """A light grey or a bright colour that differs clearly from all taken; the most different one if none does."""
    choices = np.array([(206, 211, 214), *(class_color(i) for i in range(24))])
    others = np.array(taken, np.float64).reshape(1, -1, 3)
    distances = np.linalg.norm(choices[:, None] - others, axis=2).min(axis=1, initial=1e3)
    well = np.flatnonzero(distances >= _WELL_APART)
    red, green, blue = (int(channel) for channel in choices[well[0] if well.size else distances.argmax()])
    return red, green, blue


def own_classes(mapped: Sequence[LandClass]) -> Legend:
    """The classes of a map, for a truth that has the same ids."""
    table = np.full(256, NODATA, np.uint8)
    table[[c.id for c in mapped]] = range(len(mapped))
    return Legend(tuple(mapped), table, _meanings(mapped))


def truth_kind(truth: str, layer: str | None) -> TruthKind:
    """Whether a truth is a raster, polygons or points.

    Raises:
        TruthError: if it can be opened as none of them.
        LabelError: if it does not exist, or has several layers and `layer` is None.
    """
    try:
        with OpenRaster(truth):
            return "raster"
    except SceneError as error:
        if not isinstance(error.__cause__, Exception):  # a raster, but refused
            raise
        raster_error = error.__cause__
    try:
        geometry = str(_layer_info(truth, layer)["geometry_type"])
    except DataLayerError as error:
        raise TruthError(f"has no layer {layer}", where=redact(truth), advice=_WORDING.layer) from error
    except DataSourceError as error:
        because = reason(raster_error, truth)
        raise TruthError(f"cannot be opened as a raster or as vectors: {because}", where=redact(truth)) from error
    return "points" if "Point" in geometry else "polygons"


@contextmanager
def opened_truth(mask: ClassRaster, truth: str, options: TruthOptions) -> Iterator[tuple[LabelReader, Legend]]:
    """Open a raster or polygons as class indexes on the grid of a map.

    Raises:
        TruthError: if the grids differ and `resample` is off, or no class agrees.
        LabelError: if the file cannot be read.
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
        legend = truth_legend(mask, options, declared) if encoding != "rgb" else own_classes(mask.classes)
        spec = truth_labels(legend, encoding, options)
        if vector:
            spec = replace(spec, column=truth_column(truth, options), layer=truth_layer(truth, options.layer))
        with LabelReader(read_from, spec, grid_of(mask), path=redact(truth)) as reader:
            yield reader, legend


def truth_legend(mask: ClassRaster, options: TruthOptions, declared: Sequence[LandClass] = ()) -> Legend:
    """The classes of a comparison, for a truth that may declare classes of its own.

    Raises:
        TruthError: if no class agrees.
    """
    true = named_classes(options.classes, mask.classes) or declared
    return join_classes(mask.classes, true, options.others) if true else own_classes(mask.classes)


def truth_labels(legend: Legend, encoding: Encoding, options: TruthOptions) -> LabelSpec:
    """The description of a truth as a label.

    Raises:
        UsageError: if the background is no class.
    """
    if encoding == "rgb":
        meanings: dict[LabelValue, int] = {color_code(c.color): i for i, c in enumerate(legend.classes)}
    else:
        zero_and_255 = options.zero_and_255 and encoding == "index"
        meanings = {0: 0, 1: 1, 255: 1} if zero_and_255 else dict(legend.meanings)
        if encoding == "index":
            meanings.setdefault(NODATA, IGNORE)
        ids = {name: value for value, name in options.classes}
        meanings |= dict.fromkeys(options.ignore, IGNORE)
        meanings |= {ids[name]: IGNORE for name in options.ignore if isinstance(name, str) and name in ids}
    background = IGNORE
    if options.background is not None:
        if options.background not in legend.names:
            raise UsageError(
                f"--background {options.background!r} is no class; the classes are {', '.join(legend.names)}"
            )
        background = legend.names.index(options.background)
    values = f"the classes are {', '.join(legend.names)}: {_WORDING.values}"
    return LabelSpec(encoding, legend.names, meanings, background=background, wording=replace(_WORDING, values=values))


def truth_layer(truth: str, layer: str | None) -> str:
    """The layer of a vector truth.

    Raises:
        LabelError: if it has several and `layer` is None.
    """
    return layer or only_layer(truth, _WORDING)


def _layer_info(truth: str, layer: str | None) -> dict[str, Any]:
    """What OGR says of the layer of a vector truth."""
    name = truth_layer(truth, layer)
    with remote_vectors(truth):
        return dict(pyogrio.read_info(truth, layer=name))


def truth_column(truth: str, options: TruthOptions) -> str:
    """The column of a vector truth that holds its classes.

    Raises:
        UsageError: if none is named and none has a usual name.
    """
    if options.column is not None:
        return options.column
    columns = [str(name) for name in _layer_info(truth, options.layer)["fields"]]
    usual = [name for name in _COLUMNS if name in columns]
    if not usual:
        raise UsageError(
            f"{redact(truth)}: which column holds the classes? Give --column with one of {', '.join(columns)}"
        )
    return usual[0]


def _on_grid(mask: ClassRaster, truth: OpenRaster, resample: bool, folder: Path) -> str:
    """What to read so that the truth lies on the map's grid: itself, or a virtual raster."""
    grid, own, dataset = grid_of(mask), grid_of(truth), truth.dataset
    mismatch = grid.mismatch(own, "the map")
    if mismatch is None:
        return truth.name
    if not (grid.georeferenced and own.georeferenced and mask.crs and truth.crs):
        sizes = " and ".join(f"{width} x {height} px" for height, width in (own.shape, grid.shape))
        raise TruthError(
            f"truth and map {mask.path} differ in size ({sizes}) and lack the georeference to lay one on the other",
            where=truth.path,
            advice="crop or assign a CRS first (rio clip, rio edit-info)",
        )
    if not resample:
        command = shlex.join(_warp_command(mask, truth))
        raise TruthError(
            mismatch, where=truth.path, advice=f"--resample lays the truth on the map's grid, or run: {command}"
        )
    form = {"crs": mask.crs, "transform": mask.transform, "height": mask.shape[0], "width": mask.shape[1]}
    # beyond the truth there must be nothing, not its value 0
    beyond = {} if dataset.nodata is not None else {"add_alpha": True} if dataset.count >= 3 else {"nodata": NODATA}
    try:
        with remote_settings(truth.name), WarpedVRT(dataset, resampling=Resampling.nearest, **form, **beyond) as warped:
            rasterio.shutil.copy(warped, folder / "truth.vrt", driver="VRT")
    except RasterioError as error:
        because = reason(error, truth.name)
        raise TruthError(f"cannot be laid on the grid of {mask.path}: {because}", where=truth.path) from error
    return str(folder / "truth.vrt")


def _warp_command(mask: ClassRaster, truth: OpenRaster) -> list[str]:
    """The command that does what `--resample` does."""
    dataset, beside = truth.dataset, f"{Path(truth.path).stem}_on_map.tif"
    aside = beside if is_remote(truth.name) else str(Path(truth.path).with_name(beside))
    if dataset.count >= 3 and dataset.nodata is None:
        sides = [str(side) for side in (*raster_bounds(mask.transform, *mask.shape), *reversed(mask.shape))]
        target = ["-t_srs", mask.crs.to_string() if mask.crs else "", "-te", *sides[:4], "-ts", *sides[4:]]
        return ["gdalwarp", *target, "-r", "near", "-dstalpha", truth.path, aside]
    beyond = [] if dataset.nodata is not None else ["--src-nodata", str(NODATA), "--dst-nodata", str(NODATA)]
    return ["rio", "warp", truth.path, aside, "--like", mask.path, "--resampling", "nearest", *beyond]
