"""Make catalogs of data sets on disk, and check them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterioWindow

from glraster.catalog import Catalog, LabelEncoding, Pair, load_catalog, write_catalog
from glraster.catalog.files import glob_pairs
from glraster.catalog.layouts import (
    DEEPGLOBE_SHARES,
    deepglobe_pairs,
    inria_splits,
    listed_split,
    seeded_split,
)
from glraster.catalog.records import raise_problems
from glraster.config import NODATA, LandClass, class_color
from glraster.errors import CatalogError, UsageError
from glraster.files import claim
from glraster.labels.check import CatalogReport, check_catalog
from glraster.labels.grid import LabelRaster
from glraster.model.published import DEEPGLOBE, INRIA
from glraster.raster.class_names import declared_classes
from glraster.raster.georef import gsd_m
from glraster.raster.reader import GSD_TOLERANCE
from glraster.raster.source import OpenRaster, gdal_session

_CONTEXT_PX = 2448
_MOST_CLASSES = 64
_BLOCK = (512, 4096)


@dataclass(frozen=True)
class Target:
    """Where a catalog is written: to `output`, or to `catalog.yaml` in the data set's folder."""

    output: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class FolderOptions:
    """How to make a catalog of a folder.

    `images` and `labels` are globs below it with the same wildcards. `classes` are (id, name); if empty, they are
    read from the labels. `val_share` of the scenes, drawn with `seed`, are for validation.
    """

    images: str
    labels: str
    classes: tuple[tuple[int, str], ...] = ()
    val_share: float = 0.2
    seed: int = 0


def deepglobe_catalog(root: Path, target: Target, split_lists: Sequence[Path] = (), seed: int = 0) -> Catalog:
    """Write the catalog of DeepGlobe's land-cover track, with the classes as GLNet counts them.

    Args:
        root: see `glraster.catalog.layouts.deepglobe_pairs`.
        target: where to write.
        split_lists: the lists of the paper's split, see `listed_split`; without them scenes are divided in the
            same proportions (454, 207, 142) by `seed`.
        seed: decides the division.

    Returns:
        The catalog. The class "unknown" is learned, as in the paper, and left out of the mean.

    Raises:
        CatalogError, OutputError: if the files are not as expected, or the catalog cannot be written.
    """
    path = _free_path(root, target, [file for path in split_lists for file in (path, *path.glob("*.txt"))])
    pairs = deepglobe_pairs(Path(_folder(root)))
    splits = listed_split(pairs, split_lists) if split_lists else seeded_split(pairs, DEEPGLOBE_SHARES, seed)
    catalog = Catalog(
        name="deepglobe",
        classes=DEEPGLOBE,
        left_out_of_mean=(DEEPGLOBE[0].id,),
        bands=3,
        labels=LabelEncoding("rgb"),
        gsd_m=0.5,
        root=_folder(root),
        source=str(path),
        **splits,
    )
    write_catalog(catalog, path, overwrite=target.overwrite)
    return catalog


def inria_catalog(root: Path, target: Target) -> Catalog:
    """Write the catalog of Inria Aerial Image Labeling; tiles 1 to 5 of every city are for validation.

    Raises:
        CatalogError, OutputError: if the files are not as expected, or the catalog cannot be written.
    """
    path = _free_path(root, target)
    catalog = Catalog(
        name="inria",
        classes=INRIA,
        bands=3,
        labels=LabelEncoding("binary"),
        gsd_m=0.3,
        context_px=5000,
        root=_folder(root),
        source=str(path),
        **inria_splits(Path(_folder(root))),
    )
    write_catalog(catalog, path, overwrite=target.overwrite)
    return catalog


def folder_catalog(root: Path, target: Target, options: FolderOptions) -> Catalog:
    """Write the catalog of any folder of images and raster labels; whole scenes are divided, never parts of them.

    Class names and colours come from the labels' `GLRASTER_CLASSES` tag or colour table, if they have one.

    Raises:
        CatalogError, OutputError: if the files are not as expected, or the catalog cannot be written.
        UsageError: if the share is not between 0 and 1.
    """
    if not 0 < options.val_share < 1:
        raise UsageError(f"--val-share {options.val_share:g} must lie between 0 and 1")
    path = _free_path(root, target)
    pairs, problems = glob_pairs(_folder(root), options.images, options.labels)
    raise_problems(problems, where=str(root))
    if len(pairs) < 2:
        raise CatalogError(
            "has one scene, which cannot be divided; write a catalog with a window for each split", where=str(root)
        )
    shares = {"train": 1 - options.val_share, "val": options.val_share}
    splits = seeded_split({pair.image: pair for pair in pairs}, shares, options.seed)
    with gdal_session():
        meaning = _label_meaning(pairs, options.classes)
        form = _image_form(pairs)
    catalog = Catalog(
        name=Path(_folder(root)).name,
        classes=meaning.classes,
        ignore=meaning.ignore,
        bands=form.bands,
        labels=meaning.labels,
        gsd_m=form.gsd_m,
        context_px=form.context_px,
        root=_folder(root),
        source=str(path),
        **splits,
    )
    write_catalog(catalog, path, overwrite=target.overwrite)
    return catalog


def check_catalog_file(path: Path) -> CatalogReport:
    """Read a catalog and check all its files; see `glraster.labels.check.check_catalog`.

    Raises:
        CatalogError: if the catalog itself is wrong.
    """
    return check_catalog(load_catalog(path))


def _folder(root: Path) -> str:
    return os.path.normpath(root.absolute())


def _free_path(root: Path, target: Target, inputs: Sequence[Path] = ()) -> Path:
    """Where to write, told before the data set is looked at."""
    if not root.is_dir():
        raise CatalogError(f"{root}: is no folder; give the folder that the data set lies in")
    path = root / "catalog.yaml" if target.output is None else target.output
    claim(path, inputs=inputs, overwrite=target.overwrite)
    return path


@dataclass(frozen=True)
class _ImageForm:
    """What the images have in common."""

    bands: int
    gsd_m: float | None
    context_px: int


def _image_form(pairs: Sequence[Pair]) -> _ImageForm:
    bands, sides, sizes_m = [], [], []
    for pair in pairs:
        with OpenRaster(pair.image) as image:
            bands.append(len(image.value_bands))
            sides.append(max(image.shape))
            sizes_m.append(gsd_m(image.crs, image.transform, *image.shape))
    sizes = [sum(size) / 2 for size in sizes_m if size is not None]
    alike = len(sizes) == len(pairs) and max(sizes) <= min(sizes) * (1 + GSD_TOLERANCE)
    return _ImageForm(min(bands), float(f"{median(sizes):.4g}") if alike else None, min(_CONTEXT_PX, max(sides)))


@dataclass(frozen=True)
class _LabelMeaning:
    classes: tuple[LandClass, ...]
    labels: LabelEncoding
    ignore: tuple[int, ...] = ()


@dataclass
class _LabelContent:
    """What the labels hold: their values, and the names and colours that they declare."""

    values: set[int] = field(default_factory=set)
    declared: dict[int, LandClass] = field(default_factory=dict)
    colors: dict[int, tuple[int, int, int]] = field(default_factory=dict)


def _label_meaning(pairs: Sequence[Pair], named: Sequence[tuple[int, str]]) -> _LabelMeaning:
    """Classes and encoding according to the labels; if classes are named, only the first label is read."""
    content = _LabelContent()
    for pair in pairs[:1] if named else pairs:
        with LabelRaster(pair.label) as label:
            _read_label(label, content)
    names = dict(named)
    if content.values <= {0, NODATA} and NODATA in content.values and names.keys() <= {0, 1}:
        names = names or {0: "background", 1: "foreground"}
        return _LabelMeaning(_named_classes(names, _LabelContent()), LabelEncoding("binary"))
    if not names:
        names = {c.id: c.name for c in content.declared.values()}
        names = {i: names.get(i, f"class_{i}") for i in sorted((content.values | names.keys()) - {NODATA})}
    if len(names) < 2:
        raise CatalogError(f"the labels have one class, {', '.join(names.values())}; a map needs two or more")
    ignore = (NODATA,) if NODATA in content.values else ()
    return _LabelMeaning(_named_classes(names, content), LabelEncoding("index"), ignore)


def _read_label(label: LabelRaster, content: _LabelContent) -> None:
    dataset = label.dataset
    if dataset.count >= 3:
        raise CatalogError(
            f"{label.path}: has {dataset.count} bands, so it is a coloured mask; write the catalog by hand with "
            "encoding: rgb"
        )
    for block in label.extent.blocks(*_BLOCK):
        source = RasterioWindow(block.left, block.top, block.width, block.height)
        values = label.read_bands(1, window=source)
        content.values |= set(np.unique(values[label.read_masks(1, window=source) > 0]).tolist())
    beyond = sorted(value for value in content.values if value not in range(NODATA + 1))
    if beyond or len(content.values) > _MOST_CLASSES:
        evidence = f"the value {beyond[0]:g}" if beyond else f"more than {_MOST_CLASSES} values"
        raise CatalogError(
            f"{label.path}: has {evidence}, so it holds no class ids; write the catalog by hand with labels.values"
        )
    content.values = {int(value) for value in content.values}
    content.declared |= {c.id: c for c in declared_classes(dataset)}
    if ColorInterp.palette in dataset.colorinterp[:1]:
        content.colors |= {value: color[:3] for value, color in dataset.colormap(1).items()}


def _named_classes(names: dict[int, str], content: _LabelContent) -> tuple[LandClass, ...]:
    colors = {**content.colors, **{c.id: c.color for c in content.declared.values()}}
    return tuple(LandClass(i, name, colors.get(i, class_color(i))) for i, name in names.items())
