"""Say how good a map is: against a raster, polygons or points, or a model on the scenes of a catalog."""

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
from glraster.evaluation.truth import Legend, TruthOptions, as_truth_error, join_classes, opened_truth, truth_kind
from glraster.labels.reader import LabelReader
from glraster.metrics.protocols import deepglobe_scores, inria_scores
from glraster.metrics.records import Evaluation, PointEvaluation, SceneScores
from glraster.names import redact
from glraster.raster.mask import Mask
from glraster.raster.source import gdal_session

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
        protocol: also score as this benchmark does.
        worst: how many of the worst tiles to keep.
        model, split, device, masks: of a catalog only: the model (glraster's own where None), the scenes, the compute
            device, and a folder where maps are kept and found again.
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
    """Hold a map against its truth.

    Args:
        prediction: a mask of class ids.
        truth: a raster or polygons of the classes, or points, a sample from which areas are estimated.
        options: see `EvaluateOptions`.

    Raises:
        GlrasterError: for all a user can put right.

    Memory depends on the tolerance and the number of classes, not on the size of the map.
    """
    chosen = options or EvaluateOptions()
    truth_name, told = str(truth), redact(str(truth))
    with gdal_session(), Mask(str(prediction)) as mask:
        if truth_kind(truth_name, chosen.truth.layer) == "points":
            if chosen.protocol is not None:
                raise UsageError(f"--protocol {chosen.protocol} needs a truth of every pixel; {told} has points")
            return evaluate_points(mask, truth_name, chosen.truth)
        form = replace(chosen.truth, zero_and_255=chosen.protocol == "inria")
        try:
            with opened_truth(mask, truth_name, form) as (reader, legend):
                _check_protocol(legend, chosen.protocol)
                worst = WorstTiles(chosen.worst)
                scene = Comparison(Path(mask.path).stem, mask, reader, legend, chosen.tolerance).count(0, worst)
        except CatalogError as error:
            raise as_truth_error(error, truth_name) from error
        return _finished([scene], legend, worst, (mask.path, told), chosen)


def evaluate_catalog(
    catalog: str | Path, options: EvaluateOptions | None = None, progress: SceneCallback | None = None
) -> Evaluation:
    """Map every scene of a split of a catalog with a model and hold the maps against the labels.

    Args:
        catalog: a catalog file.
        options: see `EvaluateOptions`; the catalog says what its labels mean, of `truth` only `others` counts.
        progress: called after every scene.

    Raises:
        GlrasterError: for all a user can put right.

    Memory: as `segment`.
    """
    chosen = options or EvaluateOptions()
    labelled = load_catalog(Path(catalog))
    pairs = labelled.splits[chosen.split]
    if not pairs:
        raise CatalogError(f"its split {chosen.split} has no scene; choose another with --split", source=str(catalog))
    worst, found, legend = WorstTiles(chosen.worst), [], None
    with gdal_session(), _mask_folder(chosen.masks) as folder:
        for number, pair in enumerate(pairs):
            path = _map(pair, folder / f"{number:04d}_{Path(pair.image).stem}.tif", chosen)
            with Mask(str(path)) as mask, LabelReader(pair, labelled) as reader:
                legend = _catalog_legend(mask, labelled, chosen)
                _check_protocol(legend, chosen.protocol)
                origin = (reader.extent.top, reader.extent.left)
                comparison = Comparison(Path(pair.image).stem, mask, reader, legend, chosen.tolerance, origin)
                found.append(comparison.count(number, worst))
            if progress is not None:
                progress(scene_scores(found[-1], legend))
    assert legend is not None
    model = chosen.model or "the default model"
    return _finished(found, legend, worst, (model, f"{catalog}, split {chosen.split}"), chosen)


@contextmanager
def _mask_folder(kept: Path | None) -> Iterator[Path]:
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="glraster-") as folder:
            yield Path(folder)
        return
    kept.mkdir(parents=True, exist_ok=True)
    yield kept


def _map(pair: Pair, path: Path, options: EvaluateOptions) -> Path:
    """The map of a scene; one that a model made before is not made again."""
    from affine import Affine

    from glraster.model.checkpoint import model_id
    from glraster.model.default import model_path
    from glraster.raster.georef import raster_bounds
    from glraster.raster.source import OpenRaster
    from glraster.segmentation.segment import SegmentOptions, segment

    if path.exists():
        with Mask(str(path)) as mask:
            made_by, wanted = mask.tags.get("GLRASTER_MODEL"), model_id(model_path(options.model))
        if made_by != wanted:
            raise TruthError(f"{path}: is by the model {made_by}, not {wanted}; choose another folder for --masks")
        return path
    bounds = None
    if pair.window is not None:
        top, left, height, width = pair.window
        with OpenRaster(pair.image) as image:
            bounds = raster_bounds(image.transform @ Affine.translation(left, top), height, width)
    segment(pair.image, path, options.model, SegmentOptions(bounds=bounds, device=options.device))
    return path


def _catalog_legend(mask: Mask, catalog: Catalog, options: EvaluateOptions) -> Legend:
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
    found = evaluation(scenes, legend, worst, about, options.tolerance)
    if found.pixels == 0:
        raise TruthError(f"{about[1]}: no pixel has a class both in the map and in the truth; nothing can be said")
    notes = []
    if found.boundary_tolerance is None:
        notes.append("no boundary F1: a map has no CRS that tells metres; give --tolerance in pixels, as 3px")
    if len(scenes) < 2:
        notes.append("no confidence intervals: they come from drawing scenes, and there is one")
    found = replace(found, notes=tuple(notes))
    if options.protocol == "deepglobe":
        unknown = legend.names.index(_UNKNOWN)
        return replace(found, deepglobe=deepglobe_scores(found.confusion, legend.names, unknown))
    if options.protocol == "inria":
        counts, names = [scene.confusion for scene in scenes], [scene.name for scene in scenes]
        return replace(found, inria=inria_scores(counts, names, legend.names.index(_BUILDING)))
    return found
