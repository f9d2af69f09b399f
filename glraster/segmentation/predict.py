"""Run a GLNet over one context window: thumbnail and tiles in, blended class scores out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from glraster.config import Branch, ModelSpec
from glraster.model.fold import FoldedGLNet
from glraster.model.glnet import GLNet
from glraster.model.sharing import Tiling
from glraster.raster.grid import STRIDE, Axis, FloatArray, even_axis, paper_axis
from glraster.raster.resize import thumbnail
from glraster.segmentation.device import DeviceMemoryError
from glraster.segmentation.foreground import FOREGROUND, foreground_tiles

log = logging.getLogger(__name__)

Image = npt.NDArray[Any]
TilePlace = tuple[int, int]
"""Row and column of a tile among those of its window."""


class Network(Protocol):
    """A `GLNet`, or one in its inference form."""

    def global_logits(self, thumbnail: Tensor) -> Tensor: ...

    def tile_logits(
        self, thumbnail: Tensor, tiles: Iterable[Tensor], tiling: Tiling, branch: Branch
    ) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class TileForm:
    """How a window is cut into tiles: their side and least overlap, in pixels."""

    tile_px: int
    overlap_px: int

    def tiling(self, height: int, width: int) -> tuple[Axis, Axis]:
        """Rows and columns of the tiles of a window."""
        return (
            even_axis(height, min(self.tile_px, height), self.overlap_px),
            even_axis(width, min(self.tile_px, width), self.overlap_px),
        )


@dataclass(frozen=True)
class WindowScores:
    """Scores `cells` (classes, h, w) of a window on the cell grid; its `tiles`, and how many the guide alone classed.

    Tiles are counted in every view that was computed.
    """

    cells: FloatArray
    tiles: int
    tiles_skipped: int


@dataclass(frozen=True)
class Predictor:
    """A model ready to predict: on `device`, `batch` tiles at a time, convolutions of a plain GLNet in `dtype`.

    A folded network has a number format of its own. `context_px` is the extent that the model's thumbnail stands for.
    With `tta` the scores are the mean over the eight flips and quarter turns of the window. With `coarse_to_fine` only
    tiles near the second class, as the guide sees it, go through the local branch; this needs a folded network of two
    classes and mode local, and the branch full.
    """

    model: Network
    spec: ModelSpec
    branch: Branch
    tiles: TileForm
    device: torch.device
    dtype: torch.dtype
    batch: int
    context_px: int
    tta: bool = False
    coarse_to_fine: bool = False

    def cell_scores(self, image: Image, small: Image | None = None) -> FloatArray:
        """The scores of `window_scores`, (classes, H / STRIDE, W / STRIDE)."""
        return self.window_scores(image, small).cells

    def window_scores(self, image: Image, small: Image | None = None) -> WindowScores:
        """Scores of a window on the cell grid, tiles blended with fading weights.

        Args:
            image: (bands, H, W), H and W multiples of `STRIDE`, values as the model was trained on.
            small: its thumbnail, if it was made before.

        Raises:
            DeviceMemoryError: if a batch of tiles does not fit the device.

        Memory: the window, a batch of tiles, and what `tile_logits` keeps.
        """
        small = self.thumbnail(image) if small is None else small
        computed, skipped = [0], [0]

        def smooth(pixels: Tensor, seen: Tensor) -> Tensor:
            if self.branch == "global":
                cells = [side // STRIDE for side in pixels.shape[1:]]
                return F.interpolate(self.model.global_logits(seen).float(), cells, mode="bilinear")[0]
            blend = _Blend(self.spec.architecture.classes, self.tiles.tiling(*pixels.shape[1:]), self.device)
            for place, logits in self._votes(pixels, seen, blend):
                blend.add(place, logits)
            computed.append(blend.added)
            skipped.append(blend.left)
            return blend.cells

        cells = self._over_views(image, small, smooth).cpu().numpy()
        return WindowScores(cells, sum(computed) + sum(skipped), sum(skipped))

    def thumbnail(self, image: Image) -> Image:
        """What the global branch sees of a window (bands, H, W), at the scale at which it was trained to see it.

        One pixel if the model has no such branch.
        """
        if self.spec.architecture.mode == "tiles":
            return image[:, :1, :1]
        height, width = (max(1, round(side * self.spec.thumbnail_px / self.context_px)) for side in image.shape[1:])
        return thumbnail(image, height, width)

    def paper_scores(self, image: Image) -> FloatArray:
        """Scores of every pixel as the authors' released evaluation computes them.

        Their patch grid, a square thumbnail whatever the window's shape, logits resized to the patch with the
        nearest neighbour and summed.

        Args:
            image: (bands, H, W) of any size.

        Returns:
            (classes, H, W); memory grows with it.
        """
        small = thumbnail(image, self.spec.thumbnail_px, self.spec.thumbnail_px)
        if self.branch != "global":
            return self._over_views(image, small, self._paper).cpu().numpy()
        logits = self._over_views(image, small, lambda _, turned: self.model.global_logits(turned)[0].float())
        return F.interpolate(logits[None], image.shape[1:], mode="nearest")[0].cpu().numpy()

    def _over_views(self, image: Image, small: Image, scores: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Mean of `scores` of a window and its thumbnail, both turned into each view, turned back."""
        total: Tensor | None = None
        views = range(8 if self.tta else 1)
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, self.dtype, self._casts),
            ):
                for view in views:
                    pixels, seen = (self._upload(_turn(x, view)) for x in (image, small))
                    result = _turn_back(scores(pixels, self._normalise(seen[None])), view)
                    total = result if total is None else total + result
        except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's has no name of its own
            if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            raise DeviceMemoryError(f"{self.device} is out of memory; use a smaller --batch or --tile") from error
        assert total is not None
        return total / len(views)

    def _votes(self, pixels: Tensor, small: Tensor, blend: _Blend) -> Iterator[tuple[TilePlace, Tensor]]:
        """Places and logits of the tiles that the local branch classes; what it skips is left to the guide."""
        rows, columns = blend.rows, blend.columns
        if not self.coarse_to_fine:
            return self._tile_logits(pixels, small, rows, columns)
        assert isinstance(self.model, FoldedGLNet)
        guide = self.model.run_guide(small)
        near = foreground_tiles(guide.logits[0].argmax(0).cpu().numpy() == FOREGROUND, rows, columns)
        blend.leave(near, guide.logits)
        places = [place for place in _places(rows, columns) if near[place]]
        if not places:
            return iter(())
        tiling = replace(_tiling(rows, columns), selection=tuple(np.flatnonzero(near).tolist()))
        batches = self._batches(pixels, places, rows, columns)
        return _one_by_one(places, self.model.guided_logits(guide, batches, tiling))

    def _paper(self, pixels: Tensor, small: Tensor) -> Tensor:
        height, width = pixels.shape[1:]
        rows, columns = (paper_axis(side, self.tiles.tile_px) for side in (height, width))
        total = torch.zeros(self.spec.architecture.classes, height, width, device=self.device)
        for (row, column), logits in self._tile_logits(pixels, small, rows, columns):
            top, left = rows.offsets[row], columns.offsets[column]
            patch = F.interpolate(logits[None], (rows.length, columns.length), mode="nearest")[0]
            total[:, top : top + rows.length, left : left + columns.length] += patch
        return total

    def _tile_logits(
        self, pixels: Tensor, small: Tensor, rows: Axis, columns: Axis
    ) -> Iterator[tuple[TilePlace, Tensor]]:
        """TilePlace and logits (classes, h, w) of every tile, row by row."""
        places = _places(rows, columns)
        batches = self._batches(pixels, places, rows, columns)
        return _one_by_one(places, self.model.tile_logits(small, batches, _tiling(rows, columns), self.branch))

    def _batches(self, pixels: Tensor, places: Sequence[TilePlace], rows: Axis, columns: Axis) -> Iterator[Tensor]:
        for start in range(0, len(places), self.batch):
            corners = [(rows.offsets[r], columns.offsets[c]) for r, c in places[start : start + self.batch]]
            tiles = [pixels[:, y : y + rows.length, x : x + columns.length] for y, x in corners]
            yield self._normalise(torch.stack(tiles))

    @property
    def _casts(self) -> bool:
        return self.dtype != torch.float32 and isinstance(self.model, GLNet)

    def _upload(self, image: Image) -> Tensor:
        """Pixels go to the device as they are, a quarter of their size as floats, from memory it reads by itself."""
        pixels = torch.from_numpy(np.ascontiguousarray(image))
        if self.device.type == "cuda":
            return pixels.pin_memory().to(self.device, non_blocking=True)
        return pixels.to(self.device)

    def _normalise(self, pixels: Tensor) -> Tensor:
        """(n, bands, h, w) values to network input."""
        mean = torch.tensor(self.spec.mean, device=self.device)[:, None, None]
        std = torch.tensor(self.spec.std, device=self.device)[:, None, None]
        return (pixels.float() / self.spec.scale - mean) / std


def fitting_scores(predictor: Predictor, image: Image, small: Image | None = None) -> tuple[WindowScores, Predictor]:
    """Scores of a window, with half the batch as often as the device runs out of memory.

    Args:
        predictor: how to begin.
        image, small: see `Predictor.window_scores`.

    Returns:
        The scores, and the predictor whose batch fits.

    Raises:
        DeviceMemoryError: if a single tile is too large.
    """
    while True:
        try:
            return predictor.window_scores(image, small), predictor
        except DeviceMemoryError:
            if predictor.batch == 1:
                raise
        predictor = replace(predictor, batch=predictor.batch // 2)
        log.warning("%s is out of memory; going on with %d tiles at a time", predictor.device, predictor.batch)
        if predictor.device.type == "cuda":
            torch.cuda.empty_cache()


class _Blend:
    """The scores of a window's cells, to which tiles add theirs with weights that sum to one at every cell."""

    def __init__(self, classes: int, tiling: tuple[Axis, Axis], device: torch.device) -> None:
        self.rows, self.columns = tiling
        self.cells = torch.zeros(classes, self.rows.side // STRIDE, self.columns.side // STRIDE, device=device)
        self.added = self.left = 0
        self._weights = [[torch.from_numpy(w).to(device) for w in axis.weights] for axis in tiling]

    def add(self, place: TilePlace, logits: Tensor) -> None:
        """Add the logits (classes, h, w) of a tile."""
        fade, rows, columns = self._fade(place)
        self.cells[:, rows, columns] += logits * fade
        self.added += 1

    def leave(self, near: npt.NDArray[np.bool_], logits: Tensor) -> None:
        """Let the window's logits (1, classes, any height, any width) vote for all tiles that are not near.

        At the rim of a skipped tile they fade into what its neighbours say, as a tile's own would.
        """
        share = torch.zeros_like(self.cells[0])
        for place in _places(self.rows, self.columns):
            if not near[place]:
                fade, rows, columns = self._fade(place)
                share[rows, columns] += fade
                self.left += 1
        if self.left:
            self.cells += F.interpolate(logits, self.cells.shape[1:], mode="bilinear")[0] * share

    def _fade(self, place: TilePlace) -> tuple[Tensor, slice, slice]:
        """Weights of a tile's cells, and their rows and columns in the window."""
        rows, columns = (
            slice(axis.offsets[i] // STRIDE, axis.offsets[i] // STRIDE + axis.length // STRIDE)
            for axis, i in zip((self.rows, self.columns), place, strict=True)
        )
        return self._weights[0][place[0]][:, None] * self._weights[1][place[1]], rows, columns


def _places(rows: Axis, columns: Axis) -> list[TilePlace]:
    return [(row, column) for row in range(len(rows.offsets)) for column in range(len(columns.offsets))]


def _tiling(rows: Axis, columns: Axis) -> Tiling:
    return Tiling(rows.side, columns.side, rows.length, columns.length, rows.offsets, columns.offsets)


def _one_by_one(places: Sequence[TilePlace], logits: Iterator[Tensor]) -> Iterator[tuple[TilePlace, Tensor]]:
    return zip(places, (tile.float() for batch in logits for tile in batch), strict=True)


def _turn(image: Image, view: int) -> Image:
    """One of the eight views of a window: `view % 4` quarter turns, mirrored from 4 on."""
    return np.rot90(image[..., ::-1] if view >= 4 else image, view % 4, axes=(1, 2))


def _turn_back(scores: Tensor, view: int) -> Tensor:
    turned = torch.rot90(scores, -(view % 4), dims=(1, 2))
    return turned.flip(-1) if view >= 4 else turned
