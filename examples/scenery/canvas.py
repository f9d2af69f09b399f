"""The canvas of the synthetic scene: what covers each pixel, how high it stands, and how that looks from above.

Every pixel holds the number of one surface. The class mask and the picture are both read from that number, so the
truth is exact by construction. Rings are `(N, 2)` float arrays of (column, row) in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize

from scenery.shapes import Ring

GSD_M = 0.5
BUILDING, BARE, ROAD, VEGETATION, WATER = range(5)
CLASS_NAMES = ("building", "bare land", "road", "vegetation", "water")
HEIGHT_UNIT_M = 0.25

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]

# Brightness across the rows of a field or a roof: 64 entries per row, 64 rows, then it repeats.
PLAIN, CROP, TRAMLINE, SWATH, SHEET = range(5)
_TABLE_LEN = 4096


@dataclass(frozen=True)
class Surface:
    """One kind of ground: its class, its colour (0-255) and how strongly each texture modulates it."""

    cls: int
    colour: Colour
    grain: float = 0.035
    mottle: float = 0.04
    patch: float = 0.05
    hue: float = 0.0
    shore: float = 0.0
    rows: int = PLAIN
    row_gain: float = 0.0
    row_px: float = 4.0
    angle: float = 0.0


@dataclass(frozen=True)
class Light:
    """The sun: where shadows fall (up the image, `slant` columns per row), and how fast they sink per row."""

    slant: float
    drop_m: float
    toward_sun: tuple[float, float]
    """Unit vector (column, row) that points to the sun."""


def sun(azimuth_deg: float, elevation_deg: float) -> Light:
    """Return the light of a sun in the southern half of the sky."""
    azimuth = np.radians(azimuth_deg)
    toward = (float(np.sin(azimuth)), float(-np.cos(azimuth)))
    per_row_m = GSD_M / toward[1]
    return Light(-toward[0] / toward[1], float(per_row_m * np.tan(np.radians(elevation_deg))), toward)


@dataclass
class Canvas:
    """Surface numbers, heights and shading of the whole scene; about 5 bytes per pixel."""

    width: int
    height: int
    surfaces: list[Surface] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape = (self.height, self.width)
        self.ids = np.zeros(shape, np.uint16)
        self.tops = np.zeros(shape, np.uint8)
        self.relief = np.zeros(shape, np.int8)
        self._index: dict[Surface, int] = {}
        self._classes = np.zeros(0, np.uint8)

    def add(self, surface: Surface) -> int:
        """Return the number of `surface`, a new one if it was not seen before."""
        if surface not in self._index:
            if len(self.surfaces) > np.iinfo(np.uint16).max:
                raise ValueError("this scene needs more than 65,536 surfaces: make it smaller")
            self._index[surface] = len(self.surfaces)
            self.surfaces.append(surface)
        return self._index[surface]

    def fill(self, shapes: Iterable[tuple[Ring, int]]) -> None:
        """Cover each ring with its surface number, later ones over earlier ones."""
        _burn(self.ids, shapes, "Polygon")

    def stroke(self, shapes: Iterable[tuple[Ring, int]]) -> None:
        """Draw each polyline one pixel wide."""
        _burn(self.ids, shapes, "LineString")

    def lift(self, shapes: Iterable[tuple[Ring, float]]) -> None:
        """Set the height of each ring, in metres; what stood there before no longer shows its relief."""
        shapes = list(shapes)
        _burn(self.tops, [(ring, round(metres / HEIGHT_UNIT_M)) for ring, metres in shapes], "Polygon")
        _burn(self.relief, [(ring, 0) for ring, _ in shapes], "Polygon")

    def classes(self) -> NDArray[np.uint8]:
        """Return the class of every surface number."""
        if len(self._classes) != len(self.surfaces):
            self._classes = np.array([surface.cls for surface in self.surfaces], np.uint8)
        return self._classes

    def ids_at(self, points: Ring) -> NDArray[np.uint16]:
        """Return the surface numbers under `points`; a point outside takes the nearest pixel."""
        cols = np.clip(points[:, 0].astype(int), 0, self.width - 1)
        rows = np.clip(points[:, 1].astype(int), 0, self.height - 1)
        return self.ids[rows, cols]

    def class_at(self, points: Ring) -> NDArray[np.uint8]:
        """Return the classes under `points`."""
        return self.classes()[self.ids_at(points)]

    def sees(self, ring: Ring, margin: float = 0.0) -> bool:
        """Tell whether the box of `ring` touches the scene."""
        low, high = ring.min(axis=0) - margin, ring.max(axis=0) + margin
        return bool(high[0] > 0 and high[1] > 0 and low[0] < self.width and low[1] < self.height)


def _burn(out: NDArray[np.generic], shapes: Iterable[tuple[Ring, int]], kind: str) -> None:
    """Rasterize shapes into the box that they cover; a call over the whole scene would cost 0.1 s each."""
    shapes = list(shapes)
    if not shapes:
        return
    low = np.min([ring.min(axis=0) for ring, _ in shapes], axis=0).astype(int) - 2
    high = np.max([ring.max(axis=0) for ring, _ in shapes], axis=0).astype(int) + 3
    low, high = np.maximum(low, 0), np.minimum(high, out.shape[::-1])
    if (high <= low).any():
        return
    geometries = []
    for ring, value in shapes:
        points = (ring - low).tolist()
        closed = [[*points, points[0]]] if kind == "Polygon" else points
        geometries.append(({"type": kind, "coordinates": closed}, value))
    here = (slice(low[1], high[1]), slice(low[0], high[0]))
    box = np.ascontiguousarray(out[here])
    rasterize(geometries, out=box)
    out[here] = box


@dataclass(frozen=True)
class Stamp:
    """A tree crown or a heap seen from above: height as a share of the top, -1 outside, and its shading."""

    height: Floats
    relief: NDArray[np.int8]


def crown_stamps(rng: np.random.Generator, light: Light, radii_px: Sequence[int], lobes: int) -> dict[int, list[Stamp]]:
    """Return eight crowns per radius; many `lobes` make a broadleaf, none a conifer."""
    return {radius: [_crown(rng, light, radius, lobes) for _ in range(8)] for radius in radii_px}


def _crown(rng: np.random.Generator, light: Light, radius: int, lobes: int) -> Stamp:
    y, x = np.mgrid[-radius - 1 : radius + 2, -radius - 1 : radius + 2].astype(np.float32)
    bend = np.arctan2(y, x)
    edge = radius * (1 + 0.10 * np.sin(3 * bend + rng.uniform(0, 6)) + 0.08 * np.sin(5 * bend + rng.uniform(0, 6)))
    reach = np.hypot(x, y) / edge
    body = 1 - reach if lobes == 0 else np.sqrt(np.clip(1 - reach**2, 0, None)) * 0.75
    for _ in range(lobes):
        where, turn = radius * np.sqrt(rng.uniform(0, 0.6)), rng.uniform(0, 2 * np.pi)
        size = radius * rng.uniform(0.3, 0.5)
        away = ((x - where * np.cos(turn)) ** 2 + (y - where * np.sin(turn)) ** 2) / size**2
        body = np.maximum(
            body, np.sqrt(np.clip(1 - away, 0, None)) * 0.3 + (1 - where / radius) * 0.5 + 0.2 * (away < 1)
        )
    body = np.where(reach <= 1, np.clip(body, 0.05, 1), -1).astype(np.float32)
    slope_row, slope_col = np.gradient(np.clip(body, 0, None) * radius * 0.9)
    lit = -(slope_col * light.toward_sun[0] + slope_row * light.toward_sun[1])
    shade = 34 * np.tanh(lit) + 14 * (body - 0.5) + rng.normal(0, 7, body.shape)
    return Stamp(body, np.clip(shade, -70, 70).astype(np.int8))


def plant(canvas: Canvas, stamp: Stamp, col: float, row: float, top_m: float, surface: int) -> None:
    """Stamp one crown centred at (col, row) wherever it stands higher than what is there."""
    size = stamp.height.shape[0]
    left, top = int(col) - size // 2, int(row) - size // 2
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + size, canvas.width), min(top + size, canvas.height)
    if x0 >= x1 or y0 >= y1:
        return
    here = (slice(y0, y1), slice(x0, x1))
    part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    share = stamp.height[part]
    height = ((0.45 + 0.55 * share) * (top_m / HEIGHT_UNIT_M)).astype(np.uint8)
    wins = (share >= 0) & (height > canvas.tops[here])
    canvas.tops[here][wins] = height[wins]
    canvas.ids[here][wins] = surface
    canvas.relief[here][wins] = stamp.relief[part][wins]


def cast_shadows(canvas: Canvas, light: Light) -> NDArray[np.uint8]:
    """Return how deep each pixel lies in shadow, 0-255, by one sweep up the rows."""
    shadow = np.zeros(canvas.ids.shape, np.uint8)
    drop = light.drop_m / HEIGHT_UNIT_M
    level = np.zeros(canvas.width, np.float32)
    for row in range(canvas.height - 1, -1, -1):
        own = canvas.tops[row].astype(np.float32)
        shadow[row] = np.clip((level - own) * 85.0, 0, 255)
        level = np.maximum(level, own) - np.float32(drop)
        step = round((row - 1) * light.slant) - round(row * light.slant)
        if step:
            level = np.roll(level, -step)
            level[min(-step, 0) or None : max(-step, 0) or None] = 0
    return shadow


def row_tables(rng: np.random.Generator) -> Floats:
    """Return the brightness across rows, flat: `PLAIN, CROP, TRAMLINE, SWATH, SHEET`, 4096 entries each."""
    at = np.arange(_TABLE_LEN)
    wave = np.sin(at * (2 * np.pi / 64))
    per_row = np.repeat(rng.normal(0, 0.5, 64), 64)
    slow = np.interp(at, np.arange(0, _TABLE_LEN + 64, 64), np.resize(rng.normal(0, 1, 64), 65))
    slower = np.interp(at, np.arange(0, _TABLE_LEN + 512, 512), np.resize(rng.normal(0, 1, 8), 9))
    wheel = np.isin(at // 32 % 32, (0, 1, 6, 7)).astype(float)
    tables = np.zeros((5, _TABLE_LEN))
    tables[CROP] = 0.6 * wave + 0.7 * per_row + 0.5 * slower
    tables[TRAMLINE] = 0.25 * wave + 0.4 * slow + 0.5 * slower - 1.8 * wheel
    tables[SWATH] = slow + 0.5 * slower
    tables[SHEET] = wave
    return tables.astype(np.float32).ravel()
