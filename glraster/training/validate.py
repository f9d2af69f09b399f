"""Score a network on labelled scenes, window by window.

Scenes are read and scored at the model's ground sample distance, and overlaps of windows are halved instead of blended:
faster than the map of `segment`, and about as good.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from glraster.catalog import IGNORE, CatalogUnion, Member
from glraster.config import ModelSpec
from glraster.labels.scenes import LabelledScene, open_member
from glraster.metrics import Confusion, confusion
from glraster.model.fold import FoldedGLNet
from glraster.model.glnet import GLNet
from glraster.raster.grid import Window, context_axis, usual_overlap
from glraster.segmentation.device import choose_batch
from glraster.segmentation.predict import Predictor, TileForm
from glraster.training.ddp import ALONE, Team
from glraster.training.log import ScoredWindow

_COMPARED = 8
"""Windows in which number formats are compared."""


def validate(
    model: GLNet,
    spec: ModelSpec,
    catalogs: CatalogUnion,
    dtype: torch.dtype = torch.float32,
    team: Team = ALONE,
) -> tuple[Confusion, ScoredWindow | None]:
    """Score a network on the val split of its catalogs.

    Args:
        model: the network; left in eval mode.
        spec: its description.
        catalogs: the scenes with their labels.
        dtype: number format of convolutions.
        team: the processes that share the windows.

    Returns:
        The confusion of all pixels that have a label, with a row for every group of classes, which holds the
        predictions of classes outside the group; and this process's first window for a picture, which is the first of
        all in the first process. Memory: one window.
    """
    predictor = _predictor(model, spec, dtype)
    classes = len(catalogs.classes)
    total: Confusion = np.zeros((classes + len(catalogs.groups), classes), np.int64)
    first, number = None, 0
    for member in catalogs.members("val"):
        with open_member(member) as scene:
            for window, own_part in _windows(scene.area, spec):
                number += 1
                if (number - 1) % team.size == team.rank:
                    scored = _score(predictor, scene, window, own_part)
                    total += confusion(scored.truth, scored.prediction, classes, len(total))
                    first = first or scored
    for row, group in zip(total[classes:], catalogs.groups, strict=True):
        row[list(group.members)] = 0
    if first is not None:
        first = replace(first, truth=np.where(first.truth < classes, first.truth, np.uint8(IGNORE)))
    return team.sum(torch.from_numpy(total).to(predictor.device)).cpu().numpy(), first


def bfloat16_agreement(model: GLNet, spec: ModelSpec, members: Sequence[Member]) -> float:
    """The share of cells that get the same class in float32 and in bfloat16, as `segment` computes them.

    Args:
        model: the network; left in eval mode.
        spec: its description.
        members: scenes, of which up to `_COMPARED` windows are compared, from as many scenes as possible.

    Returns:
        0 to 1. Memory: two networks in their inference form and one window.
    """
    exact, short = (_predictor(model, spec, torch.float32, folded_as=f) for f in (torch.float32, torch.bfloat16))
    same = cells = 0
    each = -(-_COMPARED // len(members))
    for member in members[:: max(1, len(members) // _COMPARED)][:_COMPARED]:
        with open_member(member) as scene:
            windows = [window for window, _ in _windows(scene.area, spec)]
            for window in windows[:: max(1, len(windows) // each)][:each]:
                image, _ = scene.read(window)
                one, other = (predictor.cell_scores(image).argmax(axis=0) for predictor in (exact, short))
                same += int((one == other).sum())
                cells += one.size
    return same / cells


def _predictor(model: GLNet, spec: ModelSpec, dtype: torch.dtype, folded_as: torch.dtype | None = None) -> Predictor:
    model.eval()
    device = next(model.parameters()).device
    branch = model.arch.branch
    return Predictor(
        model=model if folded_as is None else FoldedGLNet(model, branch, folded_as),
        spec=spec,
        branch=branch,
        tiles=TileForm(spec.tile_px, usual_overlap(spec.tile_px)),
        device=device,
        dtype=dtype,
        batch=choose_batch(None, device),
        context_px=spec.context_px,
    )


def _windows(area: Window, spec: ModelSpec) -> Iterator[tuple[Window, tuple[slice, slice]]]:
    """Windows that cover an area, and the part of each that no other one scores: overlaps are halved."""
    rows, columns = (context_axis(side, spec.context_px, spec.tile_px) for side in (area.height, area.width))
    for top, upper, lower in _halves(rows.offsets, rows.length):
        for left, before, after in _halves(columns.offsets, columns.length):
            window = Window(area.top + top, area.left + left, rows.length, columns.length)
            yield window, (slice(upper, lower), slice(before, after))


def _score(predictor: Predictor, scene: LabelledScene, window: Window, own_part: tuple[slice, slice]) -> ScoredWindow:
    image, truth = scene.read(window)
    scores = torch.from_numpy(predictor.cell_scores(image))[None]
    best = F.interpolate(scores, truth.shape, mode="bilinear")[0].argmax(0).to(torch.uint8).numpy()
    return ScoredWindow(image[:, *own_part], truth[own_part], best[own_part])


def _halves(offsets: tuple[int, ...], length: int) -> Iterator[tuple[int, int, int]]:
    """Offset of every window, and the part of it [start, stop) that ends half-way into the overlaps."""
    for i, offset in enumerate(offsets):
        start = (offsets[i - 1] + length - offset) // 2 if i else 0
        stop = (offset + length + offsets[i + 1]) // 2 - offset if i + 1 < len(offsets) else length
        yield offset, start, stop
