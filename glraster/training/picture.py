"""A scored window as a picture: image, truth and prediction side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from glraster.config import LandClass
from glraster.files import replacing

_WIDTH_PX = 1536


@dataclass(frozen=True)
class Seen:
    """One scored window: image (bands, H, W) in the scene's values, truth and prediction (H, W) as class indexes."""

    image: npt.NDArray[Any]
    truth: npt.NDArray[np.uint8]
    prediction: npt.NDArray[np.uint8]


def write_picture(path: Path, seen: Seen, classes: tuple[LandClass, ...], scale: float) -> tuple[int, int]:
    """Write a window as a PNG of at most 1536 px width; it appears whole or not at all.

    Args:
        path: where.
        seen: the window.
        classes: for their colours; pixels without a class are black.
        scale: the image value that is white.

    Returns:
        (height, width) of the picture.
    """
    step = max(1, -(-3 * seen.image.shape[2] // _WIDTH_PX))
    bands = seen.image[[0, 1, 2] if len(seen.image) >= 3 else [0, 0, 0], ::step, ::step]
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(classes)] = [c.color for c in classes]
    pictures = [np.clip(bands * (255 / scale), 0, 255).astype(np.uint8)]
    pictures += [colours[labels[::step, ::step]].transpose(2, 0, 1) for labels in (seen.truth, seen.prediction)]
    joined = np.concatenate(pictures, axis=2)
    height, width = joined.shape[1:]
    form = {"driver": "PNG", "count": 3, "dtype": "uint8", "height": height, "width": width}
    with replacing(path) as beside, rasterio.open(beside, "w", **form) as png:
        png.write(joined)
    return height, width
