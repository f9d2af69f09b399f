"""Write a page that shows a map, with its evaluation and its provenance, or a training."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from glraster.config import LandClass
from glraster.errors import UsageError
from glraster.evaluation.evaluate import EvaluateOptions, Tolerance, evaluate
from glraster.evaluation.truth import TruthOptions, opened_truth, own_classes
from glraster.files import claim, write_file
from glraster.metrics.records import Evaluation, PointEvaluation
from glraster.names import redact
from glraster.raster.class_raster import ClassRaster
from glraster.raster.georef import gsd_m
from glraster.raster.grid import Window
from glraster.raster.source import gdal_session, input_files
from glraster.reporting.page import render
from glraster.reporting.pictures import Picture, class_picture, confidence_picture, distinct, error_picture, photo
from glraster.reporting.provenance import map_provenance
from glraster.reporting.records import AreaRow, Confidence, MapLayer, MapView, Page, TilePictures
from glraster.reporting.scene_pictures import (
    SceneView,
    UInt8Array,
    confidence_counts,
    confidence_overview,
    opened_confidence,
    sampled,
)
from glraster.reporting.spots import shrink, spots
from glraster.reporting.training_page import training_page

__all__ = ["ReportOptions", "Tolerance", "TruthOptions", "check_report", "write_report"]

_SIDE_PX, _TILE_SIDE_PX = 1800, 256
_TILES = 6


@dataclass(frozen=True)
class ReportOptions:
    """What goes into a report.

    Attributes:
        scene: the scene of the map.
        confidence: the raster that `segment --confidence` wrote with the map.
        truth: a raster, polygons or points. `meaning` assigns classes to its values; `tolerance` is the distance at
            which outlines count as met.
        model: the model of the map, for its provenance.
        command: the command line, for the provenance.
        overwrite: replace an existing file.
    """

    scene: str | None = None
    confidence: str | Path | None = None
    truth: str | None = None
    meaning: TruthOptions = field(default_factory=TruthOptions)
    tolerance: Tolerance = field(default_factory=lambda: Tolerance(2.0))
    model: str | None = None
    command: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class ReportResult:
    """The page that was written."""

    output: str
    bytes: int


def write_report(
    subject: str | os.PathLike[str], output: str | os.PathLike[str], options: ReportOptions | None = None
) -> ReportResult:
    """Write one HTML file that shows a map or a training and needs no other file and no network.

    Args:
        subject: a mask, or the folder of a training.
        output: the file to write.
        options: see `ReportOptions`.

    Raises:
        GlrasterError: a file or an option is wrong; the message says what to do.

    Memory does not depend on the size of the map: pictures are shrunk while they are read.
    """
    settings, target = options or ReportOptions(), Path(output)
    check_report(target, subject, settings)
    with gdal_session():
        if Path(subject).is_dir():
            _refuse_map_options(settings)
            page = training_page(Path(subject), settings.command)
        else:
            page = _map_page(os.fspath(subject), settings)
    html = render(page).encode("utf-8", "replace")  # names can hold lone surrogates
    write_file(target, html)
    return ReportResult(str(target), len(html))


def _refuse_map_options(options: ReportOptions) -> None:
    """A training has no scene and no truth of its own."""
    for name in ("scene", "truth", "confidence"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} is for a map; the report of a training takes none")


def check_report(target: Path, subject: str | os.PathLike[str], options: ReportOptions) -> None:
    """Refuse an output that cannot be written, before the work for it is done.

    Raises:
        OutputError, UsageError: with what to do.
    """
    inputs = input_files(subject, options.scene, options.truth, options.confidence, options.model)
    training = (path for path in Path(subject).rglob("*") if path.suffix != ".html") if Path(subject).is_dir() else ()
    claim(target, inputs=chain(inputs, training), overwrite=options.overwrite)


def _map_page(path: str, options: ReportOptions) -> Page:
    with ExitStack() as stack:
        mask = stack.enter_context(ClassRaster(path))
        scene = stack.enter_context(SceneView(options.scene, mask)) if options.scene else None
        evaluation = _evaluation(path, options)
        view, confidence = _view(mask, scene, evaluation, options)
        pixels, area = mask.areas()
        rows = [AreaRow(c, int(pixels[c.id]), None if area is None else float(area[c.id])) for c in mask.classes]
        worst = _worst_pictures(mask, scene, evaluation, options) if isinstance(evaluation, Evaluation) else ()
        return Page(
            title=Path(mask.path).name,
            subtitle=_subtitle(mask, options),
            view=view,
            areas=tuple(rows),
            confidence=confidence,
            evaluation=evaluation,
            worst=worst,
            provenance=map_provenance(mask, options.model, _sources(path, options), options.command),
        )


def _evaluation(path: str, options: ReportOptions) -> Evaluation | PointEvaluation | None:
    if options.truth is None:
        return None
    return evaluate(path, options.truth, EvaluateOptions(options.meaning, options.tolerance, worst=_TILES))


def _subtitle(mask: ClassRaster, options: ReportOptions) -> str:
    height, width = mask.shape
    facts = [f"{width} × {height} pixels"]
    size = gsd_m(mask.crs, mask.transform, height, width)
    if size is not None:
        facts.append(f"{sum(size) / 2:.2g} m on the ground each")
    facts.append(_crs_name(mask) or "no CRS: pixel coordinates")
    if options.scene:
        facts.append(f"scene {Path(redact(options.scene)).name}")
    return ", ".join(facts)


def _crs_name(mask: ClassRaster) -> str | None:
    if mask.crs is None:
        return None
    code = mask.crs.to_epsg()
    return f"EPSG:{code}" if code else "local CRS"


def _sources(path: str, options: ReportOptions) -> dict[str, str]:
    files = {"Map": path, "Scene": options.scene, "Truth": options.truth, "Confidence": options.confidence}
    return {name: redact(str(file)) for name, file in files.items() if file is not None}


def _view(
    mask: ClassRaster, scene: SceneView | None, evaluation: Evaluation | PointEvaluation | None, options: ReportOptions
) -> tuple[MapView, Confidence | None]:
    """Layers from the bottom up, and the classes of the map followed by those that only a truth has."""
    layers, confidence = [], None
    legend = own_classes(mask.classes)
    classes = mask.classes
    if isinstance(evaluation, Evaluation):
        mapped = {c.name for c in classes}
        classes += tuple(LandClass(c.id, c.name, c.color) for c in evaluation.classes if c.name not in mapped)
    colors = distinct([c.color for c in classes])
    if scene is not None:
        layers.append(MapLayer("scene", "Scene", photo(scene.picture(mask.extent, _SIDE_PX))))
    overview = legend.table[mask.overview(_SIDE_PX)]
    layers.append(MapLayer("map", "Map", class_picture(overview, colors)))
    if isinstance(evaluation, Evaluation):
        truth, errors = _truth_layers(mask, classes, options)
        layers += [MapLayer("truth", "Truth", truth), MapLayer("errors", "Differences", errors)]
    if options.confidence is not None:
        picture, confidence = _confidence(mask, str(options.confidence))
        layers.append(MapLayer("confidence", "Confidence", picture))
    size = gsd_m(mask.crs, mask.transform, *mask.shape)
    view = MapView(
        layers=tuple(layers),
        classes=classes,
        height=mask.shape[0],
        width=mask.shape[1],
        crs=_crs_name(mask),
        transform=tuple(mask.transform)[:6],
        metres_per_px=None if size is None else sum(size) / 2,
        spots=spots(shrink(overview), len(mask.classes)),
    )
    return view, confidence


def _truth_layers(mask: ClassRaster, classes: tuple[LandClass, ...], options: ReportOptions) -> tuple[Picture, Picture]:
    """A picture of the truth in the colours of the classes, and one of the differences between map and truth."""
    assert options.truth is not None
    with opened_truth(mask, options.truth, options.meaning) as (reader, legend):
        truth = sampled(reader.read, mask.extent, _SIDE_PX)
    prediction = legend.table[sampled(mask.read, mask.extent, _SIDE_PX)]
    to_page = _page_indexes(legend.names, classes)
    return (
        class_picture(to_page[truth], distinct([c.color for c in classes])),
        error_picture(truth, prediction, len(legend.classes)),
    )


def _page_indexes(names: tuple[str, ...], classes: tuple[LandClass, ...]) -> UInt8Array:
    """A table (256,) from class indexes of a comparison to those of the page; 255 for none."""
    table = np.full(256, 255, np.uint8)
    places = {c.name: i for i, c in enumerate(classes)}
    table[: len(names)] = [places[name] for name in names]
    return table


def _confidence(mask: ClassRaster, path: str) -> tuple[Picture, Confidence]:
    with opened_confidence(path, mask) as raster:
        counts = confidence_counts(raster, mask)
        picture = confidence_picture(confidence_overview(raster, _SIDE_PX))
    totals, sums = counts.sum(axis=1), counts @ np.arange(101)
    means = tuple(float(sums[c.id] / totals[c.id]) if totals[c.id] else None for c in mask.classes)
    return picture, Confidence(tuple(counts.sum(axis=0).tolist()), means)


def _worst_pictures(
    mask: ClassRaster, scene: SceneView | None, evaluation: Evaluation, options: ReportOptions
) -> tuple[TilePictures, ...]:
    assert options.truth is not None
    with opened_truth(mask, options.truth, options.meaning) as (reader, legend):
        colors = distinct([c.color for c in legend.classes])
        pictures = []
        for tile in evaluation.worst:
            window = Window(tile.top, tile.left, tile.height, tile.width)
            every_nth = slice(None, None, max(1, -(-max(window.height, window.width) // _TILE_SIDE_PX)))
            prediction = legend.table[mask.read(window)]
            pictures.append(
                TilePictures(
                    score=tile,
                    scene=photo(scene.picture(window, _TILE_SIDE_PX)) if scene else None,
                    truth=class_picture(reader.read(window)[every_nth, every_nth], colors),
                    prediction=class_picture(prediction[every_nth, every_nth], colors),
                )
            )
    return tuple(pictures)
