"""Several catalogs as one: their classes united by name, and classes that stand for several others.

A data set of buildings knows "building" and "not building". Beside one that tells bare land, road, vegetation and water
apart, its "not building" stands for any of these: such a pixel teaches that the sum of their probabilities is 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from glraster.catalog.records import IGNORE, Catalog, Pair, Split
from glraster.config import NODATA, LandClass
from glraster.errors import CatalogError

_SAME_GSD = 0.1
"""Catalogs whose ground sample distances differ by no more than this share agree, as scenes do."""


@dataclass(frozen=True)
class ClassGroup:
    """A label that stands for any of several classes: their indexes among the union's classes, ascending."""

    name: str
    members: tuple[int, ...]


@dataclass(frozen=True)
class Member:
    """A pair of one of the catalogs. `labels` has the union's label for every class index of the catalog."""

    catalog: Catalog
    pair: Pair
    labels: tuple[int, ...]


@dataclass(frozen=True)
class CatalogUnion:
    """Catalogs that are learned together.

    `classes` are what the network tells apart. A label is the index of one of them, or, from their number on, of one
    of `groups`. `labels` has the label of each class of each catalog.
    """

    catalogs: tuple[Catalog, ...]
    classes: tuple[LandClass, ...]
    groups: tuple[ClassGroup, ...]
    labels: tuple[tuple[int, ...], ...]
    gsd_m: float | None

    @property
    def bands(self) -> int:
        return self.catalogs[0].bands

    @property
    def context_px(self) -> int:
        return self.catalogs[0].context_px

    @property
    def source(self) -> str:
        return ", ".join(catalog.source for catalog in self.catalogs)

    @property
    def name(self) -> str:
        return " + ".join(catalog.name for catalog in self.catalogs)

    @property
    def licence(self) -> str | None:
        """The licences of all catalogs, each once."""
        return "; ".join(dict.fromkeys(c.licence for c in self.catalogs if c.licence)) or None

    @property
    def in_mean(self) -> tuple[bool, ...]:
        """For every class, whether it counts in mean scores: if no catalog leaves it out."""
        left_out = {c.name for catalog in self.catalogs for c in catalog.classes if c.id in catalog.left_out_of_mean}
        return tuple(c.name not in left_out for c in self.classes)

    @cached_property
    def content_hash(self) -> str:
        """The hash of a catalog alone, or one over the hashes of all."""
        hashes = [catalog.content_hash for catalog in self.catalogs]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]

    def members(self, split: Split) -> tuple[Member, ...]:
        """The pairs of a split, catalog by catalog."""
        return tuple(
            Member(catalog, pair, labels)
            for catalog, labels in zip(self.catalogs, self.labels, strict=True)
            for pair in catalog.splits[split]
        )


def unite(*catalogs: Catalog) -> CatalogUnion:
    """Unite catalogs: classes of one name are one class, with the id and colour of the first catalog that has it.

    Raises:
        CatalogError: if bands or ground sample distances differ, or a class stands for one that no catalog has, or is
            itself a class of another catalog.
    """
    first = catalogs[0]
    if len(catalogs) == 1:
        return CatalogUnion(catalogs, first.classes, (), (tuple(range(len(first.classes))),), first.gsd_m)
    for catalog in catalogs[1:]:
        if catalog.bands != first.bands:
            raise CatalogError(f"has {catalog.bands} bands, {first.source} has {first.bands}", where=catalog.source)
    classes = _united_classes(catalogs)
    names = [c.name for c in classes]
    groups = tuple(dict.fromkeys(group for catalog in catalogs for group in _groups(catalog, names)))
    labels_known = [*names, *(group.name for group in groups)]
    if len(set(labels_known)) < len(labels_known):
        raise CatalogError("gives a class any_of, in which another catalog differs", where=catalogs[-1].source)
    if len(labels_known) > IGNORE:
        raise CatalogError(f"the catalogs have {len(labels_known)} classes together, and {IGNORE} fit")
    labels = tuple(tuple(labels_known.index(c.name) for c in catalog.classes) for catalog in catalogs)
    return CatalogUnion(catalogs, classes, groups, labels, _common_gsd(catalogs))


def _united_classes(catalogs: Sequence[Catalog]) -> tuple[LandClass, ...]:
    """Classes that stand for themselves; an id that is taken gives way to the lowest free one."""
    united: dict[str, LandClass] = {}
    for catalog in catalogs:
        group_ids = dict(catalog.stands_for)
        for c in catalog.classes:
            if c.id not in group_ids and c.name not in united:
                taken = {other.id for other in united.values()}
                united[c.name] = c if c.id not in taken else replace(c, id=min(set(range(NODATA)) - taken))
    return tuple(united.values())


def _groups(catalog: Catalog, names: Sequence[str]) -> Iterator[ClassGroup]:
    """The classes of a catalog that stand for several of the union's, which have these names."""
    own = {c.id: c.name for c in catalog.classes}
    for class_id, others in catalog.stands_for:
        unknown = [name for name in others if name not in names]
        if unknown:
            raise CatalogError(
                f"{own[class_id]!r} stands for {unknown[0]!r}, which no catalog has; they have {', '.join(names)}",
                where=catalog.source,
            )
        yield ClassGroup(own[class_id], tuple(sorted(names.index(name) for name in others)))


def _common_gsd(catalogs: Sequence[Catalog]) -> float | None:
    """The ground sample distance that catalogs state; those that state none are read in their own pixels."""
    stated = [(catalog.gsd_m, catalog.source) for catalog in catalogs if catalog.gsd_m is not None]
    for gsd_m, source in stated[1:]:
        if abs(gsd_m / stated[0][0] - 1) > _SAME_GSD:
            advice = f"{stated[0][1]} at {stated[0][0]:g}; give both the same"
            raise CatalogError(f"is read at gsd_m {gsd_m:g}, {advice}", where=source)
    return stated[0][0] if stated else None
