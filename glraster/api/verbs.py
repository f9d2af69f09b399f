"""The verbs of glraster as Python functions, whose options are keywords."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any, overload

from glraster.api.arguments import PathLike, RasterLike, as_options, raster_path, take_options
from glraster.api.land_cover import LandCover
from glraster.api.notebook import shown_progress
from glraster.api.wording import speaks_python

if TYPE_CHECKING:
    import geopandas as gpd

    from glraster.cluster.client import Cluster
    from glraster.metrics.records import Evaluation, PointEvaluation
    from glraster.reporting.report import ReportResult
    from glraster.segmentation.in_memory import Model
    from glraster.segmentation.segment import SegmentResult
    from glraster.segmentation.write_map import Progress
    from glraster.training.train import TrainCallback, TrainResult
    from glraster.vector.vectorize import VectorizeResult


@overload
def segment(
    scene: RasterLike,
    output: PathLike,
    *,
    model: PathLike | Model | None = None,
    cluster: Cluster | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> SegmentResult: ...
@overload
def segment(
    scene: RasterLike,
    output: None = None,
    *,
    model: PathLike | Model | None = None,
    cluster: Cluster | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> LandCover: ...
@speaks_python
def segment(
    scene: RasterLike,
    output: PathLike | None = None,
    *,
    model: PathLike | Model | None = None,
    cluster: Cluster | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> SegmentResult | LandCover:
    """Map the land cover of a scene.

    Args:
        scene: a path or URL of anything GDAL opens, an open rasterio dataset, or (array, transform, crs) with an array
            (bands, H, W) or (H, W).
        output: the mask to write, a Cloud-Optimized GeoTIFF of class ids, nodata 255, on the scene's grid.
        model: a model file, or what `load_model` returns; glraster's own if None.
        cluster: workers that compute the windows, from `connect`.
        progress: called after every window and block. In a notebook a bar is shown without it.
        options: the fields of `SegmentOptions`, such as tta=True, gsd=0.5, bounds=(left, bottom, right, top).

    Returns:
        What the run did and cost, if an output is named; else the map itself, with its confidence.

    Raises:
        GlrasterError: for all a user can put right.

    Memory depends on the context window, the tile and the network; without an output also on the map's size.
    """
    from glraster.segmentation.segment import SegmentOptions
    from glraster.segmentation.segment import segment as segment_file

    file = model if model is None or isinstance(model, str | os.PathLike) else model.path
    with raster_path(scene) as path, shown_progress(progress, "segment") as report:
        if output is not None:
            return segment_file(path, output, file, as_options(SegmentOptions, "segment", options), report, cluster)
        return _segment_in_memory(path, file, options, report, cluster)


def _segment_in_memory(
    scene: str,
    model: PathLike | None,
    options: dict[str, Any],
    progress: Callable[[Progress], None] | None,
    cluster: Cluster | None,
) -> LandCover:
    from glraster.segmentation.segment import SegmentOptions
    from glraster.segmentation.segment import segment as segment_file

    folder = Path(mkdtemp(prefix="glraster-"))
    try:
        mask = folder / "land_cover.tif"
        with_confidence = {"confidence": folder / "confidence.tif", **options}
        settings = as_options(SegmentOptions, "segment", with_confidence)
        segment_file(scene, mask, model, settings, progress, cluster)
        return LandCover.read(mask, settings.confidence).owning(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@speaks_python
def vectorize(
    mask: RasterLike | LandCover,
    output: PathLike,
    *,
    cluster: Cluster | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> VectorizeResult:
    """Write the polygons of a class mask to a file: .gpkg, .parquet, .fgb, .geojson or .geojsonl.

    Args:
        mask: a class mask as `segment` takes a scene, or a `LandCover`.
        output: the file to write.
        cluster: workers that trace, from `connect`.
        progress: called with the rows done and all rows.
        options: the fields of `VectorizeOptions`, such as simplify_m=1.0, min_area_m2=20.0.

    Raises:
        GlrasterError: for all a user can put right.

    Memory depends on a band of rows and the largest open polygon.
    """
    from glraster.vector.vectorize import VectorizeOptions
    from glraster.vector.vectorize import vectorize as vectorize_file

    settings = as_options(VectorizeOptions, "vectorize", options)
    with raster_path(mask) as path:
        return vectorize_file(path, output, settings, progress, cluster)


@speaks_python
def polygonize(mask: RasterLike | LandCover, **options: Any) -> gpd.GeoDataFrame:
    """Return the polygons of a class mask, with class ids and names, areas and perimeters.

    Args:
        mask: a class mask as `segment` takes a scene, or a `LandCover`.
        options: the fields of `VectorizeOptions`, such as simplify_m=1.0, min_area_m2=20.0.

    Raises:
        GlrasterError: for all a user can put right.

    Memory grows with the number of polygons; `vectorize` writes them to a file in bounded memory.
    """
    import geopandas as gpd

    with TemporaryDirectory(prefix="glraster-") as folder:
        file = Path(folder) / "polygons.parquet"
        vectorize(mask, file, **options)
        return gpd.read_parquet(file)


@speaks_python
def load_model(model: PathLike = "default", *, device: str = "auto") -> Model:
    """Load a model, whose `predict` maps arrays.

    Args:
        model: a model file, or "default" for glraster's own.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        ModelError: if the file is damaged or no model. DeviceError: if the device is absent.
    """
    from glraster.segmentation.in_memory import Model

    return Model.load(None if model == "default" else model, device)


@speaks_python
def train(
    catalogs: PathLike | Sequence[PathLike], output: PathLike, *, progress: TrainCallback | None = None, **options: Any
) -> TrainResult:
    """Train a model on one or several catalogs of labelled scenes.

    Args:
        catalogs: a catalog file, or several, whose classes are united by name.
        output: the run's folder; `model.safetensors` in it is for `segment`.
        progress: called with the record of every step and validation.
        options: the fields of `TrainOptions`, such as recipe="fast", settings=("steps=2000",), resume=True.

    Raises:
        GlrasterError: for all a user can put right, before the first step if possible.
    """
    from glraster.training.train import TrainOptions
    from glraster.training.train import train as train_catalogs

    return train_catalogs(catalogs, Path(output), as_options(TrainOptions, "train", options), progress)


@speaks_python
def evaluate(
    prediction: RasterLike | LandCover, truth: PathLike | None = None, **options: Any
) -> Evaluation | PointEvaluation:
    """Say how good a map is; or, if `prediction` is a catalog, how good a model is on its scenes.

    Args:
        prediction: a class mask as `segment` takes a scene, a `LandCover`, or a catalog file (.yaml).
        truth: a raster or polygons of the classes, or points, a sample from which areas are estimated.
        options: the fields of `EvaluateOptions` and `TruthOptions`, such as others="land", protocol="inria";
            `tolerance` is (2.0, "m") or (3.0, "px").

    Raises:
        GlrasterError: for all a user can put right.
    """
    from glraster.errors import UsageError
    from glraster.evaluation.evaluate import EvaluateOptions, Tolerance, TruthOptions, evaluate_catalog
    from glraster.evaluation.evaluate import evaluate as evaluate_map

    if "tolerance" in options:
        options["tolerance"] = Tolerance(*options["tolerance"])
    options["truth"] = take_options(TruthOptions, options)
    settings = as_options(EvaluateOptions, "evaluate", options)
    if isinstance(prediction, str | os.PathLike) and str(prediction).lower().endswith((".yaml", ".yml")):
        if truth is not None:
            raise UsageError("a catalog names its own labels; leave `truth` out")
        return evaluate_catalog(str(prediction), settings)
    if truth is None:
        raise UsageError("give `truth`: a raster, polygons or points to compare the map with")
    with raster_path(prediction) as path:
        return evaluate_map(path, str(truth), settings)


@speaks_python
def report(subject: PathLike | LandCover, output: PathLike, **options: Any) -> ReportResult:
    """Write one HTML page that shows a map or a training.

    Args:
        subject: a class mask, a `LandCover`, or the folder of a training.
        output: the page.
        options: the fields of `ReportOptions` and `TruthOptions`, such as scene="scene.tif", truth="truth.tif".

    Raises:
        GlrasterError: for all a user can put right.
    """
    from glraster.evaluation.evaluate import Tolerance, TruthOptions
    from glraster.reporting.report import ReportOptions, write_report

    if "tolerance" in options:
        options["tolerance"] = Tolerance(*options["tolerance"])
    options["meaning"] = take_options(TruthOptions, options)
    if isinstance(subject, LandCover):
        options.setdefault("confidence", subject.confidence_path)
    settings = as_options(ReportOptions, "report", options)
    with raster_path(subject) as path:
        return write_report(path, output, settings)


@speaks_python
def preview(mask: RasterLike | LandCover, output: PathLike, **options: Any) -> Path:
    """Draw a map with its legend as a PNG.

    Args:
        mask: a class mask as `segment` takes a scene, or a `LandCover`.
        output: the picture.
        options: the fields of `PreviewOptions`: size=1200, title=None, overwrite=False.

    Raises:
        GlrasterError: for all a user can put right.
    """
    from glraster.reporting.preview import PreviewOptions
    from glraster.reporting.preview import preview as draw_preview

    with raster_path(mask) as path:
        return draw_preview(path, Path(output), as_options(PreviewOptions, "preview", options))


@contextmanager
def connect(scheduler: str | None = None, *, workers: int | None = None) -> Iterator[Cluster]:
    """Connect to the workers of a Dask scheduler, or start some on this machine.

    Use as a context manager; pass what it yields as `cluster` to `segment` and `vectorize`.

    Args:
        scheduler: its address, tcp://HOST:8786.
        workers: processes to start on this machine instead.

    Raises:
        ClusterError: if the scheduler does not answer, or the processes do not start.
    """
    from glraster.segmentation.distributed import connect as connect_with_gpus

    with connect_with_gpus(scheduler, workers) as cluster:
        yield cluster
