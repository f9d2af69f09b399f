"""Paints works, shops, car parks and farms."""

from __future__ import annotations

import numpy as np

from scenery.canvas import BARE, GSD_M, ROAD, VEGETATION, Surface
from scenery.plan import Block
from scenery.roofs import FLAT, GABLE, SHED, roof_colour
from scenery.shapes import Ring, across, contains, cut, densify, halve_down, inset, long_axis, walk
from scenery.sketch import Building, Sketch, Wing, box

# Barns and house of a farm, in metres from the middle of the yard: along, aside, half length, half width, roof.
_FARM = ((-17, -13, 16, 7, SHED), (17, -12, 12, 6, GABLE), (14, 14, 8, 5, GABLE), (-16, 14, 18, 8, SHED))


def paint_works(sketch: Sketch, block: Block) -> None:
    """Fill a block with halls, yards and car parks."""
    rng = sketch.rng
    for plot in halve_down(inset(block.ring, 9), rng, 5_500, 0.0):
        lot = inset(plot, 2.5)
        if not len(lot):
            continue
        paved = rng.random() < 0.55
        cls, colour = (ROAD, (134.0, 132.0, 130.0)) if paved else (BARE, (176.0, 164.0, 142.0))
        sketch.cover(lot, Surface(cls, sketch.vary(colour, 6), grain=0.04, mottle=0.05, patch=0.06))
        if paved and rng.random() < 0.3:
            _car_park(sketch, lot)
            continue
        _hall(sketch, lot, SHED if rng.random() < 0.75 else FLAT, rng.uniform(7, 13))
        if paved and rng.random() < 0.7:
            _yard_cars(sketch, inset(lot, 3.2))


def paint_market(sketch: Sketch, land: Ring) -> None:
    """Paint a shop beside its car park."""
    rng = sketch.rng
    sketch.cover(land, Surface(VEGETATION, (108, 124, 72), mottle=0.08, hue=0.05))
    halves = [inset(half, 2.5) for half in cut(land, land.mean(axis=0), across(long_axis(land)))]
    first = rng.integers(2)
    for half, is_hall in ((halves[first], True), (halves[1 - first], False)):
        sketch.cover(half, Surface(ROAD, sketch.vary((126, 125, 124), 4), mottle=0.03, patch=0.04))
        if is_hall:
            _hall(sketch, half, FLAT if rng.random() < 0.6 else SHED, 7)
        else:
            _car_park(sketch, half)


def paint_farm(sketch: Sketch, block: Block) -> None:
    """Put a farmyard with barns, a house and trees at a corner of a block."""
    rng, land = sketch.rng, inset(block.ring, 46)
    if not len(land):
        return
    corner = land[rng.integers(len(land))]
    at, heading = sketch.point(corner), sketch.heading(corner, long_axis(block.ring))
    aside = across(heading)
    green = Surface(VEGETATION, sketch.vary((112, 126, 76)), mottle=0.09, patch=0.09, hue=0.07)
    yard = Surface(BARE, sketch.vary((170, 156, 130)), grain=0.05, mottle=0.08, patch=0.08)
    rings = (box(at, heading, 42, 32), green), (box(at, heading, 34, 24), yard)
    sketch.canvas.fill([(ring, sketch.canvas.add(surface)) for ring, surface in rings])
    for along, off, long, wide, style in _FARM:
        if rng.random() < 0.8:
            where = at + (heading * along + aside * off) / GSD_M
            wing = Wing(where, heading, long * rng.uniform(0.8, 1.05), wide, rng.uniform(5, 8))
            sketch.buildings.append(Building((wing,), style, roof_colour(sketch, style)))
    for _ in range(rng.integers(8, 22)):
        place = at + heading * rng.uniform(-82, 82) + aside * rng.choice([-1, 1]) * rng.uniform(50, 62)
        sketch.grow(place, rng.uniform(4, 9))


def _hall(sketch: Sketch, lot: Ring, style: str, margin_m: float) -> None:
    if not len(lot):
        return
    px = sketch.frame.to_px(lot)
    heading = long_axis(px)
    long, short = (np.ptp(px @ axis) * GSD_M / 2 - margin_m for axis in (heading, across(heading)))
    for share in (1.0, 0.85, 0.7, 0.55):
        wing = Wing(px.mean(axis=0), heading, long * share, short * share, sketch.rng.uniform(6, 11))
        if min(long, short) * share > 5 and contains(px, wing.outline(1.0)).all():
            sketch.buildings.append(Building((wing,), style, roof_colour(sketch, style)))
            return


def _car_park(sketch: Sketch, lot: Ring) -> None:
    """Mark stalls of 2.6 x 5 m in pairs of rows, and park cars in some of them."""
    rng, land = sketch.rng, inset(lot, 3.0)
    if not len(land):
        return
    px = sketch.frame.to_px(land)
    axis, aside = long_axis(px), across(long_axis(px))
    rows = np.arange((px @ aside).min() + 6, (px @ aside).max() - 5, 11.0)
    stalls, lanes = np.meshgrid(
        np.arange((px @ axis).min(), (px @ axis).max(), 5.2), rows[np.arange(len(rows)) % 3 != 1]
    )
    spots = stalls.reshape(-1, 1) * axis + lanes.reshape(-1, 1) * aside
    spots = spots[contains(px, spots)]
    white = sketch.canvas.add(Surface(ROAD, (166, 166, 162), mottle=0.05))
    sketch.canvas.stroke([(np.array([at - aside * 5, at + aside * 5]) + axis * 2.6, white) for at in spots])
    taken = rng.random(len(spots)) < rng.uniform(0.35, 0.8)
    sketch.cars += [(at, aside * rng.choice([-1, 1])) for at in spots[taken]]


def _yard_cars(sketch: Sketch, land: Ring) -> None:
    if len(land):
        for at, heading in walk(sketch.frame.to_px(densify(land, 4)), 5.6):
            if sketch.rng.random() < 0.25:
                sketch.cars.append((at, across(heading)))
