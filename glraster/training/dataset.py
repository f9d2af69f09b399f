"""Training samples: a context window of a labelled scene, its thumbnail, and some of its tiles.

A sample is a pure function of the seed and its number, so that a resumed training gets the samples it would have had.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from glraster.catalog import IGNORE
from glraster.config import ModelSpec
from glraster.labels.scenes import OpenScenes
from glraster.model.sharing import Tiling
from glraster.raster.grid import STRIDE, Axis, Window, even_axis, usual_overlap


@dataclass(frozen=True)
class Augmentation:
    """How samples differ from the scenes.

    `turns`: flips and quarter turns; `zoom`: the range of factors by which a sample shows more or less ground;
    `colour`: the strength of random brightness, contrast and tint, as a share of the value range; `balance`: the
    share of tiles that are placed on a class drawn evenly instead of anywhere; `blind`: the share of samples whose
    tiles see zeros instead of the guide's maps.
    """

    turns: bool = True
    zoom: tuple[float, float] = (1.0, 1.0)
    colour: float = 0.0
    balance: float = 0.0
    blind: float = 0.0


@dataclass(frozen=True)
class SampleForm:
    """Sizes of a sample: the context and its thumbnail, and `tiles` (rows, columns) of it, all of them where None."""

    context_px: int
    thumbnail_px: int
    tile_px: int
    tiles: tuple[int, int] | None = None


@dataclass(frozen=True)
class Sample:
    """One context window as network input: `thumbnail` (bands, h, w), `tiles` (n, bands, t, t), and their labels.

    In a `blind` sample the tiles see zeros in place of the guide's maps. The guide sees every place many times as often
    as the local branch does, and overfits; without blind samples the local branch relies on it.
    """

    thumbnail: Tensor
    thumbnail_label: Tensor
    tiles: Tensor
    tile_labels: Tensor
    tiling: Tiling
    blind: bool = False


class SampleSource:
    """Draws samples from scenes, which it closes at the end; use as a context manager.

    Scenes are drawn in proportion to their `weights`, windows anywhere in them. `seed` is one number,
    or (number, stream): the same number gives other samples in another stream. Memory: one window and GDAL's block
    cache; of many scenes the last used ones are open.
    """

    def __init__(
        self,
        scenes: OpenScenes,
        weights: Sequence[float],
        spec: ModelSpec,
        form: SampleForm,
        how: Augmentation,
        seed: int | tuple[int, int],
    ) -> None:
        self._scenes, self._spec, self._form, self._how = scenes, spec, form, how
        self._seed, self._stream = (seed, 0) if isinstance(seed, int) else seed
        self._odds = np.asarray(weights) / np.sum(weights)

    def __enter__(self) -> SampleSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scenes.close()

    def sample(self, number: int) -> Sample:
        """The sample of that number."""
        rng = np.random.default_rng([self._seed, number, self._stream])
        scene = self._scenes[int(rng.choice(len(self._odds), p=self._odds))]
        zoom = float(np.exp(rng.uniform(*np.log(self._how.zoom))))
        window = _draw_window(scene.area, round(self._form.context_px * zoom), rng)
        image, label = scene.read(window)
        if self._how.turns:
            image, label = _turn(image, label, int(rng.integers(8)))
        return self._cut(torch.from_numpy(image), label, zoom, rng)

    def _cut(self, pixels: Tensor, label: npt.NDArray[np.uint8], zoom: float, rng: np.random.Generator) -> Sample:
        form = self._form
        rows, columns = self._tile_axes(label, zoom, rng)
        corners = [(y, x) for y in rows.offsets for x in columns.offsets]
        side, ground_px = form.tile_px, round(form.tile_px * zoom)
        starts = [
            (min(round(y * zoom), label.shape[0] - ground_px), min(round(x * zoom), label.shape[1] - ground_px))
            for y, x in corners
        ]
        tiles = torch.stack([_resize(pixels[:, y : y + ground_px, x : x + ground_px], side) for y, x in starts])
        tile_labels = torch.stack([_nearest(label[y : y + ground_px, x : x + ground_px], side) for y, x in starts])
        colour = draw_colour(self._how.colour, pixels.shape[0], rng)
        return Sample(
            thumbnail=self._normalise(_resize(pixels, form.thumbnail_px), colour),
            thumbnail_label=_nearest(label, form.thumbnail_px),
            tiles=self._normalise(tiles, colour),
            tile_labels=tile_labels,
            tiling=Tiling(form.context_px, form.context_px, side, side, rows.offsets, columns.offsets),
            blind=bool(rng.random() < self._how.blind),
        )

    def _tile_axes(self, label: npt.NDArray[np.uint8], zoom: float, rng: np.random.Generator) -> tuple[Axis, Axis]:
        form = self._form
        if form.tiles is None:
            axis = even_axis(form.context_px, form.tile_px, usual_overlap(form.tile_px))
            return axis, axis
        free_cells = (form.context_px - form.tile_px) // STRIDE
        places = rng.integers(0, free_cells + 1, (max(form.tiles), 2)) * STRIDE
        for i in range(max(form.tiles)):
            if rng.random() < self._how.balance:
                places[i] = self._place_on_class(label, zoom, rng)
        offsets = [tuple(sorted({int(v) for v in places[:count, axis]})) for axis, count in enumerate(form.tiles)]
        return Axis(form.context_px, form.tile_px, offsets[0]), Axis(form.context_px, form.tile_px, offsets[1])

    def _place_on_class(
        self, label: npt.NDArray[np.uint8], zoom: float, rng: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """A tile's corner, so that the tile holds a pixel of a class drawn evenly from those in the window."""
        coarse = label[::8, ::8]
        present = [c for c in np.unique(coarse) if c != IGNORE]
        rows, columns = np.nonzero(coarse == (rng.choice(present) if present else IGNORE))
        pick = int(rng.integers(len(rows))) if len(rows) else 0
        anchor = np.array([rows[pick], columns[pick]]) * 8 / zoom if len(rows) else np.zeros(2)
        corner = anchor - rng.integers(0, self._form.tile_px, 2)
        free_px = self._form.context_px - self._form.tile_px
        return np.asarray(np.clip(corner, 0, free_px) // STRIDE * STRIDE, dtype=np.int64)

    def _normalise(self, pixels: Tensor, colour: Colour | None) -> Tensor:
        mean, std = (torch.tensor(v)[:, None, None] for v in (self._spec.mean, self._spec.std))
        values = pixels.float() / self._spec.scale
        return ((colour.apply(values) if colour else values) - mean) / std


def prefetch(source: SampleSource, numbers: Iterable[Sequence[int]]) -> Iterator[list[Sample]]:
    """Yield the samples of each batch of numbers, drawing the next batch while the caller works."""
    # torch's threads spin while they wait: two pools on the same cores would take them from each other
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as worker:
        draw = worker.submit
        waiting = None
        for batch in numbers:
            following = draw(lambda own_numbers: [source.sample(n) for n in own_numbers], batch)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def _draw_window(area: Window, side: int, rng: np.random.Generator) -> Window:
    """A square window anywhere in the area; centred on it along an axis that is shorter than the window."""
    top, left = (
        start + int(rng.integers(0, length - side + 1)) if length > side else start - (side - length) // 2
        for start, length in ((area.top, area.height), (area.left, area.width))
    )
    return Window(top, left, side, side)


def _turn(
    image: npt.NDArray[Any], label: npt.NDArray[np.uint8], view: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
    if view >= 4:
        image, label = image[..., ::-1], label[:, ::-1]
    image, label = np.rot90(image, view % 4, axes=(1, 2)), np.rot90(label, view % 4)
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


@dataclass(frozen=True)
class Colour:
    """A change of light and tint: to the power of `gamma`, times `contrast` about the middle, plus `brightness`."""

    gamma: float
    contrast: Tensor
    brightness: Tensor

    def apply(self, values: Tensor) -> Tensor:
        """Change values (..., bands, h, w)."""
        return (values.clamp(0, 1) ** self.gamma - 0.5) * self.contrast + self.brightness + 0.5


def draw_colour(strength: float, bands: int, rng: np.random.Generator) -> Colour | None:
    """Draw a change of the given strength; None for strength 0."""
    if strength == 0:
        return None
    contrast = np.exp(rng.normal(0, strength) + rng.normal(0, strength / 3, bands))
    brightness = rng.normal(0, strength / 2) + rng.normal(0, strength / 4, bands)
    columns = [torch.from_numpy(v.astype(np.float32))[:, None, None] for v in (contrast, brightness)]
    return Colour(float(np.exp(rng.normal(0, strength))), columns[0], columns[1])


def _resize(pixels: Tensor, side: int) -> Tensor:
    """Resize (bands, h, w) of any dtype to a square."""
    if pixels.shape[-1] == side == pixels.shape[-2]:
        return pixels
    if pixels.dtype not in (torch.uint8, torch.float32):
        pixels = pixels.float()
    return F.interpolate(pixels[None], (side, side), mode="bilinear", antialias=True, align_corners=False)[0]


def _nearest(label: npt.NDArray[np.uint8], side: int) -> Tensor:
    rows, columns = (((np.arange(side) + 0.5) * length / side).astype(int) for length in label.shape)
    return torch.from_numpy(np.ascontiguousarray(label[np.ix_(rows, columns)]))
