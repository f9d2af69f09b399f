"""Segment several scenes into one folder: a scene that fails does not stop the others."""

from __future__ import annotations

import itertools
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import rasterio
from rasterio.errors import RasterioError

from glraster.cluster.client import Cluster
from glraster.errors import ClusterError, DeviceError, GlrasterError, ModelError, OutputError, UsageError
from glraster.files import refuse_inputs, staging_folder
from glraster.interchange.sidecars import Sidecars, check_sidecars, write_sidecars
from glraster.model.checkpoint import model_id, model_path
from glraster.names import redact
from glraster.raster.source import gdal_session, input_files
from glraster.segmentation.segment import Progress, SegmentOptions, SegmentResult, segment

OF_ALL_SCENES = (ModelError, DeviceError, ClusterError)
"""Errors that every further scene would meet as well."""

_MOST_AT_ONCE = 8
"""Scenes over a cluster at the same time: more masks are not assembled in this process at once."""

Fate = Literal["done", "kept", "failed"]


@dataclass(frozen=True)
class ScenesOptions:
    """How to segment several scenes: each with `segment`, with the `sidecars` beside its mask."""

    segment: SegmentOptions = field(default_factory=SegmentOptions)
    sidecars: Sidecars = field(default_factory=Sidecars)


@dataclass(frozen=True)
class SceneOutcome:
    """What became of one scene: `kept` is a mask that an earlier run had finished; `error` says why it failed."""

    scene: str
    output: str
    fate: Fate
    result: SegmentResult | None = None
    error: GlrasterError | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        record: dict[str, Any] = {"scene": self.scene, "output": self.output, "fate": self.fate}
        if self.error is not None:
            record["error"] = str(self.error)
        return record | (self.result.to_json() if self.result else {})


@dataclass(frozen=True)
class SceneProgress:
    """How far one of the scenes that are at work is; `ended` of all `scenes` are through."""

    scene: str
    progress: Progress
    ended: int
    scenes: int


def _nobody(_: object) -> None: ...


@dataclass(frozen=True)
class Watch:
    """Callbacks. `ended` runs in the order in which scenes end; `progress` may be called from several threads."""

    ended: Callable[[SceneOutcome], None] = _nobody
    progress: Callable[[SceneProgress], None] = _nobody


@dataclass(frozen=True)
class ScenesResult:
    """What became of all scenes, in the order of the call."""

    scenes: tuple[SceneOutcome, ...]

    def count(self, fate: Fate) -> int:
        """Scenes of one fate."""
        return sum(scene.fate == fate for scene in self.scenes)

    @property
    def exit_code(self) -> int:
        """0 if no scene failed, 2 if all failed by a wrong call, else 1."""
        codes = {scene.error.exit_code for scene in self.scenes if scene.error is not None}
        if codes and self.count("failed") < len(self.scenes):
            return 1
        return min(codes, default=0)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        counts = {fate: self.count(fate) for fate in ("done", "kept", "failed")}
        return counts | {"scenes": [scene.to_json() for scene in self.scenes]}


def segment_scenes(
    scenes: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    options: ScenesOptions | None = None,
    cluster: Cluster | None = None,
    watch: Watch | None = None,
) -> ScenesResult:
    """Map every scene into a folder, as NAME.tif; a scene that fails does not stop the others.

    Args:
        scenes: anything GDAL opens; no two of the same name.
        folder: of the masks; made if it is not there.
        model: a `.safetensors` model file; the one that comes with glraster if None.
        options: see `ScenesOptions`. With `resume`, masks that the same model has finished are kept.
        cluster: workers that compute the windows of several scenes at once, see `distributed.connect`.
        watch: callbacks for outcomes and progress.

    Raises:
        UsageError: if two scenes have the same name, or the options name one file for all of them.
        OutputError: if the folder cannot be made.
        ModelError, DeviceError, ClusterError: what no further scene would escape ends the run.

    Memory: as `segment`; over a cluster, blocks of up to eight masks.
    """
    options, target = options or ScenesOptions(), Path(folder)
    names = [os.fspath(scene) for scene in scenes]
    masks = _masks(names, target)
    _check(options.segment)
    inputs = tuple(input_files(*names)) if any(os.path.lexists(mask) for mask in masks) else ()
    run = _Run(model, model_id(model_path(model)), options, cluster, watch or Watch(), inputs, len(names))
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target}: cannot be made a folder: {os.strerror(error.errno or 0)}") from error
    return run.segment_all(list(zip(names, masks, strict=True)))


@dataclass
class _Run:
    """Several scenes at work; `outcomes` are those of the scenes that ended, by mask."""

    model: str | os.PathLike[str] | None
    model_id: str
    options: ScenesOptions
    cluster: Cluster | None
    watch: Watch
    inputs: Sequence[str | Path]
    count: int
    outcomes: dict[str, SceneOutcome] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def segment_all(self, scenes: Sequence[tuple[str, Path]]) -> ScenesResult:
        at_once = 1 if self.cluster is None else min(_MOST_AT_ONCE, len(self.cluster.workers) + 1)
        try:
            for outcome in (
                itertools.starmap(self.segment_one, scenes) if at_once == 1 else self._at_once(scenes, at_once)
            ):
                self.outcomes[outcome.output] = outcome
                self.watch.ended(outcome)
        except (*OF_ALL_SCENES, KeyboardInterrupt) as error:
            error.add_note(
                f"{len(self.outcomes)} of {self.count} scenes are through; repeat the call with --resume to go on"
            )
            raise
        return ScenesResult(tuple(self.outcomes[str(mask)] for _, mask in scenes))

    def _at_once(self, scenes: Sequence[tuple[str, Path]], threads: int) -> Iterator[SceneOutcome]:
        """Outcomes in the order in which scenes end; an error, or an interruption, ends all of them."""
        with ThreadPoolExecutor(threads, "glraster scene") as pool:
            waiting: set[Future[SceneOutcome]] = {pool.submit(self.segment_one, *scene) for scene in scenes}
            try:
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            finally:
                self.ended.set()
                for future in waiting:
                    future.cancel()

    def segment_one(self, scene: str, mask: Path) -> SceneOutcome:
        """Map a scene; an error that is not `OF_ALL_SCENES` is its outcome."""
        options = self.options

        def progress(progress: Progress) -> None:
            if self.ended.is_set():
                raise KeyboardInterrupt
            self.watch.progress(SceneProgress(scene, progress, len(self.outcomes), self.count))

        try:
            if options.segment.resume and _finished(mask, self.model_id):
                return SceneOutcome(scene, str(mask), "kept")
            refuse_inputs([mask], self.inputs)
            check_sidecars(mask, options.sidecars, overwrite=options.segment.overwrite)
            result = segment(scene, mask, self.model, options.segment, progress, self.cluster)
            write_sidecars(scene, mask, options.sidecars)
            return SceneOutcome(scene, str(mask), "done", result)
        except OF_ALL_SCENES:
            raise
        except GlrasterError as error:
            return SceneOutcome(scene, str(mask), "failed", error=error)


def _check(options: SegmentOptions) -> None:
    for name in ("confidence", "probabilities"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} names one file; leave it out with several scenes")


def _masks(scenes: Sequence[str], folder: Path) -> list[Path]:
    masks = [folder / f"{_stem(scene)}.tif" for scene in scenes]
    twice = [mask for mask, count in Counter(masks).items() if count > 1]
    if twice:
        both = " and ".join(redact(scene) for scene, mask in zip(scenes, masks, strict=True) if mask == twice[0])
        raise UsageError(f"{both}: would both be written to {twice[0]}; segment them into different folders")
    return masks


def _stem(scene: str) -> str:
    """The last part of a scene's name, without query and ending."""
    last = re.split(r"[/\\]", scene.split("?")[0].rstrip("/"))[-1] if "://" in scene else Path(scene).name
    return Path(last.replace(":", "_")).stem or "scene"


def _finished(mask: Path, model: str) -> bool:
    """Whether a mask is complete, and of this model; one that is being published is not.

    Raises:
        OutputError: if it is of another model.
    """
    if not mask.is_file() or staging_folder(mask).exists():
        return False
    try:
        with gdal_session(), rasterio.open(mask) as dataset:
            mask_model = dataset.tags().get("GLRASTER_MODEL")
    except RasterioError:
        mask_model = None
    if mask_model != model:
        raise OutputError(f"{mask}: exists and is no map of this model; use --overwrite to replace it")
    return True
