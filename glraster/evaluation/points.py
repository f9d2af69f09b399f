"""Estimate class areas and accuracies of a map from points with a known class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points

from glraster.errors import TruthError
from glraster.evaluation.truth import Legend, TruthOptions, join_classes, named_classes, own_classes, truth_column
from glraster.metrics.area import AreaAssessment, assess_area
from glraster.metrics.records import ClassArea, PointEvaluation, known
from glraster.names import redact
from glraster.raster.grid import Window
from glraster.raster.mask import Mask
from glraster.raster.remote import remote_vectors
from glraster.raster.source import reason

_NONE = 255
_BLOCK_PX = 512


def evaluate_points(mask: Mask, truth: str, options: TruthOptions) -> PointEvaluation:
    """Hold a map against a sample of points, drawn at random within every mapped class or anywhere.

    Source: see `glraster.metrics.area`.

    Args:
        mask: an open map.
        truth: points with a class column.
        options: see `TruthOptions`.

    Raises:
        TruthError: where points cannot be read, have a class that is none, or are too few in a mapped class.

    Memory: the points, and a block of the map.
    """
    named = named_classes(options.classes, mask.classes)
    legend = join_classes(mask.classes, named, options.others) if named else own_classes(mask.classes)
    xs, ys, values = _read_points(mask, truth, options)
    truth = redact(truth)
    true = _true_classes(truth, values, legend, options)
    predicted = legend.table[_mapped_ids(mask, xs, ys)]
    used = (true != _NONE) & (predicted != _NONE)
    classes = len(legend.classes)
    sample = np.zeros((classes, classes), np.int64)
    np.add.at(sample, (predicted[used], true[used]), 1)
    pixels, area = mask.areas()
    mapped = np.zeros(classes)
    held = legend.table != _NONE
    np.add.at(mapped, legend.table[held], (pixels if area is None else area)[held].astype(np.float64))
    found = _assess(truth, sample, mapped, legend)
    left_out = int(len(used) - used.sum())
    notes = () if area is not None else ("areas are in pixels: the map has no CRS that tells metres",)
    return PointEvaluation(
        prediction=mask.path,
        truth=truth,
        classes=_class_areas(found, sample, mapped, legend),
        confusion=sample.T.copy(),
        proportions=found.proportions.T.copy(),
        unit="px" if area is None else "m2",
        points=int(used.sum()),
        points_left_out=left_out,
        accuracy=found.overall,
        accuracy_margin=found.overall_margin,
        notes=notes,
    )


def _read_points(
    mask: Mask, truth: str, options: TruthOptions
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[object]]:
    """Coordinates in the map's CRS, and the class column."""
    column = truth_column(truth, options)
    try:
        with remote_vectors(truth):
            about, _, encoded, columns = pyogrio.raw.read(truth, layer=options.layer, columns=[column], force_2d=True)
        crs = None if about["crs"] is None else CRS.from_user_input(about["crs"])
        points = shapely.from_wkb(encoded)
    except (DataSourceError, DataLayerError, RasterioError, shapely.errors.GEOSException) as error:
        raise TruthError(f"{redact(truth)}: cannot be read as vectors: {reason(error, truth)}") from error
    truth = redact(truth)
    if column not in [str(name) for name in about["fields"]]:
        raise TruthError(f"{truth}: has no column {column}; choose another with --column")
    if set(np.unique(shapely.get_type_id(points))) - {0}:
        raise TruthError(f"{truth}: has geometries that are no single points; give one point per feature")
    if (crs is None) != (mask.crs is None):
        raise TruthError(f"{truth}: of map and points only one has a CRS; assign the one that is missing")
    xs, ys = shapely.get_x(points), shapely.get_y(points)
    if crs is not None and crs != mask.crs:
        xs, ys = (np.asarray(axis) for axis in transform_points(crs, mask.crs, xs.tolist(), ys.tolist()))
    return xs, ys, columns[0].tolist()


def _true_classes(truth: str, values: list[object], legend: Legend, options: TruthOptions) -> npt.NDArray[np.uint8]:
    places = {c.id: i for i, c in enumerate(legend.classes)}
    meanings: dict[object, int] = {c.id: i for i, c in enumerate(legend.classes)}
    meanings |= {c.name: i for i, c in enumerate(legend.classes)}
    if legend.truth_ids:
        meanings = {value: places[class_id] for value, class_id in legend.truth_ids}
    meanings |= dict.fromkeys((*options.ignore, None), _NONE)
    plain = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    plain = [None if isinstance(v, float) else v for v in plain]
    strange = sorted({str(value) for value in plain if value not in meanings})
    if strange:
        raise TruthError(
            f"{truth}: has values that are no class: {', '.join(strange[:8])}; the classes are "
            f"{', '.join(legend.names)}: name the values with --classes, or leave them out with --ignore"
        )
    return np.array([meanings[value] for value in plain], np.uint8)


def _mapped_ids(mask: Mask, xs: npt.NDArray[np.float64], ys: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """The mask's value under every point; 255 outside."""
    columns, rows = ~mask.transform @ (xs, ys)
    rows, columns = np.floor(rows), np.floor(columns)
    height, width = mask.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    ids = np.full(len(xs), _NONE, np.uint8)
    blocks: dict[tuple[int, int], list[int]] = {}
    for i in np.flatnonzero(inside).tolist():
        blocks.setdefault((int(rows[i]) // _BLOCK_PX, int(columns[i]) // _BLOCK_PX), []).append(i)
    for (down, right), held in sorted(blocks.items()):
        block = Window(down * _BLOCK_PX, right * _BLOCK_PX, _BLOCK_PX, _BLOCK_PX).intersection(mask.extent)
        assert block is not None
        values = mask.read(block)
        ids[held] = values[rows[held].astype(int) - block.top, columns[held].astype(int) - block.left]
    return ids


def _assess(
    truth: str, sample: npt.NDArray[np.int64], mapped: npt.NDArray[np.float64], legend: Legend
) -> AreaAssessment:
    points = sample.sum(axis=1)
    thin = [
        f"{c.name} (maps {share:.2%} of the area, {count} points)"
        for c, share, count in zip(legend.classes, mapped / mapped.sum(), points, strict=True)
        if share > 0 and count < 2
    ]
    if thin:
        raise TruthError(
            f"{truth}: every mapped class needs two points or more; too few in {', '.join(thin)}: add points there, or "
            "join classes with --classes and --others"
        )
    return assess_area(sample, mapped)


def _class_areas(
    found: AreaAssessment, sample: npt.NDArray[np.int64], mapped: npt.NDArray[np.float64], legend: Legend
) -> tuple[ClassArea, ...]:
    columns: Mapping[str, npt.NDArray[np.float64]] = {
        "users": found.users.values,
        "users_margin": found.users.margins,
        "producers": found.producers.values,
        "producers_margin": found.producers.margins,
    }
    return tuple(
        ClassArea(
            id=c.id,
            name=c.name,
            color=c.color,
            points=int(sample[i].sum()),
            mapped_area=float(mapped[i]),
            area=float(found.area.values[i]),
            area_margin=float(found.area.margins[i]),
            **{name: known(column[i]) for name, column in columns.items()},
        )
        for i, c in enumerate(legend.classes)
    )
