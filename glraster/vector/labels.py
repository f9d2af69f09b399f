"""Labels of the 4-connected sets of pixels of one class: given as rows come in, joined where two turn out to be one."""

from __future__ import annotations

from glraster.vector.arcs import LABELS, PAIRS, Int32Array, Sweep
from glraster.vector.compiled import compiled, inlined


@inlined
def find_root(parent: Int32Array, label: int) -> int:
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label


@inlined
def unite(parent: Int32Array, one: int, two: int) -> None:
    one, two = find_root(parent, one), find_root(parent, two)
    if one < two:
        parent[two] = one
    elif two < one:
        parent[one] = two


@compiled
def join_labels(parent: Int32Array, one: Int32Array, two: Int32Array) -> None:
    """Note that labels stand for the same face, pair by pair. Parents always have the smaller number."""
    for i in range(len(one)):
        if i == 0 or one[i] != one[i - 1] or two[i] != two[i - 1]:
            unite(parent, one[i], two[i])


@inlined
def new_label(s: Sweep, value: int) -> int:
    label = s.used[LABELS]
    s.parent[label] = label
    s.value[label] = value
    s.total[label], s.seen[label] = 0.0, 0
    s.used[LABELS] = label + 1
    return int(label)


@inlined
def label_south_east(s: Sweep, pixels: tuple[int, ...], known: tuple[int, ...], diagonal: bool) -> int:
    """The label of the pixel south-east of a lattice point, whose three neighbours are known."""
    nw, ne, se, sw = pixels
    if diagonal and nw == se and ne != se and sw != se:
        label = new_label(s, se)
        note_pair(s, known[0], label)
    elif se == ne:
        label = known[1]
        if sw == se and nw != se:
            unite(s.parent, label, known[3])
    elif se == sw:
        label = known[3]
    else:
        label = new_label(s, se)
    if diagonal and ne == sw and nw != ne and se != ne:
        note_pair(s, known[1], known[3])
    return label


@inlined
def note_pair(s: Sweep, one: int, two: int) -> None:
    pair = s.used[PAIRS]
    s.pairs[2 * pair], s.pairs[2 * pair + 1] = one, two
    s.used[PAIRS] = pair + 1
