"""Paints the open country: fields, orchards, hedges, forest, meadows and gravel pits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scenery.canvas import BARE, CROP, GSD_M, SWATH, TRAMLINE, VEGETATION, WATER, Colour, Surface
from scenery.plan import CORRIDOR, FIELDS, FOREST, LAKE, PIT, Block, Plan, lake_ring
from scenery.shapes import Ring, across, contains, cut, densify, halve_down, inset, long_axis, walk
from scenery.sketch import BROADLEAF, CONIFER, HEAP, SHRUB, Sketch, Tree


class _Crop(NamedTuple):
    """How often a crop is grown and how it looks; `rows_m` is the spacing of its rows."""

    chance: float
    cls: int
    colour: Colour
    rows: int
    rows_m: float
    row_gain: float
    mottle: float
    patch: float
    hue: float


_CROPS = (
    _Crop(0.20, VEGETATION, (96, 116, 64), TRAMLINE, 1.1, 0.05, 0.03, 0.06, 0.05),
    _Crop(0.10, VEGETATION, (128, 136, 82), TRAMLINE, 1.1, 0.06, 0.03, 0.07, 0.05),
    _Crop(0.13, VEGETATION, (110, 128, 72), SWATH, 1.6, 0.04, 0.04, 0.08, 0.07),
    _Crop(0.08, VEGETATION, (136, 144, 92), SWATH, 4.0, 0.08, 0.04, 0.05, 0.05),
    _Crop(0.10, VEGETATION, (80, 106, 54), CROP, 1.6, 0.10, 0.04, 0.08, 0.05),
    _Crop(0.03, VEGETATION, (168, 162, 70), TRAMLINE, 1.1, 0.05, 0.04, 0.05, 0.04),
    _Crop(0.15, BARE, (142, 118, 94), CROP, 2.2, 0.07, 0.05, 0.13, 0.03),
    _Crop(0.12, BARE, (172, 150, 120), SWATH, 2.0, 0.05, 0.04, 0.11, 0.03),
    _Crop(0.07, BARE, (120, 98, 80), CROP, 2.0, 0.08, 0.05, 0.13, 0.03),
    _Crop(0.08, BARE, (194, 174, 134), SWATH, 3.0, 0.06, 0.03, 0.07, 0.03),
)
_CHANCES = np.array([crop.chance for crop in _CROPS]) / sum(crop.chance for crop in _CROPS)
_GRASS: tuple[Colour, ...] = ((104, 122, 68), (116, 130, 76), (94, 114, 62), (124, 134, 84))
_GRAVEL: tuple[Colour, ...] = ((150, 138, 110), (192, 176, 146))


def paint_country(sketch: Sketch, plan: Plan) -> None:
    """Paint everything outside the towns but the roads and the water."""
    sketch.canvas.add(Surface(VEGETATION, (106, 120, 72), mottle=0.06, patch=0.08, hue=0.07))
    painters = {FIELDS: _fields, FOREST: _forest, PIT: _pit, LAKE: _meadows, CORRIDOR: _meadows}
    for block in plan.blocks:
        if block.use in painters:
            painters[block.use](sketch, block)


def _fields(sketch: Sketch, block: Block) -> None:
    rng = sketch.rng
    for plot in _plots(sketch, inset(block.ring, 5.0), rng.uniform(9_000, 32_000)):
        if rng.random() < 0.05:
            _orchard(sketch, plot)
        else:
            _crop(sketch, plot)
        if rng.random() < 0.22:
            edge = rng.integers(len(plot))
            _hedge(sketch, plot[[edge, (edge + 1) % len(plot)]])


def _plots(sketch: Sketch, land: Ring, target_m2: float) -> list[Ring]:
    """Divide land into near squares or into long strips."""
    rng = sketch.rng
    if rng.random() < 0.45 or not len(land):
        return halve_down(land, rng, target_m2)
    along = long_axis(land)
    aside = across(along)
    if rng.random() < 0.4:
        along, aside = aside, -along
    low, high = (land @ aside).min(), (land @ aside).max()
    edges = np.cumsum(rng.uniform(0.5, 1.5, max(2, round((high - low) / rng.uniform(38, 80)))))
    plots = []
    for at in low + edges[:-1] / edges[-1] * (high - low):
        land, strip = cut(land, aside * at, along)
        plots += halve_down(strip, rng, target_m2 * 1.6)
        if not len(land):
            return plots
    return [*plots, land]


def _crop(sketch: Sketch, plot: Ring) -> None:
    """Sow one plot: rows along its long side, and across them on the headland."""
    rng = sketch.rng
    crop = _CROPS[rng.choice(len(_CROPS), p=_CHANCES)]
    along = sketch.heading(plot.mean(axis=0), long_axis(plot))
    colour = sketch.vary(crop.colour, 8)
    for edge_m, shade, way in ((rng.uniform(0.4, 1.4), sketch.vary(colour, 2), across(along)), (11.0, colour, along)):
        surface = Surface(
            crop.cls,
            shade,
            grain=0.03,
            mottle=crop.mottle,
            patch=crop.patch,
            hue=crop.hue,
            rows=crop.rows,
            row_gain=crop.row_gain,
            row_px=max(2.2, crop.rows_m / GSD_M),
            angle=float(np.arctan2(way[1], way[0])),
        )
        sketch.cover(inset(plot, edge_m), surface)


def _orchard(sketch: Sketch, plot: Ring) -> None:
    rng = sketch.rng
    grass = Surface(VEGETATION, sketch.vary((120, 128, 82)), mottle=0.06, patch=0.08, hue=0.05)
    sketch.cover(inset(plot, 0.8), grass)
    inner = inset(plot, 5.0)
    if not len(inner):
        return
    along = long_axis(plot)
    turn = np.array([along, across(along)])
    low, high = (inner @ turn.T).min(axis=0), (inner @ turn.T).max(axis=0)
    u, v = np.meshgrid(np.arange(low[0], high[0], 4.5), np.arange(low[1], high[1], 6.0))
    spots = (np.stack([u.ravel(), v.ravel()], 1) + rng.normal(0, 0.3, (u.size, 2))) @ turn
    for at in sketch.frame.to_px(spots[contains(inner, spots)]):
        if rng.random() < 0.95:
            sketch.trees.append(Tree(at, rng.uniform(2.6, 3.9), 3.5, SHRUB))


def _hedge(sketch: Sketch, ends: Ring) -> None:
    rng = sketch.rng
    tall, gap = rng.random() < 0.5, rng.uniform(0, 6)
    for k, (at, _) in enumerate(walk(sketch.frame.to_px(densify(ends, 8, closed=False)), 4.5)):
        if np.sin(k * 0.11 + gap) + rng.normal(0, 0.5) < 0.9:
            radius = rng.uniform(3, 7.5) if tall else rng.uniform(2, 4)
            sketch.grow(at + rng.normal(0, 1.6, 2), radius, BROADLEAF if tall else SHRUB)


def _forest(sketch: Sketch, block: Block) -> None:
    rng = sketch.rng
    for plot in halve_down(inset(block.ring, 3.0), rng, 70_000):
        inner = inset(plot, 1.0)
        if rng.random() < 0.07 or not len(inner):
            _crop(sketch, plot)
            continue
        edge = densify(inner, 7)
        floor = Surface(VEGETATION, sketch.vary((66, 76, 48), 2), grain=0.1, mottle=0.1, hue=0.03)
        ring = sketch.frame.to_px(edge + rng.normal(0, 1.6, edge.shape))
        conifers = float(rng.choice([0.05, 0.3, 0.9], p=[0.5, 0.25, 0.25]))
        plant_wood(sketch, ring, floor, conifers, rng.uniform(8.5, 11.5))


def plant_wood(sketch: Sketch, ring: Ring, floor: Surface, conifers: float, spacing_px: float) -> None:
    """Cover any ring, in pixels, with forest floor and plan trees on what of it shows."""
    rng, canvas = sketch.rng, sketch.canvas
    ink = canvas.add(floor)
    canvas.fill([(ring, ink)])
    low = np.maximum(ring.min(axis=0), -8)
    high = np.minimum(ring.max(axis=0), (canvas.width + 8, canvas.height + 8))
    cols, rows = np.meshgrid(*(np.arange(a, max(a, b), spacing_px) for a, b in zip(low, high, strict=True)))
    spots = np.stack([cols.ravel(), rows.ravel()], 1) + rng.uniform(-0.5, 0.5, (cols.size, 2)) * spacing_px
    spots = spots[canvas.ids_at(spots) == ink]
    mix = 0.35 * np.sin(spots[:, 0] / 90) * np.sin(spots[:, 1] / 70) + rng.normal(0, 0.15, len(spots))
    for at, more in zip(spots, mix, strict=True):
        kind = CONIFER if conifers + more > 0.5 else BROADLEAF
        radius = spacing_px * (rng.uniform(0.42, 0.62) if kind == CONIFER else rng.uniform(0.48, 0.86))
        sketch.trees.append(Tree(at, radius, 10 + radius * rng.uniform(0.5, 1.4), kind))


def _meadows(sketch: Sketch, block: Block) -> None:
    rng = sketch.rng
    for plot in halve_down(inset(block.ring, 4.0), rng, 14_000):
        colour = sketch.vary(sketch.pick(_GRASS), 5)
        sketch.cover(plot, Surface(VEGETATION, colour, mottle=0.07, patch=0.1, hue=0.08))
        for _ in range(rng.poisson(2.0)):
            at = sketch.point(plot.mean(axis=0) + rng.normal(0, 28, 2))
            for _ in range(rng.integers(1, 14)):
                radius = rng.uniform(3, 9)
                sketch.grow(at + rng.normal(0, 16, 2), radius, BROADLEAF if radius > 4.5 else SHRUB)


def _pit(sketch: Sketch, block: Block) -> None:
    """Paint a gravel pit: benches, heaps and a pond."""
    rng, frame, canvas = sketch.rng, sketch.frame, sketch.canvas
    shore = lake_ring(block.ring, rng)
    middle = shore.mean(axis=0)
    shapes = []
    for k, share in enumerate((1.06, 1.0, 0.9, 0.82, 0.7, 0.6)):
        ring = middle + (shore - middle) * share + rng.normal(0, 0.8, shore.shape)
        surface = Surface(BARE, sketch.vary(_GRAVEL[k % 2], 7), mottle=0.09, patch=0.14, hue=0.02)
        shapes.append((frame.to_px(ring), canvas.add(surface)))
    pond = middle + (shore - middle) * 0.26 + np.ptp(shore, axis=0) * rng.uniform(-0.12, 0.12, 2)
    shapes.append((frame.to_px(pond), canvas.add(Surface(WATER, (86, 124, 116), mottle=0.02, patch=0.03, shore=-0.3))))
    canvas.fill(shapes)
    for _ in range(rng.integers(14, 26)):
        at = sketch.point(middle + (shore[rng.integers(len(shore))] - middle) * rng.uniform(0.4, 0.85))
        for _ in range(rng.integers(1, 6)):
            sketch.grow(at + rng.normal(0, 14, 2), rng.uniform(7, 22), HEAP)
