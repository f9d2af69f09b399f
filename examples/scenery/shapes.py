"""Rings and lines as `(N, 2)` float arrays: cutting, shrinking, widening and walking along them.

Rings are convex unless a function says otherwise; an empty ring, (0, 2), is what is left of one that is too small.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]

_EMPTY = np.empty((0, 2))


def cut(ring: Ring, point: Ring, direction: Ring) -> tuple[Ring, Ring]:
    """Cut a convex ring along a line; return the parts left and right of it (either may be empty)."""
    side = (ring - point) @ across(direction)
    left, right = [], []
    for i, here in enumerate(ring):
        j = (i + 1) % len(ring)
        if side[i] >= 0:
            left.append(here)
        if side[i] <= 0:
            right.append(here)
        if side[i] * side[j] < 0:
            crossing = here + (ring[j] - here) * (side[i] / (side[i] - side[j]))
            left.append(crossing)
            right.append(crossing)
    return np.array(left) if len(left) > 2 else _EMPTY, np.array(right) if len(right) > 2 else _EMPTY


def inset(ring: Ring, by_m: float) -> Ring:
    """Move every edge of a convex ring inwards; empty when nothing is left."""
    if not len(ring):
        return ring
    turning = np.sign(signed_area(ring))
    out = ring
    for here, there in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        along = (there - here) / max(float(np.hypot(*(there - here))), 1e-9) * turning
        out = cut(out, here + by_m * across(along), along)[0]
        if not len(out):
            break
    return out


def signed_area(ring: Ring) -> float:
    """Return the area of a ring, positive when it turns from the first axis to the second."""
    following = np.roll(ring, -1, axis=0)
    return float(np.sum(ring[:, 0] * following[:, 1] - following[:, 0] * ring[:, 1]) / 2)


def contains(ring: Ring, points: Ring) -> NDArray[np.bool_]:
    """Tell which `points` (N, 2) lie in a convex ring."""
    turning = np.sign(signed_area(ring))
    inside = np.ones(len(points), bool)
    for here, there in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        edge = there - here
        inside &= turning * (edge[0] * (points[:, 1] - here[1]) - edge[1] * (points[:, 0] - here[0])) >= 0
    return inside


def densify(line: Ring, step: float, closed: bool = True) -> Ring:
    """Return the ring or line with points at most `step` apart."""
    ends = np.roll(line, -1, axis=0) if closed else line[1:]
    parts = []
    for here, there in zip(line, ends, strict=False):
        count = max(1, int(np.ceil(np.hypot(*(there - here)) / step)))
        parts.append(here + (there - here) * (np.arange(count) / count)[:, None])
    return np.concatenate(parts if closed else [*parts, line[-1:]])


def long_axis(ring: Ring) -> Ring:
    """Return the unit vector of the longest edge."""
    edges = np.roll(ring, -1, axis=0) - ring
    longest = edges[np.argmax(np.hypot(edges[:, 0], edges[:, 1]))]
    return longest / np.hypot(*longest)


def across(heading: Ring) -> Ring:
    """Return a unit vector turned by a quarter: what lies to the right, rows pointing down."""
    return np.array([-heading[1], heading[0]])


def split(ring: Ring, rng: np.random.Generator, jitter: float = 0.1) -> tuple[list[Ring], Ring]:
    """Halve a ring across its longer extent; return the parts and the line (2, 2) between them."""
    along = long_axis(ring)
    aside = across(along)
    through, other = (aside, along) if np.ptp(ring @ along) >= np.ptp(ring @ aside) else (along, aside)
    reach = ring @ other
    at = reach.min() + np.ptp(reach) * rng.uniform(0.4, 0.6)
    middle = ring.mean(axis=0)
    point = middle + other * (at - middle @ other)
    turn = rng.normal(0, jitter)
    direction = through * np.cos(turn) + other * np.sin(turn)
    parts = [part for part in cut(ring, point, direction) if len(part)]
    return parts, chord(ring, point, direction)


def halve_down(ring: Ring, rng: np.random.Generator, target_area: float, jitter: float = 0.03) -> list[Ring]:
    """Halve a ring until no part is much larger than `target_area`."""
    if not len(ring):
        return []
    if abs(signed_area(ring)) < target_area * rng.uniform(0.6, 1.6):
        return [ring]
    return [end for part in split(ring, rng, jitter)[0] for end in halve_down(part, rng, target_area, jitter)]


def chord(ring: Ring, point: Ring, direction: Ring) -> Ring:
    """Return where a line enters and leaves a convex ring, (2, 2)."""
    left = cut(ring, point, direction)[0]
    on_line = np.abs((left - point) @ across(direction)) < 1e-6
    ends = left[on_line]
    order = np.argsort(ends @ direction)
    return ends[order[[0, -1]]] if len(ends) > 1 else _EMPTY


def ribbon(line: Ring, left: Ring | float, right: Ring | float) -> Ring:
    """Return the ring between two offsets of a line; positive is to the right of its heading, y pointing down."""
    ahead = np.gradient(line, axis=0)
    normal = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1) / np.hypot(ahead[:, 0], ahead[:, 1])[:, None]
    left, right = (np.broadcast_to(side, len(line))[:, None] for side in (left, right))
    return np.concatenate([line + normal * left, (line + normal * right)[::-1]])


def walk(line: Ring, every: float) -> Iterator[tuple[Ring, Ring]]:
    """Yield positions along a line and the unit heading there, `every` apart."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    along = np.concatenate([[0], np.cumsum(steps)])
    for at in np.arange(every / 2, along[-1], every):
        k = min(int(np.searchsorted(along, at)), len(line) - 1)
        heading = (line[k] - line[k - 1]) / max(steps[k - 1], 1e-9)
        yield line[k - 1] + heading * (at - along[k - 1]), heading
