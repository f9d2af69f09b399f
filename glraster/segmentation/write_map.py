"""Make the map from scores: the best class of every pixel, block by block, and what else is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import rasterio

from glraster._version import __version__
from glraster.config import NODATA
from glraster.raster.georef import pixel_area_m2
from glraster.raster.grid import FloatArray, Window, WorkingGrid
from glraster.raster.writer import CogWriter, RasterForm
from glraster.segmentation.assemble import best_class, softmax
from glraster.segmentation.job import Job
from glraster.segmentation.journal import Journal

BLOCK = (512, 2048)
"""Height and width of an output block, in scene pixels or, where those are fewer, working pixels."""


@dataclass(frozen=True)
class ClassArea:
    """How much of the map one class covers; `area_m2` is None where the scene's CRS tells no metres."""

    id: int
    name: str
    pixels: int
    area_m2: float | None


@dataclass(frozen=True)
class Progress:
    """How far a run is: `done` of `total` scene pixels in its current `phase`."""

    phase: Literal["windows", "writing"]
    done: int
    total: int


ProgressCallback = Callable[[Progress], None]


class Scores(Protocol):
    """Where scores come from: an `Assembly`, or a `ScoreArray`."""

    def scores(self, block: Window) -> tuple[FloatArray, npt.NDArray[np.bool_]]: ...


@dataclass(frozen=True)
class MapContent:
    """What a map shows: its classes, and pixels without data."""

    classes: tuple[ClassArea, ...]
    nodata_pixels: int


def write_map(job: Job, journal: Journal, source: Scores, report: ProgressCallback) -> MapContent:
    """Assemble the map block by block, write every output, and move all to their places at the end.

    `report` is called after every block, and before anything is moved; what it raises ends the writing.

    Memory: a block of scores.
    """
    region, scene = job.plan.region, job.scene
    ids = np.array([c.id for c in job.spec.classes], np.uint8)
    pixels, area, areas_known = np.zeros(256, np.int64), np.zeros(256), True
    done = 0
    with ExitStack() as stack:
        writers = [(stack.enter_context(CogWriter(*output)), values) for output, values in _outputs(job)]
        for block in region.blocks(*_block_sides(scene.grid)):
            valid = np.ones((block.height, block.width), bool) if scene.all_valid else scene.read_valid(block)
            scores, covered = source.scores(block)
            valid &= covered
            target = Window(block.top - region.top, block.left - region.left, block.height, block.width)
            labels = np.where(valid, ids[best_class(scores)], np.uint8(NODATA))
            for writer, values in writers:
                writer.write(target, labels if values is None else _percent(values(softmax(scores)), valid))
            counted = np.bincount(labels.ravel(), minlength=256)
            pixels += counted
            centre = (block.top + block.height / 2, block.left + block.width / 2)
            pixel_m2 = pixel_area_m2(scene.crs, scene.transform, *centre)
            areas_known &= pixel_m2 is not None
            area += counted * (pixel_m2 or 0.0)
            done += block.size
            report(Progress("writing", done, region.size))
        for writer, _ in writers:
            writer.finish()
        report(Progress("writing", done, region.size))
        journal.publishing(writer.path for writer, _ in writers)
        for writer, _ in reversed(writers):
            writer.publish()
    found = tuple(
        ClassArea(c.id, c.name, int(pixels[c.id]), float(area[c.id]) if areas_known else None) for c in job.spec.classes
    )
    return MapContent(found, int(pixels[NODATA]))


def _block_sides(grid: WorkingGrid) -> tuple[int, int]:
    """A scene coarser than the working grid has many cells in a pixel: blocks shrink so that memory does not grow."""
    rows, columns = (
        max(1, int(side * min(1.0, axis.scale))) for side, axis in zip(BLOCK, (grid.rows, grid.columns), strict=True)
    )
    return rows, columns


_Values = Callable[[FloatArray], FloatArray] | None


def _outputs(job: Job) -> Iterator[tuple[tuple[Path, RasterForm, tuple[tuple[str, str], ...]], _Values]]:
    """Path, form and creation options of every output, and how its values follow from the probabilities."""
    region, scene, spec, options = job.plan.region, job.scene, job.spec, job.options
    shared: dict[str, Any] = {
        "height": region.height,
        "width": region.width,
        "crs": scene.crs,
        "transform": scene.transform @ rasterio.Affine.translation(region.left, region.top),
        "tags": {
            "GLRASTER_MODEL": job.model,
            "GLRASTER_VERSION": __version__,
            "TIFFTAG_SOFTWARE": f"glraster {__version__}",
        },
    }
    mask = RasterForm(classes=spec.classes, band_names=("land cover",), overviews="MODE", **shared)
    yield (job.output, mask, options.creation_options), None
    if options.confidence is not None:
        form = RasterForm(band_names=("confidence in per cent",), overviews="AVERAGE", **shared)
        yield (options.confidence, form, options.creation_options), lambda p: p.max(axis=0)
    if options.probabilities is not None:
        names = tuple(f"{c.name} in per cent" for c in spec.classes)
        form = RasterForm(band_names=names, overviews="AVERAGE", **shared)
        yield (options.probabilities, form, options.creation_options), lambda p: p


def _percent(probability: FloatArray, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    return np.where(valid, np.rint(probability * 100).astype(np.uint8), np.uint8(NODATA))
