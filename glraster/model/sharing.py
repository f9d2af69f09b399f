"""How the branches exchange maps: a tile's crop of the global map, and the maps of all tiles merged into one.

The arithmetic is that of the authors' released code, on which the published weights were trained, with its quirks:
footprints are rounded half to even per map, and merged maps are divided by a resized overlap
count that is not exactly the number of maps added.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from glraster.model.fpn import Shared, resize


@dataclass(frozen=True)
class Tiling:
    """Equal tiles on a product grid in a context window of `height` x `width` pixels.

    Tile i has its top at `tops[i // len(lefts)]` and its left at `lefts[i % len(lefts)]`: row-major order. With a
    `selection`, only these tiles of the grid exist, and tile i is the i-th of them.
    """

    height: int
    width: int
    tile_height: int
    tile_width: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    selection: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for offsets, length, side in (
            (self.tops, self.tile_height, self.height),
            (self.lefts, self.tile_width, self.width),
        ):
            if not 0 < length <= side:
                raise ValueError(f"a tile of {length} px does not fit a window of {side} px")
            if not offsets or min(offsets) < 0 or max(offsets) > side - length:
                raise ValueError(f"tile offsets {offsets} leave the window of {side} px (tile {length} px)")
        grid = len(self.tops) * len(self.lefts)
        if self.selection is not None and not all(0 <= i < grid for i in self.selection):
            raise ValueError(f"selected tiles {self.selection} are not among the {grid} of the grid")

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts) if self.selection is None else len(self.selection)

    def footprints(self, size: tuple[int, int], first: int, count: int) -> list[tuple[slice, slice]]:
        """Rows and columns that tiles cover in a map of the whole window, all of one size.

        Args:
            size: (H, W) of the map.
            first: index of the first tile.
            count: number of tiles.
        """
        rows = _spans(self.tops, self.tile_height, self.height, size[0])
        columns = _spans(self.lefts, self.tile_width, self.width, size[1])
        across = len(columns)
        numbers = range(first, first + count) if self.selection is None else self.selection[first : first + count]
        return [(rows[i // across], columns[i % across]) for i in numbers]

    def overlap(self, size: tuple[int, int]) -> Tensor:
        """Number of tiles that cover each cell of a map (H, W) of the window: pixel counts, resized bilinearly.

        Raises:
            ValueError: if there is a selection, whose count is not separable.
        """
        if self.selection is not None:
            raise ValueError("the maps of selected tiles cannot be merged: this needs all tiles of the window")
        rows = _counts(self.tops, self.tile_height, self.height, size[0])
        columns = _counts(self.lefts, self.tile_width, self.width, size[1])
        # the count of a product grid is a product, and bilinear resizing is separable
        return rows[:, None] * columns[None, :]


def _spans(offsets: tuple[int, ...], length: int, side: int, cells: int) -> list[slice]:
    count = min(max(round(cells * (length / side)), 1), cells)
    # start and count are rounded separately and can reach one cell past the end: stay inside
    starts = [min(round(offset / side * cells), cells - count) for offset in offsets]
    return [slice(start, start + count) for start in starts]


def _counts(offsets: tuple[int, ...], length: int, side: int, cells: int) -> Tensor:
    counts = torch.zeros(1, 1, side)
    for offset in offsets:
        counts[..., offset : offset + length] += 1
    # at least one, so that a cell without a tile stays zero instead of becoming 0 / 0
    return F.interpolate(counts, size=cells, mode="linear", align_corners=False)[0, 0].clamp(min=1)


def crop(window_map: Tensor, tiling: Tiling, first: int, count: int) -> Tensor:
    """Cut the footprints of tiles out of a map of the whole window.

    Args:
        window_map: (1, C, H, W).
        tiling: where the tiles lie.
        first: index of the first tile.
        count: number of tiles.

    Returns:
        (count, C, h, w), in cells of the window's map.
    """
    spans = tiling.footprints((window_map.shape[-2], window_map.shape[-1]), first, count)
    return torch.cat([window_map[:, :, rows, columns] for rows, columns in spans])


def crop_shared(shared: Shared, tiling: Tiling, first: int, count: int) -> Shared:
    """Cut the footprints of tiles out of all maps that a branch shares."""
    return tuple(tuple(crop(level, tiling, first, count) for level in levels) for levels in shared)


class Canvas:
    """Merges the maps of tiles into one map of the window. Memory is that map in float32."""

    def __init__(self, tiling: Tiling, like: Tensor) -> None:
        """Start empty, with the shape, device and (at the end) dtype of `like`, (1, C, H, W)."""
        self._tiling = tiling
        self._dtype = like.dtype
        self._sum = torch.zeros_like(like, dtype=torch.float32)
        self._size = (like.shape[-2], like.shape[-1])

    def add(self, maps: Tensor, first: int) -> None:
        """Resize maps (n, C, h, w) of tiles `first`, `first` + 1, ... to their footprints and add them."""
        spans = self._tiling.footprints(self._size, first, maps.shape[0])
        rows, columns = spans[0]
        small = resize(maps, (rows.stop - rows.start, columns.stop - columns.start))
        for tile, (rows, columns) in zip(small, spans, strict=True):
            self._sum[0, :, rows, columns] += tile

    def merged(self) -> Tensor:
        """The sum divided by the overlap count, (1, C, H, W)."""
        return (self._sum / self._tiling.overlap(self._size).to(self._sum.device)).to(self._dtype)


class Collage:
    """Merges all maps that a branch shares. Memory is one set of window maps, however many the tiles."""

    def __init__(self, tiling: Tiling, like: Shared) -> None:
        """Start empty, with the shapes of `like`, the maps of the window."""
        self._canvases = tuple(tuple(Canvas(tiling, level) for level in levels) for levels in like)

    def add(self, shared: Shared, first: int) -> None:
        """Add the maps of tiles `first`, `first` + 1, ..."""
        for canvases, levels in zip(self._canvases, shared, strict=True):
            for canvas, level in zip(canvases, levels, strict=True):
                canvas.add(level, first)

    def merged(self) -> Shared:
        """The merged maps, shaped as the window's own."""
        return tuple(tuple(canvas.merged() for canvas in canvases) for canvases in self._canvases)
