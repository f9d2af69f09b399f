"""Encode arrays as small pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

Color = tuple[int, int, int]
UInt8Array = npt.NDArray[np.uint8]

CONFIDENCE_STEPS = 20
_JPEG_QUALITY = 80

# cividis: brightness grows evenly, also for readers with a colour vision deficiency
# (Nunez, Anderton and Renslow 2018, PLOS ONE 13(7))
_CIVIDIS = ((0, 32, 76), (0, 42, 102), (53, 62, 108), (85, 84, 109), (113, 107, 114), (140, 131, 117), (170, 157, 114),
            (201, 184, 102), (233, 212, 82), (255, 233, 69))  # fmt: skip

WRONG_COLOR: Color = (213, 94, 0)
RIGHT_COLOR: Color = (255, 255, 255)


@dataclass(frozen=True)
class Picture:
    """An encoded picture and its size in pixels."""

    mime: str
    data: bytes
    width: int
    height: int

    @property
    def uri(self) -> str:
        """The picture as a data URI, for a page without other files."""
        return f"data:{self.mime};base64,{base64.b64encode(self.data).decode('ascii')}"


def photo(pixels: UInt8Array) -> Picture:
    """Encode (H, W, 3) pixels as JPEG."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_JPEG_QUALITY, optimize=True, progressive=True)
    return Picture("image/jpeg", stream.getvalue(), pixels.shape[1], pixels.shape[0])


def class_picture(indexes: UInt8Array, colors: Sequence[Color]) -> Picture:
    """Encode (H, W) class indexes as PNG in the classes' colours; other indexes are transparent."""
    count = len(colors)
    image = Image.fromarray(np.minimum(indexes, count).astype(np.uint8), "P")
    image.putpalette([channel for color in (*colors, (255, 255, 255)) for channel in color])
    stream = BytesIO()
    image.save(stream, "PNG", optimize=True, transparency=bytes([255] * count + [0]))
    return Picture("image/png", stream.getvalue(), indexes.shape[1], indexes.shape[0])


def confidence_picture(percent: UInt8Array) -> Picture:
    """Encode (H, W) percentages as PNG, in steps of 5 from dark to bright; values over 100 are transparent."""
    steps = np.where(percent > 100, CONFIDENCE_STEPS, np.minimum(percent // 5, CONFIDENCE_STEPS - 1))
    return class_picture(steps.astype(np.uint8), confidence_colors())


def confidence_colors() -> tuple[Color, ...]:
    """The colours of the steps of confidence, the lowest first."""
    places = np.linspace(0, len(_CIVIDIS) - 1, CONFIDENCE_STEPS)
    channels = [np.interp(places, range(len(_CIVIDIS)), [c[i] for c in _CIVIDIS]) for i in range(3)]
    return tuple((round(r), round(g), round(b)) for r, g, b in zip(*channels, strict=True))


def error_picture(truth: UInt8Array, prediction: UInt8Array, classes: int) -> Picture:
    """Encode the differences of two maps (H, W) of class indexes: white if equal, transparent if one has no class."""
    known = (truth < classes) & (prediction < classes)
    return class_picture(np.where(known, truth != prediction, 2).astype(np.uint8), (RIGHT_COLOR, WRONG_COLOR))


def distinct(colors: Sequence[Color]) -> tuple[Color, ...]:
    """The same colours, with each repeated one changed by an invisible step so that no two are equal."""
    unique: list[Color] = []
    for color in colors:
        red, green, blue = color
        while (red, green, blue) in unique:
            blue = blue + 1 if blue < 255 else 0
        unique.append((red, green, blue))
    return tuple(unique)
