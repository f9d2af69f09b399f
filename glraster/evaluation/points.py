"""Estimate class areas and accuracies of a map from points with a known class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import geopandas
import numpy as np
import numpy.typing as npt
import shapely
from pyogrio.errors import DataLayerError, DataSourceError

from glraster.catalog import IGNORE
from glraster.errors import TruthError
from glraster.evaluation.truth import Legend, TruthOptions, truth_column, truth_labels, truth_layer, truth_legend
from glraster.labels.spec import LabelSpec
from glraster.metrics.area import AreaAssessment, assess_area
from glraster.metrics.records import ClassEstimate, PointEvaluation, known
from glraster.names import redact
from glraster.raster.class_raster import ClassRaster
from glraster.raster.grid import Window
from glraster.raster.remote import remote_vectors
from glraster.raster.source import reason

_BLOCK_PX = 512


def evaluate_points(mask: ClassRaster, truth: str, options: TruthOptions) -> PointEvaluation:
    """Compare a map with a sample of points, drawn at random within every mapped class or anywhere.

    Source: see `glraster.metrics.area`.

    Args:
        mask: an open map.
        truth: points with a class column.
        options: see `TruthOptions`.

    Raises:
        TruthError: if points cannot be read, have values that are no class, or are too few in a mapped class.

    Memory: the points, and a block of the map.
    """
    legend = truth_legend(mask, options)
    xs, ys, values = _read_points(mask, truth, options)
    truth = redact(truth)
    true = _true_classes(truth, values, truth_labels(legend, "vector", options))
    predicted = legend.table[_mapped_ids(mask, xs, ys)]
    used = (true != IGNORE) & (predicted != IGNORE)
    classes = len(legend.classes)
    sample = np.zeros((classes, classes), np.int64)
    np.add.at(sample, (predicted[used], true[used]), 1)
    mapped, unit = _mapped_areas(mask, legend)
    assessment = _assess(truth, sample, mapped, legend)
    notes = () if unit == "m2" else ("areas are in pixels: the map has no CRS that tells metres",)
    return PointEvaluation(
        prediction=mask.path,
        truth=truth,
        classes=_class_estimates(assessment, sample, mapped, legend),
        confusion=sample.T.copy(),
        proportions=assessment.proportions.T.copy(),
        unit=unit,
        points=int(used.sum()),
        points_left_out=int(len(used) - used.sum()),
        accuracy=assessment.overall,
        accuracy_margin=assessment.overall_margin,
        notes=notes,
    )


def _read_points(
    mask: ClassRaster, truth: str, options: TruthOptions
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[object]]:
    """Coordinates in the map's CRS, and the class column."""
    column = truth_column(truth, options)
    try:
        with remote_vectors(truth):
            points = geopandas.read_file(
                truth, layer=truth_layer(truth, options.layer), columns=[column], engine="pyogrio", force_2d=True
            )
    except (DataSourceError, DataLayerError, shapely.errors.GEOSException) as error:
        raise TruthError(f"cannot be read as vectors: {reason(error, truth)}", where=redact(truth)) from error
    truth = redact(truth)
    if column not in points.columns:
        raise TruthError(f"has no column {column}", where=truth, advice="choose another with --column")
    if not (points.geom_type == "Point").all():
        raise TruthError("has geometries that are no single points", where=truth, advice="give one point per feature")
    if (points.crs is None) != (mask.crs is None):
        raise TruthError("of map and points only one has a CRS", where=truth, advice="assign the one that is missing")
    if mask.crs is not None:
        points = points.to_crs(mask.crs.to_wkt())
    return points.geometry.x.to_numpy(), points.geometry.y.to_numpy(), points[column].tolist()


def _true_classes(truth: str, values: list[object], spec: LabelSpec) -> npt.NDArray[np.uint8]:
    """The class index of every value of the class column; `IGNORE` for values to be ignored and for none."""
    whole = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    known = [None if isinstance(v, float) else v for v in whole]  # NaN too: the column has no value there
    meanings: dict[object, int] = {None: IGNORE}
    meanings.update(spec.meanings.items())
    unknown = sorted({str(value) for value in known if value not in meanings})
    if unknown:
        raise TruthError(
            f"has values that are no class: {', '.join(unknown[:8])}", where=truth, advice=spec.wording.values
        )
    return np.array([meanings[value] for value in known], np.uint8)


def _mapped_ids(mask: ClassRaster, xs: npt.NDArray[np.float64], ys: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """The mask's value under every point; 255 outside."""
    columns, rows = ~mask.transform @ (xs, ys)
    rows, columns = np.floor(rows), np.floor(columns)
    height, width = mask.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    ids = np.full(len(xs), IGNORE, np.uint8)
    blocks: dict[tuple[int, int], list[int]] = {}
    for i in np.flatnonzero(inside).tolist():
        blocks.setdefault((int(rows[i]) // _BLOCK_PX, int(columns[i]) // _BLOCK_PX), []).append(i)
    for (down, right), points in sorted(blocks.items()):
        block = Window(down * _BLOCK_PX, right * _BLOCK_PX, _BLOCK_PX, _BLOCK_PX).intersection(mask.extent)
        assert block is not None
        values = mask.read(block)
        ids[points] = values[rows[points].astype(int) - block.top, columns[points].astype(int) - block.left]
    return ids


def _mapped_areas(mask: ClassRaster, legend: Legend) -> tuple[npt.NDArray[np.float64], Literal["m2", "px"]]:
    """The area of every class in the map, and its unit."""
    pixels, area = mask.areas()
    mapped = np.zeros(len(legend.classes))
    has_class = legend.table != IGNORE
    np.add.at(mapped, legend.table[has_class], (pixels if area is None else area)[has_class].astype(np.float64))
    return mapped, "px" if area is None else "m2"


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
            f"every mapped class needs two points or more; too few in {', '.join(thin)}",
            where=truth,
            advice="add points there, or join classes with --classes and --others",
        )
    return assess_area(sample, mapped)


def _class_estimates(
    assessment: AreaAssessment, sample: npt.NDArray[np.int64], mapped: npt.NDArray[np.float64], legend: Legend
) -> tuple[ClassEstimate, ...]:
    columns: Mapping[str, npt.NDArray[np.float64]] = {
        "users": assessment.users.values,
        "users_margin": assessment.users.margins,
        "producers": assessment.producers.values,
        "producers_margin": assessment.producers.margins,
    }
    return tuple(
        ClassEstimate(
            id=c.id,
            name=c.name,
            color=c.color,
            points=int(sample[i].sum()),
            mapped_area=float(mapped[i]),
            area=float(assessment.area.values[i]),
            area_margin=float(assessment.area.margins[i]),
            **{name: known(column[i]) for name, column in columns.items()},
        )
        for i, c in enumerate(legend.classes)
    )
