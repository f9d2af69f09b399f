"""Write a catalog as the YAML that `load_catalog` reads back to an equal one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from glraster.catalog.records import Catalog, Pair
from glraster.config import LandClass
from glraster.files import claim, write_file
from glraster.names import is_path


def write_catalog(catalog: Catalog, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a catalog; the file appears whole or not at all.

    Files below the catalog's root are named relative to it, and the root relative to the file if it lies below
    that: so a folder that holds its catalog can be moved. Globs are written out.

    Args:
        catalog: what to write.
        path: where.
        overwrite: replace a file that exists.

    Raises:
        UsageError: if the file is one of the data set's.
        OutputError: if the file exists or cannot be written.
    """
    path = Path(path)
    claim(path, inputs=_files(catalog), overwrite=overwrite)
    text = yaml.safe_dump(
        _document(catalog, os.path.normpath(path.absolute().parent)),
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=10_000,
    )
    write_file(path, text)


def _files(catalog: Catalog) -> Iterator[str]:
    for pairs in catalog.splits.values():
        for pair in pairs:
            yield from (pair.image, pair.label)


def _document(catalog: Catalog, folder: str) -> dict[str, Any]:
    root = catalog.root or folder
    # nothing escapes a reference to the environment, so a root that looks like one cannot be written
    root = "/" if "${" in root else root
    labels = catalog.labels
    document: dict[str, Any] = {
        "name": catalog.name,
        "licence": catalog.licence,
        "root": None if root == folder else _below(root, folder),
        "classes": [*(_class(c, catalog) for c in (*catalog.classes, *catalog.ignored))],
        "ignore": list(catalog.ignore),
        "bands": catalog.bands if catalog.indexes is None else list(catalog.indexes),
        "gsd_m": catalog.gsd_m,
        "context_px": catalog.context_px,
        "labels": {
            "encoding": labels.encoding,
            "values": dict(labels.values),
            "column": labels.column,
            "layer": labels.layer,
            "background": labels.background,
        },
        "splits": {name: [_pair(pair, root) for pair in pairs] for name, pairs in catalog.splits.items()},
    }
    for mapping in (document["labels"], document["splits"], document):
        for key in [key for key, value in mapping.items() if value is None or value in ([], {})]:
            del mapping[key]
    return document


def _class(land_class: LandClass, catalog: Catalog) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": land_class.id, "name": land_class.name, "color": list(land_class.color)}
    if land_class in catalog.ignored:
        entry["ignore"] = True
    if land_class.id in catalog.left_out_of_mean:
        entry["in_mean"] = False
    stands_for = dict(catalog.stands_for)
    if land_class.id in stands_for:
        entry["any_of"] = list(stands_for[land_class.id])
    return entry


def _pair(pair: Pair, root: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"image": _below(pair.image, root), "label": _below(pair.label, root)}
    if pair.window is not None:
        entry["window"] = list(pair.window)
    return entry


def _below(name: str, folder: str) -> str:
    """A name relative to the folder if it lies below it, else as it is."""
    if not is_path(name) or not Path(name).is_relative_to(folder):
        return name
    return Path(name).relative_to(folder).as_posix()
