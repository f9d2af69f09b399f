"""What a segmentation will do and cost, worked out before anything is computed."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from glraster.config import Branch, ModelSpec
from glraster.model.fold import FoldedGLNet
from glraster.model.glnet import GLNet
from glraster.model.sharing import Tiling
from glraster.raster.grid import STRIDE, Window, WindowGrid
from glraster.segmentation.predict import TileForm

_BYTES_PER_LOGIT = 2

WindowPlace = tuple[int, int]
"""Row and column of a window among those of a scene."""


@dataclass(frozen=True)
class WindowPlan:
    """The context windows of a segmentation.

    `region` is the part of the scene to be mapped, in scene pixels; `places` those of the `windows` that it needs;
    `tiles` how each is cut; `context_px` the extent that a whole thumbnail stands for.
    """

    region: Window
    windows: WindowGrid
    places: tuple[WindowPlace, ...]
    tiles: TileForm
    context_px: int

    @property
    def window_px(self) -> tuple[int, int]:
        """Height and width of every window, in working pixels."""
        return self.windows.rows.length, self.windows.columns.length

    @property
    def window_cells(self) -> tuple[int, int]:
        """Rows and columns of cells of every window."""
        height, width = self.window_px
        return height // STRIDE, width // STRIDE

    @property
    def tiles_per_window(self) -> int:
        rows, columns = self.tiles.tiling(*self.window_px)
        return len(rows.offsets) * len(columns.offsets)

    def parts_bytes(self, classes: int) -> int:
        """Disk space that the parts will take."""
        rows, columns = self.window_cells
        return len(self.places) * classes * rows * columns * _BYTES_PER_LOGIT


@dataclass(frozen=True)
class Estimate:
    """What a plan is expected to cost; seconds and memory are rough."""

    windows: int
    tiles: int
    tera_flop: float
    parts_bytes: int
    memory_bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)


def estimate(
    plan: WindowPlan, spec: ModelSpec, branch: Branch, batch: int, device: torch.device, views: int
) -> Estimate:
    """Estimate the cost of a plan from the network's operation count and a moment's measurement of the device."""
    thumbnail = max(1, round(max(plan.window_px) * spec.thumbnail_px / plan.context_px))
    tiles = 0 if branch == "global" else plan.tiles_per_window
    flop = views * len(plan.places) * _window_flop(plan, spec, branch, thumbnail)
    height, width = plan.window_px
    window_bytes = 6 * height * width * spec.architecture.bands
    canvas_bytes = 4 * spec.architecture.classes * (tiles * plan.tiles.tile_px**2 + height * width) // STRIDE**2
    return Estimate(
        windows=len(plan.places),
        tiles=views * tiles * len(plan.places),
        tera_flop=flop / 1e12,
        parts_bytes=plan.parts_bytes(spec.architecture.classes),
        memory_bytes=400 * 2**20 + window_bytes + canvas_bytes + _network_bytes(plan, spec, batch),
        seconds=flop / _flop_per_second(device),
    )


def _window_flop(plan: WindowPlan, spec: ModelSpec, branch: Branch, thumbnail: int) -> int:
    """Floating-point operations for one window, counted on tensors without storage."""
    with torch.device("meta"), torch.inference_mode():
        model = GLNet(spec.architecture).eval()
        small = torch.empty(1, spec.architecture.bands, thumbnail, thumbnail)
    network = FoldedGLNet(model, branch)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        if branch == "global":
            network.global_logits(small)
            return int(counter.get_total_flops())
        rows, columns = plan.tiles.tiling(*plan.window_px)
        tiling = Tiling(rows.side, columns.side, rows.length, columns.length, rows.offsets, columns.offsets)
        shape = (plan.tiles_per_window, spec.architecture.bands, rows.length, columns.length)
        for _ in network.tile_logits(small, [torch.empty(*shape, device="meta")], tiling, branch):
            pass
    return int(counter.get_total_flops())


def _network_bytes(plan: WindowPlan, spec: ModelSpec, batch: int) -> int:
    """Weights, and the widest maps that are alive together in a pyramid at quarter resolution."""
    with torch.device("meta"):
        weights = sum(p.numel() for p in GLNet(spec.architecture).parameters())
    channels = 8 * spec.architecture.width
    return 4 * weights + 4 * batch * channels * (plan.tiles.tile_px // STRIDE) ** 2


def _flop_per_second(device: torch.device) -> float:
    """Speed of the device at the network's commonest operation, a 3x3 convolution of quarter-resolution maps."""
    maps = torch.rand(1, 128, 128, 128, device=device)
    layer = torch.nn.Conv2d(128, 128, 3, padding=1, device=device)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(4):
            start = time.perf_counter()
            layer(maps).sum().item()
            best = min(best, time.perf_counter() - start)
    return 2 * 128 * 128 * 9 * 128 * 128 / best
