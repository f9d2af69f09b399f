"""Turns the canvas into the picture a camera would take, a few rows at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenery.canvas import WATER, Canvas, Floats, Light, cast_shadows, row_tables

_HUE = np.array([0.9, 0.25, -0.5], np.float32)
_SHADE_LOSS = np.array([0.66, 0.60, 0.50], np.float32)
_HAZE = np.array([12.0, 13.0, 15.0], np.float32)
_PALE = 0.14
_SHORE_CELL = 16


@dataclass(frozen=True)
class Noise:
    """Smooth noise: a grid of random numbers, one per `cell` pixels, read as a cubic B-spline."""

    grid: Floats
    cell: int

    def rows(self, start: int, stop: int, width: int) -> Floats:
        """Return rows `start` to `stop`, (rows, width)."""
        lines = _spline(self.grid, np.arange(start, stop, dtype=np.float32) / self.cell)
        return _spline(lines.T, np.arange(width, dtype=np.float32) / self.cell).T


def _spline(grid: Floats, at: Floats) -> Floats:
    """Return the cubic B-spline of `grid` at `at` along the first axis."""
    base = at.astype(np.int32)
    t = (at - base)[:, None]
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    out = grid[base] * (weights[0] / 6)
    for k in (1, 2, 3):
        out += grid[base + k] * (weights[k] / 6)
    return out


def noise(rng: np.random.Generator, canvas: Canvas, cell: int) -> Noise:
    """Return noise with about unit spread for the whole canvas."""
    shape = (canvas.height // cell + 5, canvas.width // cell + 5)
    return Noise(rng.normal(0, 1.8, shape).astype(np.float32), cell)


@dataclass(frozen=True)
class Renderer:
    """All that is needed to render any rows of the scene on their own."""

    canvas: Canvas
    seed: int
    look: Floats
    """One row per quantity, one column per surface."""
    fields: dict[str, Noise]
    shore: Noise
    tables: Floats
    shadow: NDArray[np.uint8]
    tilt: tuple[float, float]
    seams: tuple[tuple[float, float, float], ...]
    """Flight strips: column at the top, columns per row, gain to the right."""

    def rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the picture of rows `start` to `stop`, (3, rows, width), every value at least 1."""
        top, bottom = max(start - 1, 0), min(stop + 1, self.canvas.height)
        radiance = self._radiance(top, bottom)
        pad = ((0, 0), (int(top == start), int(bottom == stop)), (1, 1))
        wide = np.pad(radiance, pad, "edge")
        soft = 0.25 * (wide[:, :-2] + wide[:, 2:]) + 0.5 * wide[:, 1:-1]
        soft = 0.22 * (soft[:, :, :-2] + soft[:, :, 2:]) + 0.56 * soft[:, :, 1:-1]
        rng = np.random.default_rng((self.seed, 1, start))
        soft += rng.standard_normal(soft.shape, np.float32) * np.float32(1.6)
        return np.clip(np.rint(soft), 1, 255).astype(np.uint8)

    def _radiance(self, top: int, bottom: int) -> Floats:
        """Return (3, rows, width) before the optics and the sensor; the same for any split of the rows."""
        canvas, width = self.canvas, self.canvas.width
        ids = canvas.ids[top:bottom]
        look = {name: np.take(values, ids) for name, values in zip(_LOOK, self.look, strict=True)}
        smooth = {name: field.rows(top, bottom, width) for name, field in self.fields.items()}
        patch = 0.6 * smooth["patch"] + 0.7 * smooth["region"]
        shade = 1 + look["mottle"] * (0.6 * smooth["mottle"] + 0.9 * smooth["tuft"]) + look["patch"] * patch
        shade += look["row_gain"] * self._furrows(look, smooth["region"], top, bottom)
        shade += look["grain"] * self._grain(top, bottom)
        shade += look["shore"] * (self.shore.rows(top, bottom, width) - 0.5)
        shade += canvas.relief[top:bottom] * np.float32(1 / 110)
        shade *= self._exposure(top, bottom)
        tint = look["hue"] * (0.7 * smooth["tint"] + 0.5 * smooth["region"])
        dark = self.shadow[top:bottom] * np.float32(1 / 255)
        out = np.empty((3, bottom - top, width), np.float32)
        for band, name in enumerate(("red", "green", "blue")):
            lit = shade * (1 + tint * _HUE[band]) * (1 - dark * _SHADE_LOSS[band])
            out[band] = look[name] * lit * 0.93 + _HAZE[band]
        return out

    def _furrows(self, look: dict[str, Floats], wobble: Floats, top: int, bottom: int) -> Floats:
        cols = np.arange(self.canvas.width, dtype=np.float32)
        rows = np.arange(top, bottom, dtype=np.float32)[:, None]
        at = look["per_col"] * cols + look["per_row"] * rows + 20 * wobble
        return np.take(self.tables, (at.astype(np.int32) & 4095) + look["table"].astype(np.int32))

    def _grain(self, top: int, bottom: int) -> Floats:
        dice = (np.random.default_rng((self.seed, 2, row)) for row in range(top, bottom))
        return np.stack([rng.standard_normal(self.canvas.width, np.float32) for rng in dice])

    def _exposure(self, top: int, bottom: int) -> Floats:
        """Return the brightness of the flight strips and the fall-off across the scene."""
        cols = np.arange(self.canvas.width, dtype=np.float32)
        rows = np.arange(top, bottom, dtype=np.float32)[:, None]
        gain = 1 + self.tilt[0] * (cols / self.canvas.width - 0.5) + self.tilt[1] * (rows / self.canvas.height - 0.5)
        for start, lean, step in self.seams:
            gain += step * np.clip((cols - start - lean * rows) / 24, 0, 1)
        return gain.astype(np.float32)


_LOOK = ("red", "green", "blue", "grain", "mottle", "patch", "hue", "shore", "row_gain", "per_col", "per_row", "table")


def make_renderer(canvas: Canvas, light: Light, seed: int, seams: tuple[tuple[float, float, float], ...]) -> Renderer:
    """Gather what the renderer needs; casts the shadows."""
    rng = np.random.default_rng((seed, 3))
    look = np.zeros((len(_LOOK), len(canvas.surfaces)), np.float32)
    for k, surface in enumerate(canvas.surfaces):
        per_px = 64 / surface.row_px
        textures = (surface.grain, surface.mottle, surface.patch, surface.hue, surface.shore, surface.row_gain)
        across = (-np.sin(surface.angle) * per_px, np.cos(surface.angle) * per_px)
        colour = np.array(surface.colour) * (1 - _PALE) + np.mean(surface.colour) * _PALE
        look[:, k] = (*colour, *textures, *across, surface.rows * 4096)
    cells = {"tuft": 3, "mottle": 9, "patch": 44, "tint": 75, "region": 210}
    fields = {name: noise(rng, canvas, cell) for name, cell in cells.items()}
    tilt = (rng.uniform(-0.09, 0.09), rng.uniform(-0.09, 0.09))
    shadow = cast_shadows(canvas, light)
    return Renderer(canvas, seed, look, fields, _shore(canvas), row_tables(rng), shadow, tilt, seams)


def _shore(canvas: Canvas) -> Noise:
    """Return how much water lies around each pixel, 0-1: low at the shore, high far out."""
    cell = _SHORE_CELL
    pad = ((cell, cell * 4 + -canvas.height % cell), (cell, cell * 4 + -canvas.width % cell))
    wet = np.pad(canvas.classes()[canvas.ids] == WATER, pad, "edge")
    blocks = wet.reshape(wet.shape[0] // cell, cell, wet.shape[1] // cell, cell)
    share = blocks.mean(axis=(1, 3), dtype=np.float32)
    for _ in range(2):
        wide = np.pad(share, 1, "edge")
        wide = (wide[:-2] + wide[1:-1] + wide[2:]) / 3
        share = (wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]) / 3
    return Noise(share, cell)
