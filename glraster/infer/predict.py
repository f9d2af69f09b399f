"""Run a GLNet over one context window: thumbnail and tiles in, blended class scores out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from glraster.config import Branch, ModelSpec
from glraster.infer.device import DeviceMemoryError
from glraster.model.glnet import GLNet
from glraster.model.sharing import Tiling
from glraster.raster.grid import STRIDE, Axis, FloatArray, even_axis, paper_axis
from glraster.raster.resize import thumbnail

Image = npt.NDArray[Any]


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
class Predictor:
    """A model ready to predict: on `device`, `batch` tiles at a time, convolutions of a plain GLNet in `dtype`.

    A folded network has a number format of its own. `context_px` is the extent that the model's thumbnail stands for.
    With `tta` the scores are the mean over the eight flips and quarter turns of the window.
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

    def cell_scores(self, image: Image, small: Image | None = None) -> FloatArray:
        """Scores of a window on the cell grid, tiles blended with fading weights.

        Args:
            image: (bands, H, W), H and W multiples of `STRIDE`, values as the model was trained on.
            small: its thumbnail, where it was made before.

        Returns:
            (classes, H / STRIDE, W / STRIDE).

        Raises:
            DeviceMemoryError: where a batch of tiles does not fit the device.

        Memory: the window, a batch of tiles, and what `tile_logits` keeps.
        """
        small = self.thumbnail(image) if small is None else small
        return self._over_views(image, small, self._smooth).cpu().numpy()

    def thumbnail(self, image: Image) -> Image:
        """What the global branch sees of a window (bands, H, W), at the scale at which it was trained to see it."""
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

    def _smooth(self, pixels: Tensor, small: Tensor) -> Tensor:
        height, width = pixels.shape[1:]
        cells = (height // STRIDE, width // STRIDE)
        if self.branch == "global":
            return F.interpolate(self.model.global_logits(small).float(), cells, mode="bilinear")[0]
        rows, columns = self.tiles.tiling(height, width)
        canvas = torch.zeros(self.spec.architecture.classes, *cells, device=self.device)
        weights = [[torch.from_numpy(w).to(self.device) for w in axis.weights] for axis in (rows, columns)]
        for (row, column), logits in self._tile_logits(pixels, small, rows, columns):
            top, left = rows.offsets[row] // STRIDE, columns.offsets[column] // STRIDE
            fade = weights[0][row][:, None] * weights[1][column]
            canvas[:, top : top + fade.shape[0], left : left + fade.shape[1]] += logits * fade
        return canvas

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
    ) -> Iterator[tuple[tuple[int, int], Tensor]]:
        """((row, column), logits (classes, h, w)) of every tile, row by row."""
        places = [(row, column) for row in range(len(rows.offsets)) for column in range(len(columns.offsets))]

        def batches() -> Iterator[Tensor]:
            for start in range(0, len(places), self.batch):
                corners = [(rows.offsets[r], columns.offsets[c]) for r, c in places[start : start + self.batch]]
                tiles = [pixels[:, y : y + rows.length, x : x + columns.length] for y, x in corners]
                yield self._normalise(torch.stack(tiles))

        tiling = Tiling(rows.side, columns.side, rows.length, columns.length, rows.offsets, columns.offsets)
        logits = self.model.tile_logits(small, batches(), tiling, self.branch)
        return zip(places, (tile.float() for batch in logits for tile in batch), strict=True)

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


def _turn(image: Image, view: int) -> Image:
    """One of the eight views of a window: `view % 4` quarter turns, mirrored from 4 on."""
    return np.rot90(image[..., ::-1] if view >= 4 else image, view % 4, axes=(1, 2))


def _turn_back(scores: Tensor, view: int) -> Tensor:
    turned = torch.rot90(scores, -(view % 4), dims=(1, 2))
    return turned.flip(-1) if view >= 4 else turned
