"""What every painter of the scene shares: the canvas, the frame, the dice, and the trees and cars still to be set."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from scenery.canvas import (
    BARE,
    GSD_M,
    ROAD,
    VEGETATION,
    Canvas,
    Colour,
    Light,
    Stamp,
    Surface,
    crown_stamps,
    plant,
)
from scenery.plan import Frame
from scenery.shapes import Ring, across, densify

BROADLEAF, CONIFER, SHRUB, HEAP = "broadleaf", "conifer", "shrub", "heap"

_CAR_PAINT: tuple[Colour, ...] = (
    (226, 226, 224), (205, 206, 208), (150, 152, 156), (60, 62, 66), (38, 38, 42), (120, 36, 34), (44, 62, 104),
)  # fmt: skip
_LEAVES: dict[str, tuple[Colour, ...]] = {
    BROADLEAF: ((74, 92, 48), (84, 100, 52), (66, 84, 46), (92, 104, 58), (78, 96, 44), (100, 108, 62)),
    CONIFER: ((60, 80, 54), (56, 74, 52), (66, 84, 56), (70, 86, 56)),
    SHRUB: ((82, 98, 52), (90, 104, 60), (72, 90, 48), (104, 110, 70)),
    HEAP: ((178, 164, 138), (166, 152, 128), (190, 178, 154), (150, 138, 118)),
}


@dataclass(frozen=True)
class Tree:
    """A crown to be planted, in pixels, with its height in metres."""

    at: Ring
    radius_px: float
    top_m: float
    kind: str


@dataclass(frozen=True)
class Wing:
    """A rectangle under one roof: centre in pixels, ridge heading, half sizes and eaves height in metres."""

    centre: Ring
    ridge: Ring
    half_long_m: float
    half_wide_m: float
    top_m: float

    def outline(self, grow_m: float = 0.0) -> Ring:
        """Return its ring in pixels."""
        return box(self.centre, self.ridge, self.half_long_m + grow_m, self.half_wide_m + grow_m)


@dataclass(frozen=True)
class Building:
    """Wings of one colour and one style of roof."""

    wings: tuple[Wing, ...]
    style: str
    colour: Colour


@dataclass
class Sketch:
    """The state the painters pass on; every list is in pixels and drawn after the roads."""

    canvas: Canvas
    frame: Frame
    rng: np.random.Generator
    light: Light
    scale: float
    trees: list[Tree] = field(default_factory=list)
    cars: list[tuple[Ring, Ring]] = field(default_factory=list)
    """Centre and heading of each car."""
    buildings: list[Building] = field(default_factory=list)

    def cover(self, ring: Ring, surface: Surface) -> None:
        """Cover a straight-edged ring of the plan, in metres, with a surface; nothing if the ring is empty."""
        if len(ring):
            self.canvas.fill([(self.frame.to_px(densify(ring, 10)), self.canvas.add(surface))])

    def point(self, place: Ring) -> Ring:
        """Return the pixel, (2,), of one point of the plan."""
        return self.frame.to_px(place[None])[0]

    def heading(self, place: Ring, direction: Ring) -> Ring:
        """Return the unit vector, in pixels, of a direction of the plan at one place."""
        ends = self.frame.to_px(np.array([place, place + direction]))
        return (ends[1] - ends[0]) / np.hypot(*(ends[1] - ends[0]))

    def grow(self, at: Ring, radius_px: float, kind: str = BROADLEAF) -> None:
        """Plan a tree of usual height."""
        self.trees.append(Tree(at, radius_px, radius_px * (0.35 if kind == HEAP else 1.3), kind))

    def vary(self, colour: Colour, spread: float = 6.0) -> Colour:
        """Return a colour somewhat lighter or darker, and somewhat off its hue."""
        shift = self.rng.normal(0, spread) + self.rng.normal(0, spread / 3, 3)
        red, green, blue = np.clip(np.round(np.array(colour) + shift), 1, 254)
        return float(red), float(green), float(blue)

    def pick(self, choices: tuple[Colour, ...]) -> Colour:
        """Return one of the colours."""
        return choices[self.rng.integers(len(choices))]


def plant_trees(sketch: Sketch) -> None:
    """Plant every tree whose foot is on open ground."""
    rng, canvas = sketch.rng, sketch.canvas
    stamps = {
        BROADLEAF: crown_stamps(rng, sketch.light, range(2, 14), 7),
        CONIFER: crown_stamps(rng, sketch.light, range(2, 14), 0),
        SHRUB: crown_stamps(rng, sketch.light, range(2, 14), 3),
        HEAP: crown_stamps(rng, sketch.light, range(2, 40), 0),
    }
    inks = {kind: _inks(sketch, kind) for kind in _LEAVES}
    feet = np.array([tree.at for tree in sketch.trees]).reshape(-1, 2)
    ground = canvas.class_at(feet)
    for tree, cls in zip(sketch.trees, ground, strict=True):
        if cls in (VEGETATION, BARE):
            radii = stamps[tree.kind]
            shapes: list[Stamp] = radii[int(np.clip(round(tree.radius_px), min(radii), max(radii)))]
            ink = inks[tree.kind][rng.integers(len(inks[tree.kind]))]
            plant(canvas, shapes[rng.integers(len(shapes))], tree.at[0], tree.at[1], tree.top_m, ink)


def _inks(sketch: Sketch, kind: str) -> list[int]:
    cls = BARE if kind == HEAP else VEGETATION
    colours = [sketch.vary(colour, 3.5) for colour in _LEAVES[kind] for _ in range(5)]
    return [sketch.canvas.add(Surface(cls, colour, grain=0.07, mottle=0.05, hue=0.02)) for colour in colours]


def park_cars(sketch: Sketch) -> None:
    """Draw the cars; a car is part of the road it stands on."""
    rng, canvas = sketch.rng, sketch.canvas
    glass = canvas.add(Surface(ROAD, (46, 50, 56), grain=0.05))
    paints = [canvas.add(Surface(ROAD, colour, grain=0.03, patch=0)) for colour in _CAR_PAINT]
    spots = [car for car in sketch.cars if canvas.sees(car[0][None])]
    if not spots:
        return
    on_road = canvas.class_at(np.array([at for at, _ in spots])) == ROAD
    bodies = []
    for (at, heading), allowed in zip(spots, on_road, strict=True):
        if allowed:
            long, wide = rng.uniform(4.0, 4.9), 1.9
            bodies.append((box(at, heading, long / 2, wide / 2), paints[rng.integers(len(paints))]))
            nose = at + heading * (long * 0.12 / GSD_M)
            bodies.append((box(nose, heading, 0.45, wide / 2 - 0.1), glass))
    canvas.fill(bodies)
    canvas.lift([(ring, 1.5) for ring, ink in bodies if ink != glass])


def box(centre_px: Ring, heading: Ring, half_long_m: float, half_wide_m: float) -> Ring:
    """Return a rectangle in pixels around `centre_px`, its long side along `heading`."""
    long = heading * (half_long_m / GSD_M)
    wide = across(heading) * (half_wide_m / GSD_M)
    return centre_px + np.array([long + wide, long - wide, -long - wide, -long + wide])
