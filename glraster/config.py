"""Frozen records that describe a model: its classes, its network, and the imagery it was trained on."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["global", "local", "full", "tiles"]
"""What a model holds: the global branch alone, global → local, both ways, or a local branch without any context."""

Branch = Literal["global", "local", "full"]
"""Whose logits are asked for: the global head, the local head, or the aggregation of both."""

NODATA = 255
"""Mask value of a pixel without class."""


_NOT_PLAIN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What steers a terminal or breaks XML: control characters, line separators, halves of surrogate pairs."""


def is_plain(text: str) -> bool:
    """Whether a text can be shown anywhere: it has no control characters and no halves of surrogate pairs."""
    return _NOT_PLAIN.search(text) is None


def plain(text: str) -> str:
    """A text with U+FFFD in place of what `is_plain` refuses."""
    return _NOT_PLAIN.sub("\ufffd", text)


@dataclass(frozen=True)
class LandClass:
    """One class: `id` is its value in masks (0 to 254), `color` is RGB, 0 to 255."""

    id: int
    name: str
    color: tuple[int, int, int]


def class_color(class_id: int) -> tuple[int, int, int]:
    """The colour of a class that has none of its own: hues a golden section apart, so that near ids look unlike."""
    red, green, blue = colorsys.hsv_to_rgb(class_id * 0.618034 % 1, 0.75, 0.9 if class_id % 2 == 0 else 0.65)
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass(frozen=True)
class Architecture:
    """Everything that decides the shapes of a GLNet's weights.

    `bands` input channels; `classes` output channels; `backbone` is resnet18, resnet34, resnet50, or an
    EfficientNet-Lite: lite0, lite1, lite2; `width` channels of the feature pyramid (256 in the paper; its heads have
    half of it per level); `stem` channels of a ResNet's first stage (64 in the paper; the others have 2, 4 and 8 times
    as many), 32 for an EfficientNet-Lite.
    """

    mode: Mode
    bands: int
    classes: int
    backbone: str = "resnet50"
    width: int = 256
    stem: int = 64

    @property
    def branch(self) -> Branch:
        """The branch whose logits are the model's answer."""
        return {"global": "global", "tiles": "local"}.get(self.mode, "full")  # type: ignore[return-value]


@dataclass(frozen=True)
class ModelSpec:
    """What `segment` must know of a model besides its weights.

    Pixels become network input as `(value / scale - mean) / std`, bands last broadcast; `dtype` is the pixel
    type the model was trained on. `gsd_m` is metres per pixel (None: any), `context_px` the extent the global
    branch sees, `tile_px` the side of a local tile, `thumbnail_px` the side of the downsampled context.
    `bfloat16_agreement` is the share of validation pixels that keep their label when convolutions are computed in
    bfloat16 (None: not measured).
    """

    architecture: Architecture
    classes: tuple[LandClass, ...]
    dtype: str = "uint8"
    scale: float = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    gsd_m: float | None = None
    context_px: int = 2448
    tile_px: int = 508
    thumbnail_px: int = 508
    bfloat16_agreement: float | None = None
    provenance: Mapping[str, object] = field(default_factory=dict)
