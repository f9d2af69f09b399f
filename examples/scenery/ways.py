"""Paints the water and the roads: the river and its banks, lakes, tracks, streets, main roads and bridges."""

from __future__ import annotations

import numpy as np

from scenery.canvas import BARE, GSD_M, HEIGHT_UNIT_M, ROAD, VEGETATION, WATER, Colour, Surface
from scenery.plan import LAKE, MAIN, MINOR, STREET, TRACK, Block, Plan, lake_ring
from scenery.shapes import Ring, densify, ribbon, walk
from scenery.sketch import Sketch

_LAKES: tuple[Colour, ...] = ((52, 80, 82), (58, 86, 72), (66, 84, 66), (48, 72, 84))
_WIDTH_M = {MAIN: 11.0, MINOR: 6.6, STREET: 6.0, TRACK: 3.4}
_DECK_M = 4.5
_VERGE_M = {MAIN: 3.5, MINOR: 2.2, STREET: 0.0, TRACK: 0.8}
_ASPHALT: dict[str, Colour] = {MAIN: (110, 109, 107), MINOR: (127, 125, 121), STREET: (119, 117, 114)}


def paint_water(sketch: Sketch, plan: Plan) -> None:
    """Paint the river with its gravel bars, the lakes and the trees on their banks."""
    river, frame, canvas, rng = plan.river, sketch.frame, sketch.canvas, sketch.rng
    half = river.width_m / 2
    bank = canvas.add(Surface(VEGETATION, (90, 102, 62), grain=0.08, mottle=0.1, hue=0.05))
    gravel = canvas.add(Surface(BARE, (180, 168, 142), grain=0.05, mottle=0.08, patch=0.08))
    water = canvas.add(Surface(WATER, (74, 92, 80), grain=0.02, mottle=0.02, patch=0.07, hue=0.05, shore=-0.42))
    bar = 26 * sketch.scale * np.clip(np.abs(river.bend) - 0.35, 0, None)
    left, right = np.where(river.bend < 0, bar, 0), np.where(river.bend > 0, bar, 0)
    shapes = [(ribbon(river.line, -half - 4, half + 4), bank)]
    shapes.append((ribbon(river.line, -half - left - 0.5, half + right + 0.5), gravel))
    shapes.append((ribbon(river.line, -half, half), water))
    for block in plan.blocks:
        if block.use == LAKE:
            shapes += _lake(sketch, block)
    canvas.fill([(frame.to_px(ring), ink) for ring, ink in shapes])
    ring = frame.to_px(ribbon(river.line, -half - 7, half + 7))
    for k, at in enumerate(ring):
        lush = np.sin(k / 23) + np.sin(k / 57 + 1)
        if rng.random() < 0.25 + 0.35 * lush and canvas.sees(at[None], 20):
            sketch.grow(at + rng.normal(0, 5, 2), rng.uniform(4, 10))


def _lake(sketch: Sketch, block: Block) -> list[tuple[Ring, int]]:
    canvas, rng = sketch.canvas, sketch.rng
    shore = lake_ring(block.ring, rng)
    middle = shore.mean(axis=0)
    wave = np.sin(np.linspace(0, 6 * np.pi, len(shore), endpoint=False) + rng.uniform(0, 6))
    beach = 1.008 + 0.03 * np.clip(wave, 0, 1)
    reeds = 1.012 + 0.035 * np.clip(-wave, 0, 1)
    colour = sketch.vary(sketch.pick(_LAKES), 4)
    ink = canvas.add(Surface(WATER, colour, grain=0.02, mottle=0.015, patch=0.07, hue=0.06, shore=-0.4))
    sand = canvas.add(Surface(BARE, (190, 176, 146), grain=0.05, mottle=0.07))
    reed = canvas.add(Surface(VEGETATION, (108, 116, 70), grain=0.1, mottle=0.1, hue=0.05))
    for k in range(len(shore)):
        for _ in range(rng.poisson(1.2 if wave[k] < 0.2 else 0.1)):
            place = middle + (shore[k] - middle) * rng.uniform(1.04, 1.12)
            sketch.grow(sketch.point(place) + rng.normal(0, 8, 2), rng.uniform(4, 11))
    grown = [(middle + (shore - middle) * share[:, None], ink) for share, ink in ((reeds, reed), (beach, sand))]
    return [*grown, (shore, ink)]


def road_lines(sketch: Sketch, plan: Plan, *kinds: str) -> list[tuple[Ring, str]]:
    """Return the centre lines in pixels, with their kind, of the roads that the scene shows."""
    lines = [(sketch.frame.to_px(densify(road.ends, 5, closed=False)), road.kind) for road in plan.roads]
    return [(line, kind) for line, kind in lines if kind in kinds and len(line) > 2 and sketch.canvas.sees(line, 40)]


def paint_verges(sketch: Sketch, plan: Plan) -> None:
    """Paint the grass beside the roads; it lies under water and asphalt."""
    ink = sketch.canvas.add(Surface(VEGETATION, (112, 124, 78), mottle=0.08, patch=0.08, hue=0.06))
    lines = road_lines(sketch, plan, MAIN, MINOR, TRACK)
    sketch.canvas.fill([(_band(line, _WIDTH_M[kind] / 2 + _VERGE_M[kind]), ink) for line, kind in lines])


def paint_roads(sketch: Sketch, plan: Plan) -> None:
    """Paint tracks, streets with pavements, then minor and main roads with bridges and lines; later ones win."""
    canvas = sketch.canvas
    wet = canvas.classes()[canvas.ids] == WATER
    dirt = canvas.add(Surface(BARE, (178, 160, 130), mottle=0.08, patch=0.07))
    ridge = canvas.add(Surface(BARE, (140, 136, 96), mottle=0.1, hue=0.04))
    tracks = [line for line, _ in road_lines(sketch, plan, TRACK)]
    dry = [part for line in tracks for part in _stretches(sketch, line, wet=False)]
    canvas.fill([(_band(line, _WIDTH_M[TRACK] / 2), dirt) for line in dry])
    canvas.stroke([(line, ridge) for line in dry])
    pavement = canvas.add(Surface(ROAD, (158, 154, 148), mottle=0.03, patch=0.03))
    canvas.fill([(_band(line, _WIDTH_M[STREET] / 2 + 1.7), pavement) for line, _ in road_lines(sketch, plan, STREET)])
    for kind in (STREET, MINOR, MAIN):
        for line, _ in road_lines(sketch, plan, kind):
            _carriageway(sketch, line, kind)
    canvas.tops[wet & (canvas.classes()[canvas.ids] == ROAD)] = round(_DECK_M / HEIGHT_UNIT_M)


def _stretches(sketch: Sketch, line: Ring, *, wet: bool) -> list[Ring]:
    """Return the pieces of a line over water, or those over land."""
    over = (sketch.canvas.class_at(line) == WATER) == wet
    pieces = np.split(np.arange(len(line)), np.flatnonzero(np.diff(over)) + 1)
    grown = [np.arange(max(piece[0] - 2 * wet, 0), min(piece[-1] + 1 + 2 * wet, len(line))) for piece in pieces]
    return [line[piece] for piece, own in zip(grown, pieces, strict=True) if over[own[0]] and len(piece) > 2]


def _carriageway(sketch: Sketch, line: Ring, kind: str) -> None:
    canvas, half = sketch.canvas, _WIDTH_M[kind] / 2
    concrete = canvas.add(Surface(ROAD, (184, 181, 174), mottle=0.03))
    canvas.fill([(_band(deck, half + 1.3), concrete) for deck in _stretches(sketch, line, wet=True)])
    colour = sketch.vary(_ASPHALT[kind], 5)
    asphalt = canvas.add(Surface(ROAD, colour, grain=0.025, mottle=0.025, patch=0.05))
    canvas.fill([(_band(line, half), asphalt)])
    if kind == STREET:
        return
    red, green, blue = colour
    worn = canvas.add(Surface(ROAD, (red + 6, green + 6, blue + 6), mottle=0.03, patch=0.05))
    canvas.fill([(_band(line, 0.9, side * half / 2), worn) for side in (-1, 1)])
    white = canvas.add(Surface(ROAD, (196, 196, 192) if kind == MAIN else (168, 168, 164), mottle=0.1))
    dashes = [np.array([at - way * 4, at + way * 4]) for at, way in walk(line, 24)]
    canvas.stroke([(dash, white) for dash in dashes])
    if kind == MAIN:
        canvas.stroke([(_band(line, 0, side * (half - 0.6))[: len(line)], white) for side in (-1, 1)])


def _band(line_px: Ring, half_m: float, aside_m: float = 0.0) -> Ring:
    """Return the ring of a strip along a line in pixels, moved `aside_m` to the right."""
    return ribbon(line_px, (aside_m - half_m) / GSD_M, (aside_m + half_m) / GSD_M)
