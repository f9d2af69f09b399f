"""The ground plan of the synthetic scene: river, lakes, roads and the blocks between them, all from one generator.

The plan is drawn with straight lines in metres (u along the river, v across it) and bent afterwards by one smooth
warp, so roads, plots and furrows curve together and stay consistent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenery.canvas import GSD_M
from scenery.shapes import Ring, chord, contains, cut, signed_area, split

MAIN, MINOR, STREET, TRACK = "main", "minor", "street", "track"
FIELDS, FOREST, TOWN, WORKS, LAKE, PIT, CORRIDOR = "fields", "forest", "town", "works", "lake", "pit", "corridor"

_FULL_SCENE_M = 2560.0
_TOWN_BLOCK_M2 = 8_500.0
_CLAIM_M2 = {LAKE: 400_000.0, PIT: 110_000.0, WORKS: 110_000.0}
_MARGIN_M = 130.0
# What a scene holds, with the reach in metres; a small scene has the first of them only.
_WANTED = [(TOWN, 540.0), (LAKE, 0.0), (WORKS, 0.0), (TOWN, 430.0), (LAKE, 0.0), (FOREST, 400.0), (PIT, 0.0)]
_MORE = [(TOWN, 350.0), (FOREST, 320.0), (WORKS, 0.0), (TOWN, 220.0), (FOREST, 280.0), (LAKE, 0.0), (TOWN, 280.0)]


@dataclass(frozen=True)
class Frame:
    """Maps the plan, metres along (u, v), to pixels (column, row): a warp, a rotation and a shift."""

    centre_px: Ring
    turn: Ring
    waves: tuple[tuple[Ring, float, Ring], ...]
    """Wave vector (1/m), phase and displacement (m) of each term of the warp."""

    def to_px(self, plan: Ring) -> Ring:
        """Return the pixels of points of the plan."""
        bent = plan.astype(float)
        for vector, phase, push in self.waves:
            bent += np.sin(plan @ vector + phase)[:, None] * push
        return bent @ self.turn.T / GSD_M + self.centre_px

    def to_plan(self, px: Ring) -> Ring:
        """Return the plan position of pixels, without the warp (up to some 60 m off)."""
        return (px - self.centre_px) * GSD_M @ self.turn


@dataclass(frozen=True)
class Road:
    """A straight piece of road of the plan, from `ends[0]` to `ends[1]`."""

    ends: Ring
    kind: str


@dataclass(frozen=True)
class Block:
    """A convex piece of land between roads and what it is used for; `urban` is above 0.5 in a town."""

    ring: Ring
    use: str
    urban: float


@dataclass(frozen=True)
class River:
    """The centre line, its width and where it bends: -1 to 1, positive where it turns from u to v."""

    line: Ring
    width_m: Ring
    bend: Ring


@dataclass(frozen=True)
class Spot:
    """A place that draws one use to the land around it."""

    at: Ring
    use: str
    reach_m: float


@dataclass(frozen=True)
class Plan:
    """All that is decided before a pixel is drawn; `scale` is 1 for 2.5 km and more, and less for a small scene."""

    frame: Frame
    scale: float
    river: River
    roads: tuple[Road, ...]
    blocks: tuple[Block, ...]


def make_plan(rng: np.random.Generator, width: int, height: int) -> Plan:
    """Decide the whole layout of a scene of `width` x `height` pixels."""
    extent_m = min(width, height) * GSD_M
    scale = float(np.clip(np.sqrt(extent_m / _FULL_SCENE_M), 0.3, 1))
    frame = _frame(rng, width, height, scale)
    land = frame.to_plan(_scene_ring(width, height, _MARGIN_M / GSD_M))
    middle_v = rng.uniform(-0.16, 0.16) * extent_m
    river = _river(rng, land, middle_v, scale)
    spots = _spots(rng, frame, (width, height), middle_v, scale)
    lines = _trunk_lines(rng, middle_v, extent_m, scale, spots[0])
    roads, pieces = [], [land]
    for point, direction, kind in lines:
        ends = chord(land, point, direction)
        if len(ends):
            roads.append(Road(ends, kind))
        pieces = [part for piece in pieces for part in cut(piece, point, direction) if len(part)]
    grower = _Grower(rng, scale, spots, roads, [])
    for piece in pieces:
        if abs(piece[:, 1].mean() - middle_v) < 60 * scale:
            grower.blocks.append(Block(piece, CORRIDOR, 0.0))
        else:
            grower.grow(piece)
    seen = _scene_ring(width, height, 60)
    kept = [block for block in grower.blocks if _touches(frame.to_px(block.ring), seen)]
    return Plan(frame, scale, river, tuple(grower.roads), tuple(kept))


def _scene_ring(width: int, height: int, margin_px: float) -> Ring:
    right, bottom = width + margin_px, height + margin_px
    return np.array([[-margin_px, -margin_px], [right, -margin_px], [right, bottom], [-margin_px, bottom]])


def _touches(ring: Ring, other: Ring) -> bool:
    return bool((ring.max(axis=0) > other.min(axis=0)).all() and (ring.min(axis=0) < other.max(axis=0)).all())


def _frame(rng: np.random.Generator, width: int, height: int, scale: float) -> Frame:
    turn = rng.uniform(0, np.pi)
    waves = []
    for _ in range(5):
        length, heading, push = scale * rng.uniform(600, 2000), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
        vector = 2 * np.pi / length * np.array([np.cos(heading), np.sin(heading)])
        waves.append((vector, rng.uniform(0, 6), 0.02 * length * np.array([np.cos(push), np.sin(push)])))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return Frame(np.array([width / 2, height / 2]), rotation, tuple(waves))


def _river(rng: np.random.Generator, land: Ring, middle_v: float, scale: float) -> River:
    """Draw a sine-generated curve (Langbein and Leopold, 1966) along the corridor."""
    step = 4.0
    at = np.arange(0, np.ptp(land[:, 0]) * 1.7, step)
    wander = np.cumsum(rng.normal(0, 0.02, len(at)))
    phase = 2 * np.pi * at / (480 * scale) + wander + rng.uniform(0, 6)
    swing = 0.9 + 0.35 * np.sin(2 * np.pi * at / (1900 * scale) + rng.uniform(0, 6))
    heading = swing * np.sin(phase)
    u, v = np.cumsum(np.cos(heading)) * step, np.cumsum(np.sin(heading)) * step
    window = max(3, int(700 * scale / step))
    trend = np.convolve(np.pad(v, window, "edge"), np.ones(window) / window, "same")[window:-window]
    v = (v - trend) * min(1.0, 72 * scale / np.abs(v - trend).max())
    line = np.stack([u - u[len(u) // 2] + land[:, 0].mean(), v + middle_v], axis=1)
    width = scale * (42 + 5 * np.sin(at / (90 * scale) + 1) + 4 * np.sin(at / (37 * scale)))
    turning = np.gradient(heading)
    return River(line, width, turning / np.abs(turning).max())


def _spots(rng: np.random.Generator, frame: Frame, size: tuple[int, int], middle_v: float, scale: float) -> list[Spot]:
    """Spread towns, lakes, works, pits and forests over the scene, each as far from the others as it can get."""
    extent = np.array(size) * GSD_M
    km2 = extent.prod() / 1e6 / scale**2
    uses = (_WANTED + _MORE * round(km2 / 3 + 1))[: max(4, round(km2 * 1.7))]
    spots: list[Spot] = []
    for use, reach in uses:
        tries = frame.to_plan(rng.uniform(0.1, 0.9, (60, 2)) * size)
        from_river = np.abs(tries[:, 1] - middle_v) / scale
        score = np.where(from_river > 170, 0.0, -1e6)
        if spots:
            away = np.hypot(*(tries[:, None] - np.array([spot.at for spot in spots])[None]).transpose(2, 0, 1))
            score += away.min(axis=1)
        if use == TOWN:
            score -= 1.0 * np.abs(from_river - 330) * scale
        spots.append(Spot(tries[np.argmax(score)], use, reach * scale * rng.uniform(0.85, 1.15)))
    return spots


def _trunk_lines(
    rng: np.random.Generator, middle_v: float, extent_m: float, scale: float, town: Spot
) -> list[tuple[Ring, Ring, str]]:
    """Return point, direction and kind of the roads that cross the whole scene."""
    lines = []
    for side, kind in ((-1, MINOR), (1, TRACK)):
        lines.append((np.array([0, middle_v + side * 112 * scale]), np.array([1.0, 0.0]), kind))
    tilt = rng.normal(0, 0.06)
    lines.append((town.at, np.array([np.cos(tilt), np.sin(tilt)]), MAIN))
    lean = rng.normal(0, 0.12)
    lines.append((town.at + np.array([rng.uniform(-60, 60), 0]), np.array([np.sin(lean), np.cos(lean)]), MAIN))
    if extent_m > 1200:
        away = np.copysign(rng.uniform(0.3, 0.42) * extent_m, -town.at[0])
        lines.append((np.array([away, 0]), np.array([np.sin(-lean), np.cos(lean)]), MINOR))
    return lines


@dataclass
class _Grower:
    """Splits land into blocks, and puts a road into every cut."""

    rng: np.random.Generator
    scale: float
    spots: list[Spot]
    roads: list[Road]
    blocks: list[Block]

    def grow(self, ring: Ring) -> None:
        area = abs(signed_area(ring))
        middle = ring.mean(axis=0)
        urban = self._urban(middle)
        claim = self._claim(ring)
        limit = _CLAIM_M2[claim] * self.scale**2 if claim else self._target(urban)
        if area < limit:
            self.blocks.append(Block(ring, claim or self._use(middle, urban), urban))
        else:
            parts, line = split(ring, self.rng, 0.05 if urban > 0.5 else 0.11)
            if len(line):
                self.roads.append(Road(line, self._kind(area, urban)))
            for part in parts:
                self.grow(part)

    def _urban(self, at: Ring) -> float:
        towns = [spot for spot in self.spots if spot.use == TOWN]
        wobble = 0.1 * np.sin(at[0] / 90 / self.scale) + 0.1 * np.sin(at[1] / 70 / self.scale + 1)
        near = [np.exp(-0.69 * (np.hypot(*(at - town.at)) / town.reach_m) ** 2) for town in towns]
        return float(max(near, default=0.0) + wobble)

    def _target(self, urban: float) -> float:
        if urban > 0.5:
            return _TOWN_BLOCK_M2 * self.rng.uniform(0.8, 1.5)
        return 150_000 * self.scale**2 * self.rng.uniform(0.7, 1.5)

    def _claim(self, ring: Ring) -> str:
        for spot in self.spots:
            if spot.use in _CLAIM_M2 and contains(ring, spot.at[None])[0]:
                return spot.use
        return ""

    def _use(self, at: Ring, urban: float) -> str:
        if urban > 0.5:
            return TOWN
        forests = [spot for spot in self.spots if spot.use == FOREST]
        if any(np.hypot(*(at - spot.at)) < spot.reach_m for spot in forests) or self.rng.random() < 0.08:
            return FOREST
        return FIELDS

    def _kind(self, area: float, urban: float) -> str:
        if urban > 0.42:
            return STREET if area < 120_000 else MINOR
        return MINOR if area > 420_000 * self.scale**2 else TRACK


def lake_ring(ring: Ring, rng: np.random.Generator) -> Ring:
    """Return a rounded shore that fills most of a convex block, as 180 points of the plan."""
    middle = ring.mean(axis=0)
    bearing = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    ray = np.stack([np.cos(bearing), np.sin(bearing)], axis=1)
    reach = np.full(len(bearing), np.inf)
    for here, there in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        edge = there - here
        across = ray[:, 0] * edge[1] - ray[:, 1] * edge[0]
        away = ((here[0] - middle[0]) * edge[1] - (here[1] - middle[1]) * edge[0]) / np.where(across == 0, 1e-9, across)
        reach = np.where(away > 0, np.minimum(reach, away), reach)
    spectrum = np.fft.rfft(reach)
    spectrum[3:] = 0
    inner = np.minimum(np.fft.irfft(spectrum, len(bearing)), reach)
    smooth = np.convolve(np.pad(inner, 14, "wrap"), np.hanning(29) / 14, "valid")
    ripple = sum(rng.uniform(0.2, 1) / k * np.sin(k * bearing + rng.uniform(0, 6)) for k in range(2, 14))
    return middle + ray * (smooth * np.clip(0.8 + 0.12 * ripple, 0.45, 0.92))[:, None]
