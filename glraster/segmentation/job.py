"""Check a call of `segment` before anything is computed: options in, a job with an open scene out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
import torch

from glraster._version import __version__
from glraster.config import Branch, ModelSpec
from glraster.errors import UsageError
from glraster.files import claim
from glraster.model.checkpoint import load, model_id, read_spec
from glraster.model.fold import FOLD_VERSION, FoldedGLNet
from glraster.raster.georef import bounds_window
from glraster.raster.grid import ONE_CONTEXT, STRIDE, WindowGrid, context_axis, round_up, usual_overlap
from glraster.raster.reader import Scene, Stretch
from glraster.raster.writer import check_creation_options
from glraster.segmentation.device import (
    Precision,
    choose_batch,
    choose_device,
    choose_precision,
    describe_device,
)
from glraster.segmentation.journal import published
from glraster.segmentation.parts import check_place, parts_store
from glraster.segmentation.plan import WindowPlan
from glraster.segmentation.predict import Predictor, TileForm

log = logging.getLogger(__name__)

Merge = Literal["smooth", "paper"]


@dataclass(frozen=True)
class SegmentOptions:
    """How to segment; every default is the model's own or what suits most scenes.

    Attributes:
        indexes: 1-based bands of the scene; the first colour bands otherwise.
        bounds: (left, bottom, right, top) in the scene's CRS; the whole scene otherwise.
        nodata: value of invalid pixels, instead of the scene's own mask.
        gsd: metres per pixel to read the scene at, or "native"; the model's otherwise.
        value_range: scene values that become the lowest and highest the model knows; taken from the scene if its
            dtype is not the model's.
        context_px, tile_px: extent the global branch sees, side of a local tile.
        overlap_px: least overlap of tiles; 64, or a quarter of a tile if that is less.
        branch: whose scores to map; the richest the model has otherwise.
        merge: "smooth" blends tiles and windows; "paper" repeats the authors' evaluation, for one context.
        tta: average over the eight flips and quarter turns.
        coarse_to_fine: let the local branch see only the tiles near the second class of two, as the guide finds it.
        batch: tiles at a time. device: auto, cpu, cuda, cuda:N. precision: auto, float32, bfloat16.
        confidence: also write the best class's probability, in per cent, to this file.
        probabilities: also write every class's probability, in per cent, to this file.
        parts: folder or URL for the parts, see `stores.store_at`; beside the output otherwise.
        creation_options: (name, value) pairs for GDAL's COG driver.
        resume: use the finished parts of an interrupted run. overwrite: replace existing outputs.
    """

    indexes: tuple[int, ...] | None = None
    bounds: tuple[float, float, float, float] | None = None
    nodata: float | None = None
    gsd: float | Literal["native"] | None = None
    value_range: tuple[float, float] | None = None
    context_px: int | None = None
    tile_px: int | None = None
    overlap_px: int | None = None
    branch: Branch | None = None
    merge: Merge = "smooth"
    tta: bool = False
    coarse_to_fine: bool = False
    batch: int | None = None
    device: str = "auto"
    precision: Precision = "auto"
    confidence: Path | None = None
    probabilities: Path | None = None
    parts: str | None = None
    creation_options: tuple[tuple[str, str], ...] = ()
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class SegmentJob:
    """A checked call: the open scene, the settings, and the windows to compute."""

    scene: Scene
    output: Path
    model_path: Path
    model: str
    spec: ModelSpec
    options: SegmentOptions
    branch: Branch
    device: torch.device
    batch: int
    dtype: torch.dtype
    plan: WindowPlan

    @property
    def context_px(self) -> int:
        return self.options.context_px or self.spec.context_px

    def predictor(self) -> Predictor:
        """Load the model and fold it for the branch and the number format."""
        network, _ = load(self.model_path)
        return Predictor(
            model=FoldedGLNet(network.to(self.device).eval(), self.branch, self.dtype),
            spec=self.spec,
            branch=self.branch,
            tiles=self.plan.tiles,
            device=self.device,
            dtype=self.dtype,
            batch=self.batch,
            context_px=self.context_px,
            tta=self.options.tta,
            coarse_to_fine=self.options.coarse_to_fine,
        )

    def fingerprint(self) -> dict[str, object]:
        """All that decides the bytes of the map, so that parts of two different runs are never mixed."""
        stretch = self.scene.stretch
        return {
            "model": self.model,
            "scene": self.scene.identity(),
            "bounds": self.options.bounds,
            "working size": [self.scene.grid.rows.working, self.scene.grid.columns.working],
            "value range": [stretch.low, stretch.high] if stretch else None,
            "context": self.context_px,
            "tile": self.plan.tiles.tile_px,
            "overlap": self.plan.tiles.overlap_px,
            "branch": self.branch,
            "merge": self.options.merge,
            "tta": self.options.tta,
            "coarse to fine": self.options.coarse_to_fine,
            "batch": self.batch,
            "device": describe_device(self.device),
            "precision": str(self.dtype).removeprefix("torch."),
            "arithmetic": FOLD_VERSION,
            "versions": [__version__, torch.__version__, rasterio.__gdal_version__],
        }


@contextmanager
def segment_job(
    scene_path: str,
    output: Path,
    model_path: Path,
    options: SegmentOptions | None = None,
    *,
    on_cluster: bool = False,
) -> Iterator[SegmentJob]:
    """Check a call from the cheapest mistake to the dearest and open the scene.

    Args:
        scene_path, output, model_path, options: see `segment`.
        on_cluster: workers compute the windows; this process needs no device.
    """
    options = options or SegmentOptions()
    if options.merge == "paper" and on_cluster:
        raise UsageError("--merge paper computes one window in one process; leave out --scheduler and --workers")
    settings = _settings(model_path, options, on_cluster=on_cluster)
    with settings.open_scene(scene_path) as scene:
        if options.parts is not None:
            check_place(options.parts)
        _claim((scene_path, *scene.files, model_path), output, options)
        check_creation_options(options.creation_options)
        yield settings.job(scene, output)


def worker_job(scene_path: str, model_path: Path, options: SegmentOptions) -> SegmentJob:
    """The job of a worker, which writes parts and no output. Its scene is closed when nobody holds it any more."""
    settings = _settings(model_path, options)
    return settings.job(settings.open_scene(scene_path), Path())


@dataclass(frozen=True)
class _Settings:
    """What a call says without a look at the scene."""

    model_path: Path
    spec: ModelSpec
    options: SegmentOptions
    branch: Branch
    tiles: TileForm
    device: torch.device

    def open_scene(self, path: str) -> Scene:
        return Scene(path, self.options.indexes, self.spec.architecture.bands, self.options.nodata)

    def job(self, scene: Scene, output: Path) -> SegmentJob:
        options, spec = self.options, self.spec
        _choose_working_grid(scene, options, spec)
        scene.stretch = _choose_stretch(scene, options, spec)
        return SegmentJob(
            scene=scene,
            output=output,
            model_path=self.model_path,
            model=model_id(self.model_path),
            spec=spec,
            options=options,
            branch=self.branch,
            device=self.device,
            batch=choose_batch(options.batch, self.device, self.tiles.tile_px),
            dtype=_choose_dtype(options, self.device, spec),
            plan=_lay_windows(scene, options, spec, self.tiles),
        )


def _settings(model_path: Path, options: SegmentOptions, *, on_cluster: bool = False) -> _Settings:
    spec = read_spec(model_path)
    branch = _choose_branch(options, spec)
    if options.coarse_to_fine:
        _check_coarse_to_fine(options, spec, branch)
    tiles = _choose_tiles(options, spec)
    device = torch.device("cpu") if on_cluster else choose_device(options.device)
    return _Settings(model_path, spec, options, branch, tiles, device)


def _choose_dtype(options: SegmentOptions, device: torch.device, spec: ModelSpec) -> torch.dtype:
    if options.merge == "paper" and options.precision == "auto":
        return torch.float32  # for checking published figures
    return choose_precision(options.precision, device, spec.bfloat16_agreement)


def _choose_branch(options: SegmentOptions, spec: ModelSpec) -> Branch:
    own, branch = spec.architecture.branch, options.branch or spec.architecture.branch
    if own != "full" and branch != own:
        raise UsageError(f"the model has a {own} branch only; leave out --branch {branch}")
    return branch


def _check_coarse_to_fine(options: SegmentOptions, spec: ModelSpec, branch: Branch) -> None:
    network, refuse = spec.architecture, "--coarse-to-fine is for models of two classes and mode local; this one"
    if network.classes != 2:
        raise UsageError(f"{refuse} has {network.classes} classes: leave it out")
    if network.mode != "local":
        raise UsageError(f"{refuse} is of mode {network.mode}: leave it out")
    if branch != "full":
        raise UsageError(f"--coarse-to-fine joins guide and tiles; leave out --branch {branch}")
    if options.merge == "paper":
        raise UsageError("--merge paper classes every tile; leave out --coarse-to-fine, or use --merge smooth")


def _choose_tiles(options: SegmentOptions, spec: ModelSpec) -> TileForm:
    context, tile = options.context_px or spec.context_px, options.tile_px or spec.tile_px
    overlap_px = usual_overlap(tile) if options.overlap_px is None else options.overlap_px
    overlap = round_up(overlap_px)
    for name, value in (("--context", options.context_px), ("--tile", options.tile_px)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value} must be positive")
    if tile <= 0 or tile % STRIDE:
        raise UsageError(f"--tile {tile} must be a positive multiple of {STRIDE}")
    if context < tile:
        raise UsageError(f"--context {context} is smaller than the tile of {tile} px")
    if not 0 <= overlap_px <= overlap < tile:
        raise UsageError(f"--overlap {overlap_px} must be at least 0 and less than the tile of {tile} px")
    if options.batch is not None and options.batch < 1:
        raise UsageError(f"--batch {options.batch} must be at least 1")
    return TileForm(tile, overlap)


def _claim(inputs: Sequence[str | Path], output: Path, options: SegmentOptions) -> None:
    outputs = [path for path in (output, options.confidence, options.probabilities) if path is not None]
    done = published(parts_store(output, options.parts)) if options.resume and output.name else set()
    claim(*outputs, inputs=inputs, overwrite=options.overwrite, published=done)


def _choose_working_grid(scene: Scene, options: SegmentOptions, spec: ModelSpec) -> None:
    if options.gsd == "native" or (options.gsd is None and spec.gsd_m is None):
        return
    if options.gsd is None and scene.gsd_m is None:
        log.warning(
            "%s: has no CRS that tells metres; read in its own pixels, the model wants %g m",
            scene.path,
            spec.gsd_m,
        )
        return
    scene.resample_to(options.gsd or spec.gsd_m or 0.0)


def _choose_stretch(scene: Scene, options: SegmentOptions, spec: ModelSpec) -> Stretch | None:
    if options.value_range is not None:
        low, high = options.value_range
        if not low < high:
            raise UsageError(f"--scale {low:g} {high:g} needs two values that ascend")
        return Stretch(low, high, spec.scale)
    if scene.dtype == spec.dtype:
        return None
    values = scene.sample()
    if not values.size:
        values = scene.overview()
    low, high = np.percentile(values, (2, 98)).tolist() if values.size else (0.0, 1.0)
    high = high if high > low else low + 1.0
    log.warning(
        "%s: is %s, the model was trained on %s: values %g to %g (2 to 98 %%) are stretched to its range; --scale sets "
        "others",
        *(scene.path, scene.dtype, spec.dtype, low, high),
    )
    return Stretch(low, high, spec.scale)


def _lay_windows(scene: Scene, options: SegmentOptions, spec: ModelSpec, tiles: TileForm) -> WindowPlan:
    region = scene.extent
    if options.bounds is not None:
        region = bounds_window(options.bounds, scene.transform, *scene.shape)
    context = options.context_px or spec.context_px
    sides = scene.grid.rows.working, scene.grid.columns.working
    if options.merge == "paper":
        if not scene.grid.native:
            raise UsageError("--merge paper works on the scene's own pixels; add --gsd native")
        if max(sides) > ONE_CONTEXT * context:
            raise UsageError(f"--merge paper is for scenes of one context ({context} px); use --merge smooth")
        if options.resume:
            raise UsageError("--merge paper keeps no parts and cannot be resumed; leave --resume out")
        if options.parts is not None:
            raise UsageError("--merge paper keeps no parts; leave --parts out")
    # without context windows need not overlap more than tiles do
    overlap = tiles.overlap_px if spec.architecture.mode == "tiles" else None
    rows, columns = (context_axis(side, context, tiles.tile_px, overlap) for side in sides)
    windows = WindowGrid(rows, columns)
    return WindowPlan(region, windows, windows.touching(scene.grid.to_working(region)), tiles, context)
