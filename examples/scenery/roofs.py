"""Buildings as roofs: each facet a ring with its own brightness, as the sun makes it."""

from __future__ import annotations

import numpy as np

from scenery.canvas import BUILDING, GSD_M, PLAIN, SHEET, WATER, Colour, Surface
from scenery.shapes import Ring, across
from scenery.sketch import Building, Sketch, Wing, box

GABLE, HIP, FLAT, SHED = "gable", "hip", "flat", "shed"

_TILES: tuple[Colour, ...] = (
    (152, 96, 78), (166, 110, 90), (140, 90, 76), (130, 94, 80), (112, 90, 80), (98, 94, 92), (82, 82, 84),
    (172, 128, 104),
)  # fmt: skip
_FLATS: tuple[Colour, ...] = ((168, 166, 162), (186, 184, 178), (140, 140, 140), (204, 202, 196), (150, 144, 134))
_SHEETS: tuple[Colour, ...] = (
    (196, 198, 200), (212, 212, 210), (158, 164, 170), (104, 128, 158), (150, 98, 84), (134, 138, 136), (178, 186, 178),
)  # fmt: skip


def roof_colour(sketch: Sketch, style: str) -> Colour:
    """Return a colour that suits the style of roof."""
    choices = {FLAT: _FLATS, SHED: _SHEETS}.get(style, _TILES)
    return sketch.vary(sketch.pick(choices), 5)


def raise_buildings(sketch: Sketch) -> None:
    """Paint the buildings, but no wing that would stand in water."""
    facets: list[tuple[Ring, int]] = []
    walls: list[tuple[Ring, float]] = []
    for building in sketch.buildings:
        wings = [wing for wing in building.wings if _stands(sketch, wing)]
        for wing in wings:
            walls.append((wing.outline(), wing.top_m))
            facets += _facets(sketch, wing, building)
        if wings:
            facets += _details(sketch, wings[0], building)
    sketch.canvas.fill(facets)
    sketch.canvas.lift(walls)


def _stands(sketch: Sketch, wing: Wing) -> bool:
    ring = wing.outline(1.0)
    if not sketch.canvas.sees(ring):
        return False
    share = np.linspace(0, 1, 7)
    u, v = np.meshgrid(share, share)
    inner = ring[0] + u.ravel()[:, None] * (ring[1] - ring[0]) + v.ravel()[:, None] * (ring[3] - ring[0])
    return WATER not in sketch.canvas.class_at(inner)


def _facets(sketch: Sketch, wing: Wing, building: Building) -> list[tuple[Ring, int]]:
    corners = wing.outline()
    side = across(wing.ridge)
    if building.style == FLAT:
        rim = _ink(sketch, building, 1.08, wing.ridge)
        inner = box(wing.centre, wing.ridge, wing.half_long_m - 0.6, wing.half_wide_m - 0.6)
        return [(corners, rim), (inner, _ink(sketch, building, 0.98, wing.ridge))]
    hipped = wing.half_wide_m * 0.9 if building.style == HIP else 0.0
    reach = wing.ridge * max(wing.half_long_m - hipped, 0.1) / GSD_M
    head, tail = wing.centre + reach, wing.centre - reach
    steep = 0.12 if building.style == SHED else 0.3
    shapes = [
        (np.array([corners[0], head, tail, corners[3]]), side),
        (np.array([corners[1], head, tail, corners[2]]), -side),
    ]
    if hipped:
        shapes.append((np.array([corners[0], corners[1], head]), wing.ridge))
        shapes.append((np.array([corners[2], corners[3], tail]), -wing.ridge))
    lit = [0.94 + steep * float(normal @ np.array(sketch.light.toward_sun)) for _, normal in shapes]
    return [(ring, _ink(sketch, building, light, wing.ridge)) for (ring, _), light in zip(shapes, lit, strict=True)]


def _ink(sketch: Sketch, building: Building, light: float, ridge: Ring) -> int:
    step = round(light * 25) / 25
    colour = tuple(float(min(value * step, 250)) for value in building.colour)
    angle = round(float(np.arctan2(ridge[1], ridge[0])) / (np.pi / 24)) * (np.pi / 24)
    sheet = building.style == SHED
    return sketch.canvas.add(
        Surface(
            BUILDING,
            colour,  # type: ignore[arg-type]
            grain=0.03 if not sheet else 0.02,
            mottle=0.035,
            patch=0.02,
            rows=PLAIN if building.style == FLAT else SHEET,
            row_gain=0.035,
            row_px=4.0 if sheet else 2.7,
            angle=angle + (np.pi / 2 if sheet else 0.0),
        )
    )


def _details(sketch: Sketch, wing: Wing, building: Building) -> list[tuple[Ring, int]]:
    """Return chimneys, roof lights, vents or solar panels."""
    rng = sketch.rng
    side = across(wing.ridge)

    def at(along: float, aside: float) -> Ring:
        offset = wing.ridge * along * wing.half_long_m + side * aside * wing.half_wide_m
        return wing.centre + offset / GSD_M

    if building.style == FLAT:
        vent = sketch.canvas.add(Surface(BUILDING, (116, 116, 118)))
        spots = rng.uniform(-0.7, 0.7, (rng.integers(1, 5), 2))
        return [(box(at(*spot), wing.ridge, rng.uniform(0.6, 1.8), 0.8), vent) for spot in spots]
    if building.style == SHED:
        light = sketch.canvas.add(Surface(BUILDING, (222, 226, 228)))
        if rng.random() < 0.5:
            return []
        stops = np.linspace(-0.85, 0.85, int(wing.half_long_m / 4) + 2)
        return [
            (box(at(stop, half), side, wing.half_wide_m * 0.28, 0.5), light) for stop in stops for half in (-0.5, 0.5)
        ]
    shapes = []
    if rng.random() < 0.6:
        chimney = sketch.canvas.add(Surface(BUILDING, (96, 74, 66)))
        shapes.append((box(at(rng.uniform(-0.5, 0.5), 0.12), wing.ridge, 0.5, 0.5), chimney))
    sunny = np.sign(side @ np.array(sketch.light.toward_sun))
    if rng.random() < 0.14:
        panel = sketch.canvas.add(Surface(BUILDING, (46, 54, 76), grain=0.02, rows=SHEET, row_gain=0.1, row_px=3.2))
        shapes.append((box(at(0, 0.5 * sunny), wing.ridge, wing.half_long_m * 0.55, wing.half_wide_m * 0.3), panel))
    return shapes
