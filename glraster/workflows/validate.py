"""Score a network on labelled scenes, window by window.

Scenes are read in their own pixels, and where windows overlap each keeps its half: faster than the map of
`segment`, and about as good.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from glraster.catalog import Catalog, Pair
from glraster.config import ModelSpec
from glraster.infer.device import choose_batch
from glraster.infer.predict import Predictor, TileForm
from glraster.metrics import Confusion, confusion
from glraster.model.glnet import GLNet
from glraster.raster.grid import Window, context_axis, usual_overlap
from glraster.train.dataset import LabelledScene, open_pair


@dataclass(frozen=True)
class Seen:
    """One scored window: image (bands, H, W) in the scene's values, truth and prediction (H, W) as class indexes."""

    image: npt.NDArray[Any]
    truth: npt.NDArray[np.uint8]
    prediction: npt.NDArray[np.uint8]


def validate(
    model: GLNet, spec: ModelSpec, catalog: Catalog, pairs: Sequence[Pair], dtype: torch.dtype = torch.float32
) -> tuple[Confusion, Seen | None]:
    """Score a network on pairs of a catalog.

    Args:
        model: the network; left in eval mode.
        spec: what it is.
        catalog: where the pairs come from.
        pairs: scenes with labels.
        dtype: number format of convolutions.

    Returns:
        The confusion of all pixels that have a label, and the first window for a picture. Memory: one window.
    """
    model.eval()
    device = next(model.parameters()).device
    predictor = Predictor(
        model=model,
        spec=spec,
        branch="global" if model.arch.mode == "global" else "full",
        tiles=TileForm(spec.tile_px, usual_overlap(spec.tile_px)),
        device=device,
        dtype=dtype,
        batch=choose_batch(None, device),
        context_px=spec.context_px,
    )
    total: Confusion = np.zeros((spec.architecture.classes,) * 2, np.int64)
    first = None
    for pair in pairs:
        with open_pair(catalog, pair, spec) as scene:
            for seen in _windows(predictor, scene):
                total += confusion(seen.truth, seen.prediction, len(total))
                first = first or seen
    return total, first


def _windows(predictor: Predictor, scene: LabelledScene) -> Iterator[Seen]:
    """Every pixel of a scene's area in one window: where windows overlap, each keeps its half."""
    area, spec = scene.area, predictor.spec
    rows, columns = (context_axis(side, spec.context_px, spec.tile_px) for side in (area.height, area.width))
    for top, upper, lower in _halves(rows.offsets, rows.length):
        for left, before, after in _halves(columns.offsets, columns.length):
            image, truth = scene.read(Window(area.top + top, area.left + left, rows.length, columns.length))
            scores = torch.from_numpy(predictor.cell_scores(image))[None]
            best = F.interpolate(scores, truth.shape, mode="bilinear")[0].argmax(0).to(torch.uint8).numpy()
            kept = (slice(upper, lower), slice(before, after))
            yield Seen(image[:, *kept], truth[kept], best[kept])


def _halves(offsets: tuple[int, ...], length: int) -> Iterator[tuple[int, int, int]]:
    """Offset of every piece, and the part of it [start, stop) that ends half-way into the overlaps."""
    for i, offset in enumerate(offsets):
        start = (offsets[i - 1] + length - offset) // 2 if i else 0
        stop = (offset + length + offsets[i + 1]) // 2 - offset if i + 1 < len(offsets) else length
        yield offset, start, stop
