"""Score a map against a raster, polygons or points, or a model on the scenes of a catalog."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from glraster.catalog import Catalog, Pair, Split, load_catalog
from glraster.errors import CatalogError, TruthError, UsageError
from glraster.evaluation.compare import (
    Comparison,
    SceneCounts,
    Tolerance,
    WorstTiles,
    evaluation,
    scene_scores,
)
from glraster.evaluation.points import evaluate_points
from glraster.evaluation.truth import Legend, TruthOptions, join_classes, opened_truth, truth_kind
from glraster.labels.scenes import open_labels
from glraster.metrics.protocols import deepglobe_scores, inria_scores
from glraster.metrics.records import Evaluation, PointEvaluation, SceneScores
from glraster.names import redact
from glraster.raster.class_raster import ClassRaster
from glraster.raster.source import OpenRaster, gdal_session, input_files

__all__ = [
    "EvaluateOptions",
    "Tolerance",
    "TruthOptions",
    "evaluate",
    "evaluate_catalog",
]

Protocol = Literal["deepglobe", "inria"]

SceneCallback = Callable[[SceneScores], None]

_UNKNOWN, _BUILDING = "unknown", "building"


@dataclass(frozen=True)
class EvaluateOptions:
    """How to evaluate.

    Attributes:
        truth: what the truth says.
        tolerance: how far outlines may lie apart for the boundary F1.
        protocol: score as this benchmark does, too.
        worst: how many of the worst tiles to report.
        model, split, device, masks: for a catalog only: the model (glraster's own if None), the scenes, the compute
            device, and a folder that keeps the maps and from which they are used again.
    """

    truth: TruthOptions = field(default_factory=TruthOptions)
    tolerance: Tolerance = field(default_factory=lambda: Tolerance(2.0))
    protocol: Protocol | None = None
    worst: int = 12
    model: str | None = None
    split: Split = "val"
    device: str = "auto"
    masks: Path | None = None


def evaluate(
    prediction: str | Path, truth: str | Path, options: EvaluateOptions | None = None
) -> Evaluation | PointEvaluation:
    """Compare a map with its truth.

    Args:
        prediction: a mask of class ids.
        truth: a raster or polygons of the classes, or points, a sample from which areas are estimated.
        options: see `EvaluateOptions`.

    Raises:
        GlrasterError: for all a user can put right.

    Memory depends on the tolerance and the number of classes, not on the size of the map.
    """
    options = options or EvaluateOptions()
    truth_name, truth_path = str(truth), redact(str(truth))
    with gdal_session(), ClassRaster(str(prediction)) as mask:
        if truth_kind(truth_name, options.truth.layer) == "points":
            if options.protocol is not None:
                raise UsageError(f"--protocol {options.protocol} needs a truth of every pixel; {truth_path} has points")
            return evaluate_points(mask, truth_name, options.truth)
        form = replace(options.truth, zero_and_255=options.protocol == "inria")
        with opened_truth(mask, truth_name, form) as (reader, legend):
            _check_protocol(legend, options.protocol)
            worst = WorstTiles(options.worst)
            scene = Comparison(Path(mask.path).stem, mask, reader, legend, options.tolerance).count(0, worst)
        return _finished([scene], legend, worst, (mask.path, truth_path), options)


def evaluate_catalog(
    catalog: str | Path, options: EvaluateOptions | None = None, progress: SceneCallback | None = None
) -> Evaluation:
    """Map every scene of a split of a catalog with a model and compare the maps with the labels.

    Args:
        catalog: a catalog file.
        options: see `EvaluateOptions`; the catalog says what its labels mean, of `truth` only `others` counts.
        progress: called after every scene.

    Raises:
        GlrasterError: for all a user can put right.

    Memory: as `segment`.
    """
    options = options or EvaluateOptions()
    labelled = load_catalog(Path(catalog))
    pairs = labelled.splits[options.split]
    if not pairs:
        raise CatalogError(f"its split {options.split} has no scene; choose another with --split", where=str(catalog))
    worst = WorstTiles(options.worst)
    scenes: list[SceneCounts] = []
    legend = None
    with gdal_session(), _mask_folder(options.masks) as folder:
        for number, pair in enumerate(pairs):
            path = _map(pair, folder / f"{number:04d}_{Path(pair.image).stem}.tif", options)
            with _compared(path, labelled, pair, options) as comparison:
                legend = comparison.legend
                scenes.append(comparison.count(number, worst))
            if progress is not None:
                progress(scene_scores(scenes[-1], legend))
    assert legend is not None
    model = options.model or "the default model"
    return _finished(scenes, legend, worst, (model, f"{catalog}, split {options.split}"), options)


@contextmanager
def _compared(path: Path, catalog: Catalog, pair: Pair, options: EvaluateOptions) -> Iterator[Comparison]:
    """The map of a scene and its label, open for comparison."""
    with (
        ClassRaster(str(path)) as mask,
        OpenRaster(pair.image) as image,
        open_labels(catalog, pair, image) as reader,
    ):
        legend = _catalog_legend(mask, catalog, options)
        _check_protocol(legend, options.protocol)
        origin = (reader.extent.top, reader.extent.left)
        yield Comparison(Path(pair.image).stem, mask, reader, legend, options.tolerance, origin)


def evaluation_inputs(
    prediction: str | Path, truth: str | Path | None, options: EvaluateOptions
) -> Iterator[str | Path]:
    """The files that an evaluation reads, with those that a catalog names: for `files.claim`."""
    yield from input_files(prediction, truth, options.model)
    if str(prediction).lower().endswith((".yaml", ".yml")):
        for pairs in load_catalog(Path(prediction)).splits.values():
            for pair in pairs:
                yield from input_files(pair.image, pair.label)


@contextmanager
def _mask_folder(masks: Path | None) -> Iterator[Path]:
    if masks is None:
        with tempfile.TemporaryDirectory(prefix="glraster-") as folder:
            yield Path(folder)
        return
    masks.mkdir(parents=True, exist_ok=True)
    yield masks


def _map(pair: Pair, path: Path, options: EvaluateOptions) -> Path:
    """The map of a scene, made unless the folder holds it already."""
    from affine import Affine

    from glraster.model.checkpoint import model_id, model_path
    from glraster.raster.georef import raster_bounds
    from glraster.segmentation.segment import SegmentOptions, segment

    if path.exists():
        with ClassRaster(str(path)) as mask:
            maker, model = mask.tags.get("GLRASTER_MODEL"), model_id(model_path(options.model))
        if maker != model:
            raise TruthError(
                f"is by the model {maker}, not {model}", where=str(path), advice="choose another folder for --masks"
            )
        return path
    bounds = None
    if pair.window is not None:
        top, left, height, width = pair.window
        with OpenRaster(pair.image) as image:
            bounds = raster_bounds(image.transform @ Affine.translation(left, top), height, width)
    segment(pair.image, path, options.model, SegmentOptions(bounds=bounds, device=options.device))
    return path


def _catalog_legend(mask: ClassRaster, catalog: Catalog, options: EvaluateOptions) -> Legend:
    legend = join_classes(mask.classes, catalog.classes, options.truth.others, same_ids=True)
    extra = len(legend.classes) - len(catalog.classes)
    return replace(legend, in_mean=(*catalog.in_mean, *(True,) * extra))


def _check_protocol(legend: Legend, protocol: Protocol | None) -> None:
    needed = {"deepglobe": _UNKNOWN, "inria": _BUILDING}.get(protocol or "")
    if needed is not None and needed not in legend.names:
        raise UsageError(f"--protocol {protocol} needs a class {needed!r}; the classes are {', '.join(legend.names)}")
    if protocol == "inria" and len(legend.classes) != 2:
        raise UsageError(
            f"--protocol inria needs two classes, {_BUILDING} and another; the classes are {', '.join(legend.names)}; "
            "--classes and --others join them"
        )


def _finished(
    scenes: list[SceneCounts], legend: Legend, worst: WorstTiles, about: tuple[str, str], options: EvaluateOptions
) -> Evaluation:
    result = evaluation(scenes, legend, worst, about, options.tolerance)
    if result.pixels == 0:
        raise TruthError("no pixel has a class both in the map and in the truth; nothing can be said", where=about[1])
    notes = []
    if result.boundary_tolerance is None:
        notes.append("no boundary F1: a map has no CRS that tells metres; give --tolerance in pixels, as 3px")
    if len(scenes) < 2:
        notes.append("no confidence intervals: they come from drawing scenes, and there is one")
    result = replace(result, notes=tuple(notes))
    if options.protocol == "deepglobe":
        unknown = legend.names.index(_UNKNOWN)
        return replace(result, deepglobe=deepglobe_scores(result.confusion, legend.names, unknown))
    if options.protocol == "inria":
        counts, names = [scene.confusion for scene in scenes], [scene.name for scene in scenes]
        return replace(result, inria=inria_scores(counts, names, legend.names.index(_BUILDING)))
    return result
