"""Catalogs: which image belongs to which label, what the label's values mean, and the scenes of each split."""

from __future__ import annotations

from glraster.catalog.parse import load_catalog
from glraster.catalog.records import IGNORE, SPLITS, Catalog, Encoding, LabelEncoding, Pair, Split
from glraster.catalog.union import CatalogUnion, ClassGroup, Member, unite
from glraster.catalog.write import write_catalog

__all__ = [
    "IGNORE",
    "SPLITS",
    "Catalog",
    "CatalogUnion",
    "ClassGroup",
    "Encoding",
    "LabelEncoding",
    "Member",
    "Pair",
    "Split",
    "load_catalog",
    "unite",
    "write_catalog",
]
