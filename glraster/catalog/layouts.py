"""Find the images and labels of public data sets on disk, and divide whole scenes among the splits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypedDict

from glraster.catalog.files import natural_key
from glraster.catalog.records import SPLITS, Pair, Split, raise_problems
from glraster.errors import CatalogError


class Splits(TypedDict):
    """The pairs of every split, as the fields of a catalog."""

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    test: tuple[Pair, ...]


DEEPGLOBE_SHARES = {"train": 454, "val": 207, "test": 142}
"""Scenes per split in GLNet's paper."""

INRIA_CITIES = ("austin", "chicago", "kitsap", "tyrol-w", "vienna")
INRIA_VALIDATION_TILES = range(1, 6)

_DEEPGLOBE_FOLDERS = ("land-train", "train", ".")
_INRIA_FOLDERS = ("AerialImageDataset/train", "train", ".")


def deepglobe_pairs(root: Path) -> dict[str, Pair]:
    """The labelled scenes of DeepGlobe's land-cover track by their ids.

    Args:
        root: a folder with `land-train/` (or `train/`, as on Kaggle) that holds `<id>_sat.jpg`, `<id>_mask.png`.

    Raises:
        CatalogError: if there are no scenes, or scenes without mask; all are named.
    """
    for folder in (root / name for name in _DEEPGLOBE_FOLDERS):
        images = sorted(folder.glob("*_sat.jpg"), key=lambda path: natural_key(path.name))
        if images:
            pairs = {path.name.removesuffix("_sat.jpg"): path for path in images}
            return _with_labels({name: (path, path.with_name(f"{name}_mask.png")) for name, path in pairs.items()})
    raise CatalogError(
        f"{root}: has no land-train/*_sat.jpg or train/*_sat.jpg; give the folder that DeepGlobe lies in"
    )


def inria_splits(root: Path) -> Splits:
    """The labelled tiles of Inria Aerial Image Labeling; tiles 1 to 5 of every city are for validation.

    Args:
        root: a folder with `AerialImageDataset/train/` that holds `images/` and `gt/` with `austin1.tif` and so on.

    Raises:
        CatalogError: if there are no tiles, or tiles without label; all are named.
    """
    pattern = re.compile(rf"({'|'.join(INRIA_CITIES)})(\d+)\.tif")
    for folder in (root / name for name in _INRIA_FOLDERS):
        tiles = {path.name: path for path in (folder / "images").glob("*.tif") if pattern.fullmatch(path.name)}
        if tiles:
            names = sorted(tiles, key=natural_key)
            pairs = _with_labels({name: (tiles[name], folder / "gt" / name) for name in names})
            numbers = {name: int(match[2]) for name in names if (match := pattern.fullmatch(name))}
            val = [name for name in names if numbers[name] in INRIA_VALIDATION_TILES]
            return _splits(pairs, {"train": [name for name in names if name not in val], "val": val, "test": []})
    raise CatalogError(
        f"{root}: has no AerialImageDataset/train/images with tiles such as austin1.tif; give the folder that the "
        "data set lies in"
    )


def _with_labels(files: Mapping[str, tuple[Path, Path]]) -> dict[str, Pair]:
    raise_problems(
        [f"{image} has no label; {label} does not exist" for image, label in files.values() if not label.exists()]
    )
    return {name: Pair(str(image.absolute()), str(label.absolute())) for name, (image, label) in files.items()}


def seeded_split(pairs: Mapping[str, Pair], shares: Mapping[str, float], seed: int) -> Splits:
    """Divide scenes among the splits in given proportions.

    A hash of the seed and its name decides a scene's split, so it is the same on every machine and version.

    Args:
        pairs: scenes by name.
        shares: weights of train, val and test; one that is absent gets nothing. Every other gets at least one
            scene if there are enough.
        seed: decides the division.
    """
    ranked = sorted(pairs, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    used: list[Split] = [split for split in SPLITS if shares.get(split)]
    whole = sum(Fraction(shares[split]) for split in used)
    counts = {split: round(len(ranked) * Fraction(shares[split]) / whole) for split in used[1:]}
    counts = {split: max(1, count) if len(ranked) >= len(used) else count for split, count in counts.items()}
    names_of: dict[Split, list[str]] = {}
    for split, count in counts.items():
        names_of[split], ranked = ranked[:count], ranked[count:]
    names_of[used[0]] = ranked
    return _splits(pairs, {split: sorted(names, key=natural_key) for split, names in names_of.items()})


def listed_split(pairs: Mapping[str, Pair], lists: Sequence[Path]) -> Splits:
    """Divide scenes by three text files with one id (or image name) a line.

    Args:
        pairs: scenes by id.
        lists: one folder with train.txt, val.txt and test.txt, or these three files in this order.

    Raises:
        CatalogError: if a list cannot be read, names an unknown scene, or shares one with another list.
    """
    if len(lists) == 1 and lists[0].is_dir():
        lists = [lists[0] / f"{split}.txt" for split in SPLITS]
    if len(lists) != len(SPLITS):
        raise CatalogError(f"{len(lists)} split lists given; give a folder, or the lists of train, val and test")
    problems: list[str] = []
    names_of: dict[Split, list[str]] = {}
    first: dict[str, Path] = {}
    for split, path in zip(SPLITS, lists, strict=True):
        names_of[split] = _read_ids(path, problems)
        for name in names_of[split]:
            if name not in pairs:
                problems.append(f"{path}: {name} is no scene of the data set")
            if first.setdefault(name, path) != path:
                problems.append(f"{path}: {name} is in {first[name].name} too; a scene belongs to one split")
    raise_problems(problems)
    return _splits(pairs, names_of)


def _read_ids(path: Path, problems: list[str]) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        problems.append(f"{path}: cannot be read; it must be a text file with one id a line")
        return []
    return list(dict.fromkeys(re.sub(r"(_sat|_mask)?(\.\w+)?$", "", line) for line in lines))


def _splits(pairs: Mapping[str, Pair], names: Mapping[Split, Sequence[str]]) -> Splits:
    train, val, test = (tuple(pairs[name] for name in names.get(split, ())) for split in SPLITS)
    return Splits(train=train, val=val, test=test)
