"""Which tiles of which windows pass the local branch together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glraster.model.fpn import Maps
from glraster.raster.grid import Axis
from glraster.segmentation.foreground import FOREGROUND, foreground_tiles
from glraster.training.dataset import Sample
from glraster.training.losses import resize_labels


@dataclass(frozen=True)
class Piece:
    """`count` tiles of one window from the `first` on, and the guide's maps of the window (None in mode "tiles")."""

    sample: Sample
    guide: Maps | None
    first: int
    count: int

    @property
    def tiles(self) -> Tensor:
        return self.sample.tiles[self.first : self.first + self.count]

    @property
    def labels(self) -> Tensor:
        return self.sample.tile_labels[self.first : self.first + self.count]


def sub_batches(
    samples: Sequence[Sample],
    guides: Sequence[Maps | None],
    chosen: Sequence[Sequence[int]],
    most: int,
    together: int,
) -> Iterator[list[Piece]]:
    """Divide the tiles of a batch.

    Args:
        samples, guides: the windows.
        chosen: indexes of the tiles to use of every window, ascending.
        most: tiles in a sub-batch, where windows do not meet.
        together: windows whose tiles pass together; 0: those of one window alone, `most` at a time.

    Yields:
        The pieces of one sub-batch; none is empty.
    """
    windows = [
        [(sample, guide, tile) for tile in tiles] for sample, guide, tiles in zip(samples, guides, chosen, strict=True)
    ]
    if together:
        for i in range(0, len(windows), together):
            yield _joined([tile for window in windows[i : i + together] for tile in window])
        return
    for window in windows:
        for i in range(0, len(window), most):
            yield _joined(window[i : i + most])


def _joined(tiles: Sequence[tuple[Sample, Maps | None, int]]) -> list[Piece]:
    """Neighbours in one window as one piece."""
    pieces: list[Piece] = []
    for sample, guide, tile in tiles:
        last = pieces[-1] if pieces else None
        if last is not None and last.sample is sample and last.first + last.count == tile:
            pieces[-1] = Piece(sample, guide, last.first, last.count + 1)
        else:
            pieces.append(Piece(sample, guide, tile, 1))
    return pieces


def chosen_tiles(sample: Sample, guide_logits: Tensor) -> list[int]:
    """The tiles that touch foreground, by the guide's logits (1, 2, h, w) or by the label.

    The label too: what the guide misses would never be learned.
    """
    tiling, seen = sample.tiling, guide_logits[0].argmax(0).cpu() == FOREGROUND
    truth = resize_labels(sample.thumbnail_label[None], seen.shape)[0].cpu() == FOREGROUND
    rows = Axis(tiling.height, tiling.tile_height, tiling.tops)
    columns = Axis(tiling.width, tiling.tile_width, tiling.lefts)
    kept = foreground_tiles((seen | truth).numpy(), rows, columns)
    return [int(i) for i in torch.from_numpy(kept).flatten().nonzero()[:, 0]]
