"""Paints towns: houses with gardens, terraces, flats and parks, and what stands along the streets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from scenery.canvas import BARE, GSD_M, ROAD, SHEET, VEGETATION, Colour, Surface
from scenery.country import plant_wood
from scenery.plan import FIELDS, MAIN, MINOR, STREET, TOWN, WORKS, Block, Plan
from scenery.roofs import FLAT, GABLE, HIP, roof_colour
from scenery.shapes import Ring, across, contains, cut, densify, inset, long_axis, signed_area, walk
from scenery.sketch import BROADLEAF, CONIFER, SHRUB, Building, Sketch, Wing, box
from scenery.ways import road_lines
from scenery.works import paint_farm, paint_market, paint_works

_GARDENS: tuple[tuple[float, int, Colour], ...] = (
    (0.24, VEGETATION, (106, 124, 70)),
    (0.20, VEGETATION, (116, 132, 78)),
    (0.20, VEGETATION, (98, 114, 64)),
    (0.16, VEGETATION, (124, 130, 86)),
    (0.12, VEGETATION, (92, 110, 60)),
    (0.08, BARE, (160, 144, 118)),
)
_PAVING: tuple[Colour, ...] = ((150, 146, 140), (136, 134, 132), (160, 150, 140))
_STREET_HALF_M = 5.0


@dataclass(frozen=True)
class _Lot:
    """Land for one house: its ring in the plan and the direction of the street."""

    ring: Ring
    front: Ring


@dataclass(frozen=True)
class _Site:
    """Where a house stands, in pixels, and how far it reaches, in metres."""

    centre: Ring
    front: Ring
    half_wide_m: float
    half_deep_m: float
    setback_m: float

    def at(self, ahead_m: float, aside_m: float) -> Ring:
        """Return the pixel so far in front of the centre and beside it."""
        return self.centre + (self.front * ahead_m + across(self.front) * aside_m) / GSD_M


def paint_ground(sketch: Sketch, plan: Plan) -> None:
    """Paint gardens, yards and parks, which lie under the roads; buildings, trees and cars are only planned."""
    for block in plan.blocks:
        if block.use == TOWN:
            _town_block(sketch, block)
        elif block.use == WORKS:
            paint_works(sketch, block)
        elif block.use == FIELDS and sketch.rng.random() < 0.4:
            paint_farm(sketch, block)


def _town_block(sketch: Sketch, block: Block) -> None:
    rng, land = sketch.rng, inset(block.ring, _STREET_HALF_M)
    if not len(land) or abs(signed_area(land)) < 500:
        return
    odds = (0.2, 0.5, 0.15, 0.06, 0.09) if block.urban > 0.85 else (0.8, 0.06, 0.06, 0.06, 0.02)
    kind = rng.choice(("houses", "terraces", "flats", "park", "market"), p=odds)
    if kind == "houses":
        _houses(sketch, land, rng.uniform(15, 20), detached=True)
    elif kind == "terraces":
        _houses(sketch, land, rng.uniform(8, 11), detached=False)
    elif kind == "flats":
        _flats(sketch, land)
    elif kind == "park":
        _park(sketch, land)
    else:
        paint_market(sketch, land)


def _houses(sketch: Sketch, land: Ring, lot_m: float, *, detached: bool) -> None:
    rng, canvas, frame = sketch.rng, sketch.canvas, sketch.frame
    hedge = canvas.add(Surface(VEGETATION, (74, 92, 50), grain=0.1, mottle=0.08))
    style = str(rng.choice([GABLE, HIP, FLAT], p=[0.6, 0.28, 0.12]))
    family = roof_colour(sketch, style)
    shapes, hedges = [], []
    for lot in _lots(land, lot_m):
        _, cls, colour = _GARDENS[rng.choice(len(_GARDENS), p=[chance for chance, _, _ in _GARDENS])]
        lawn = Surface(cls, sketch.vary(colour, 3), grain=0.05, mottle=0.08, patch=0.06, hue=0.05)
        shapes.append((frame.to_px(lot.ring), canvas.add(lawn)))
        if rng.random() < 0.55:
            hedges.append((frame.to_px(np.vstack([lot.ring, lot.ring[:1]])), hedge))
        site = _site(sketch, lot, frame.to_px(land), detached=detached)
        if site:
            roof = family if rng.random() < 0.4 else roof_colour(sketch, style)
            sketch.buildings.append(Building(_wings(sketch, site, detached=detached), style, roof))
            shapes += _yard(sketch, site)
        _scatter_trees(sketch, lot.ring, 3.2 if detached else 1.2)
    canvas.fill(shapes)
    canvas.stroke(hedges)


def _lots(land: Ring, lot_m: float) -> Iterator[_Lot]:
    """Divide a block into two rows of lots, back to back, or into one row."""
    along = long_axis(land)
    aside = across(along)
    if np.ptp(land @ aside) < 34:
        rows = [(land, aside)]
    else:
        rows = [(row, aside * way) for row, way in zip(cut(land, land.mean(axis=0), along), (1, -1), strict=True)]
    for rest, front in rows:
        if not len(rest):
            continue
        start, length = (rest @ along).min(), np.ptp(rest @ along)
        count = max(1, round(length / lot_m))
        for k in range(1, count):
            rest, lot = cut(rest, along * (start + length * k / count), -aside)
            if len(lot):
                yield _Lot(lot, front)
        if len(rest):
            yield _Lot(rest, front)


def _site(sketch: Sketch, lot: _Lot, land_px: Ring, *, detached: bool) -> _Site | None:
    """Choose where the house of a lot stands; none where it would leave the block, `land_px`."""
    rng = sketch.rng
    px = sketch.frame.to_px(lot.ring)
    front = sketch.heading(lot.ring.mean(axis=0), lot.front)
    side = across(front)
    deep, wide = np.ptp(px @ front) * GSD_M, np.ptp(px @ side) * GSD_M
    if deep < 14 or wide < 7:
        return None
    half_deep = rng.uniform(4.8, 6.2)
    half_wide = min(wide / 2 - 1.8, rng.uniform(5.5, 8.0)) if detached else wide / 2 + 0.2
    setback = rng.uniform(3.5, min(7.5, deep - 2 * half_deep)) if detached and deep > 16 else 2.0
    middle = (px @ side).min() + np.ptp(px @ side) / 2 + (rng.normal(0, 1.2) if detached else 0)
    for width, back in product((half_wide, half_wide * 0.75), (0, 1.5, 3, 5, 7, 10)):
        centre = side * middle + front * ((px @ front).max() - (setback + back + half_deep) / GSD_M)
        if contains(land_px, box(centre, side, width * 0.95, half_deep)).all():
            return _Site(centre, front, width, half_deep, setback + back)
    return None


def _wings(sketch: Sketch, site: _Site, *, detached: bool) -> tuple[Wing, ...]:
    """Return the house, and at times a lower wing behind it."""
    rng, side = sketch.rng, across(site.front)
    size = (side, site.half_wide_m, site.half_deep_m)
    if detached and site.half_wide_m < site.half_deep_m:
        size = (site.front, site.half_deep_m, site.half_wide_m)
    house = Wing(site.centre, *size, rng.uniform(5.5, 8.0))
    if not detached or rng.random() > 0.38:
        return (house,)
    half, hand = rng.uniform(2.4, 3.2), rng.choice([-1, 1])
    behind = site.at(-site.half_deep_m - 1.5, hand * (site.half_wide_m - half))
    return house, Wing(behind, site.front, site.half_deep_m * 0.7 + 1.0, half, rng.uniform(4.0, 5.5))


def _yard(sketch: Sketch, site: _Site) -> list[tuple[Ring, int]]:
    """Return the drive, the terrace and the beds around a house; plan a car and a shed."""
    rng, canvas, side = sketch.rng, sketch.canvas, across(site.front)
    paved = canvas.add(Surface(ROAD, sketch.pick(_PAVING)))
    reach = site.half_deep_m + site.setback_m
    shapes = []
    if rng.random() < 0.75:
        drive = site.at(reach / 2 + 1, rng.choice([-1, 1]) * (site.half_wide_m - 1.0))
        shapes.append((box(drive, site.front, reach / 2 + 1.5, 1.6), paved))
        if rng.random() < 0.35:
            sketch.cars.append((drive + site.front * rng.uniform(0, 4), site.front))
    if rng.random() < 0.5:
        shapes.append(
            (box(site.at(-site.half_deep_m - 1.5, rng.uniform(-2, 2)), side, rng.uniform(2, 3.5), 1.8), paved)
        )
    bed = canvas.add(Surface(VEGETATION, (88, 98, 58), grain=0.12, mottle=0.16, hue=0.08))
    soil = canvas.add(Surface(BARE, (126, 106, 84), grain=0.07, mottle=0.1))
    for _ in range(rng.poisson(1.2)):
        ring = box(site.at(-rng.uniform(9, 20), rng.uniform(-7, 7)), side, rng.uniform(1, 3.2), rng.uniform(0.8, 2))
        shapes.append((ring, bed if rng.random() < 0.7 else soil))
    if rng.random() < 0.3:
        shed = Wing(site.at(-rng.uniform(13, 20), rng.uniform(-6, 6)), side, 2.0, 1.5, 2.5)
        sketch.buildings.append(Building((shed,), GABLE, roof_colour(sketch, GABLE)))
    return shapes


def _scatter_trees(sketch: Sketch, ring: Ring, mean: float) -> None:
    rng = sketch.rng
    for weights in rng.dirichlet(np.full(len(ring), 0.6), rng.poisson(mean)):
        radius = rng.choice([rng.uniform(2, 3.5), rng.uniform(3.5, 6), rng.uniform(6, 9)], p=[0.5, 0.35, 0.15])
        sketch.grow(
            sketch.point(weights @ ring), radius, str(rng.choice([BROADLEAF, CONIFER, SHRUB], p=[0.6, 0.15, 0.25]))
        )


def _flats(sketch: Sketch, land: Ring) -> None:
    rng = sketch.rng
    sketch.cover(land, Surface(VEGETATION, sketch.vary((108, 124, 72)), mottle=0.08, patch=0.08, hue=0.06))
    style = str(rng.choice([FLAT, HIP]))
    colour = roof_colour(sketch, style)
    for lot in _lots(land, 34):
        px, heading = sketch.frame.to_px(lot.ring), sketch.heading(lot.ring.mean(axis=0), long_axis(lot.ring))
        long = np.ptp(px @ heading) * GSD_M / 2 - 9
        if long > 9:
            wing = Wing(px.mean(axis=0), heading, min(long, 34), rng.uniform(5.5, 7), rng.uniform(10, 16))
            sketch.buildings.append(Building((wing,), style, colour))
        _scatter_trees(sketch, lot.ring, 14)


def _park(sketch: Sketch, land: Ring) -> None:
    rng, frame = sketch.rng, sketch.frame
    sketch.cover(land, Surface(VEGETATION, sketch.vary((102, 122, 66)), mottle=0.07, patch=0.08, hue=0.06))
    px, inner = frame.to_px(land), inset(land, 6)
    axis = long_axis(px)
    if np.ptp(px @ axis) > 240 and np.ptp(px @ across(axis)) > 150:
        _pitch(sketch, px.mean(axis=0), axis)
    elif rng.random() < 0.5 and len(inner):
        ring = frame.to_px(densify(inner, 8))
        floor = Surface(VEGETATION, (84, 98, 56), grain=0.1, mottle=0.1)
        plant_wood(sketch, ring + rng.normal(0, 3, ring.shape), floor, 0.1, 15.0)
    _scatter_trees(sketch, land, 26)


def _pitch(sketch: Sketch, centre: Ring, axis: Ring) -> None:
    """Paint a football pitch of 100 x 64 m with its lines."""
    canvas = sketch.canvas
    mown = float(np.arctan2(axis[1], axis[0]) + np.pi / 2)
    grass = canvas.add(Surface(VEGETATION, (104, 132, 72), rows=SHEET, row_gain=0.05, row_px=22.0, angle=mown))
    line = canvas.add(Surface(VEGETATION, (176, 188, 160)))
    canvas.fill([(box(centre, axis, 50, 32), grass)])
    marks = [box(centre, axis, 47, 29), box(centre, axis, 0.1, 29)]
    marks += [box(centre + axis * end * 39 / GSD_M, axis, 8, 16) for end in (-1, 1)]
    turn = np.linspace(0, 2 * np.pi, 24)
    marks.append(centre + 18 * np.stack([np.cos(turn), np.sin(turn)], axis=1))
    canvas.stroke([(np.vstack([mark, mark[:1]]), line) for mark in marks])


def line_streets(sketch: Sketch, plan: Plan) -> None:
    """Plan cars on the roads, and parked cars and trees along the streets."""
    rng = sketch.rng
    for line, kind in road_lines(sketch, plan, MAIN, MINOR):
        for at, heading in walk(line, 60 if kind == MAIN else 130):
            way = rng.choice([-1, 1])
            lane = across(heading) * way * (2.7 if kind == MAIN else 1.6) / GSD_M
            if rng.random() < 0.45:
                sketch.cars.append((at + lane + heading * rng.normal(0, 15), -heading * way))
    for line, _ in road_lines(sketch, plan, STREET):
        leafy = rng.random() < 0.35
        for at, heading in walk(line, 13):
            aside = across(heading) * rng.choice([-1, 1]) / GSD_M
            if rng.random() < 0.22:
                sketch.cars.append((at + aside * 2.0, heading))
            if leafy and rng.random() < 0.5:
                sketch.grow(at + aside * 6.3, rng.uniform(3, 5.5))
