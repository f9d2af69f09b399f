"""The classes that a raster names: by glraster's tag, an attribute table, category names, or a colour table.

All of it can come from strangers. What is malformed is left out or cleaned, with a warning; nothing here raises.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import rasterio.shutil
from rasterio.io import DatasetReader, MemoryFile

from glraster.config import NODATA, LandClass, class_color, plain
from glraster.names import is_path, redact
from glraster.raster.writer import CLASSES_TAG, GDAL_ERRORS

log = logging.getLogger(__name__)

_LONGEST_TAG, _LONGEST_NAME = 1_000_000, 200
"""Characters, at most."""
_MOST_ROWS = 2**16
"""Rows of a table and category names that are looked at."""
_MOST_NODES = 20 * _MOST_ROWS
_LARGEST_ID = 2**31 - 1

_VALUE_COLUMNS = ("value", "values", "pixel value", "pixelvalue", "class_id", "id", "code")
_NAME_COLUMNS = (
    "class_name",
    "class_names",
    "classname",
    "class name",
    "class",
    "name",
    "label",
    "category",
    "landcover",
)
_GENERIC, _NAME, _MIN_MAX, _RED, _GREEN, _BLUE = 0, 2, 5, 6, 7, 8
"""GDAL's usages of a column of an attribute table (GDALRATFieldUsage)."""
_TEXT = 2
"""GDAL's type of a column of texts (GDALRATFieldType)."""

Color = tuple[int, int, int]


def declared_classes(dataset: DatasetReader) -> tuple[LandClass, ...]:
    """The classes that a raster's `GLRASTER_CLASSES` tag declares, ids 0 to 254; none if it is absent or damaged."""
    tag = dataset.tags().get(CLASSES_TAG)
    if tag is None:
        return ()
    try:
        return _clean(_parse_tag(tag), dataset)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        log.warning("%s: its tag %s is damaged and not used", redact(dataset.name), CLASSES_TAG)
        return ()


def foreign_classes(dataset: DatasetReader, band: int) -> tuple[LandClass, ...]:
    """The classes that a raster of another program names, with any id of 32 bits.

    Names come from the first of these that has any: GDAL's raster attribute table, a table `.vat.dbf` beside a local
    file, category names. A class without a colour there takes that of the colour table, else `class_color`. Values that
    only the colour table has are called "class N".
    """
    band_xml = _band_as_xml(dataset, band)
    rows = _table_rows(band_xml) or _dbf_rows(dataset.name) or _category_rows(band_xml)
    colors = _colormap(dataset, band)
    first = {row.value: row for row in reversed(rows)}
    colors |= {row.value: row.color for row in first.values() if row.color is not None}
    names = {row.value: row.name for row in first.values()}
    nodata = dataset.nodatavals[band - 1]
    classes = tuple(
        LandClass(value, names.get(value, f"class {value}"), colors.get(value, class_color(value)))
        for value in sorted(names.keys() | colors.keys())
        if value != nodata
    )
    return _clean(classes, dataset)


def _parse_tag(tag: str) -> tuple[LandClass, ...]:
    if len(tag) > _LONGEST_TAG:
        raise ValueError("too long")
    classes = tuple(LandClass(c["id"], c["name"], _tag_color(c["color"])) for c in json.loads(tag))
    ids = [c.id for c in classes]
    sound = all(type(c.id) is int and 0 <= c.id < NODATA and type(c.name) is str and c.name.strip() for c in classes)
    if not sound or len(set(ids)) < len(ids):
        raise ValueError("ids must be whole numbers from 0 to 254, each once; names texts")
    return classes


def _tag_color(channels: Sequence[Any]) -> Color:
    red, green, blue = channels
    if not all(type(channel) is int and 0 <= channel <= 255 for channel in (red, green, blue)):
        raise ValueError("a colour has three whole numbers from 0 to 255")
    return red, green, blue


def _clean(classes: tuple[LandClass, ...], dataset: DatasetReader) -> tuple[LandClass, ...]:
    """The classes with names of one line that can be shown; a warning if that changed more than spaces."""
    cleaned = tuple(replace(c, name=plain(_one_line(c.name))[:_LONGEST_NAME]) for c in classes)
    for before, after in zip(classes, cleaned, strict=True):
        if after.name != _one_line(before.name):
            log.warning(
                "%s: class %d has a name of more than %d characters, or with some that cannot be shown; it is cut",
                redact(dataset.name),
                after.id,
                _LONGEST_NAME,
            )
            break
    return cleaned


@dataclass(frozen=True)
class _Row:
    """A class as a table or a list of categories has it, unchecked."""

    value: int
    name: str
    color: Color | None = None


def _band_as_xml(dataset: DatasetReader, band: int) -> ElementTree.Element | None:
    """A band as GDAL describes it in a virtual raster: rasterio shows neither attribute tables nor category names.

    The text is GDAL's own, so it holds no entities that could be expanded without bound. Reading ends at the sources
    of the band, which can be many, or after `_MOST_NODES` nodes.
    """
    try:
        with MemoryFile(ext=".vrt") as file:
            rasterio.shutil.copy(dataset, file.name, driver="VRT")
            nodes = ElementTree.iterparse(BytesIO(file.read()), events=("start",))
            described = None
            for _, node in islice(nodes, _MOST_NODES):
                if node.tag == "VRTRasterBand" and node.get("band") == str(band):
                    described = node
                elif described is not None and node.tag.endswith("Source"):
                    break
            return described
    except (*GDAL_ERRORS, ElementTree.ParseError):
        log.warning("%s: its class names cannot be read", redact(dataset.name))
        return None


def _table_rows(band: ElementTree.Element | None) -> list[_Row]:
    """The classes of a raster attribute table."""
    table = None if band is None else band.find("GDALRasterAttributeTable")
    if table is None:
        return []
    columns = [
        _Column(field.findtext("Name", ""), _whole(field.findtext("Usage")), _whole(field.findtext("Type")))
        for field in table.findall("FieldDefn")
    ]
    first, step = _whole(table.get("Row0Min")), _whole(table.get("BinSize"))
    values = None if first is None or step != 1 else range(first, first + _MOST_ROWS)
    cells = ([cell.text or "" for cell in row.findall("F")] for row in table.findall("Row")[:_MOST_ROWS])
    return _rows(columns, cells, values)


def _dbf_rows(name: str) -> list[_Row]:
    """The classes of a table that ArcGIS writes beside a raster: `x.tif.vat.dbf`."""
    path = Path(f"{name}.vat.dbf")
    if not (is_path(name) and path.is_file()):
        return []
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        about, _, _, columns = pyogrio.raw.read(path, read_geometry=False, max_features=_MOST_ROWS)
    except (DataSourceError, DataLayerError, ValueError):
        log.warning("%s: cannot be read as a table of classes, and is not used", path)
        return []
    fields = [
        _Column(str(field), _GENERIC, _TEXT if column.dtype.kind == "O" else None)
        for field, column in zip(about["fields"], columns, strict=True)
    ]
    cells = (["" if cell is None else str(cell) for cell in row] for row in zip(*columns, strict=True))
    return _rows(fields, cells, None)


def _category_rows(band: ElementTree.Element | None) -> list[_Row]:
    """The classes of a list of category names, whose places are the values."""
    categories = [] if band is None else band.findall("CategoryNames/Category")
    texts = [_one_line(category.text) for category in categories[:_MOST_ROWS]]
    return [_Row(value, text) for value, text in enumerate(texts) if text]


@dataclass(frozen=True)
class _Column:
    """A column of an attribute table: its name, and what GDAL says of its use and type."""

    name: str
    usage: int | None
    kind: int | None


def _rows(columns: Sequence[_Column], cells: Iterable[list[str]], values: range | None) -> list[_Row]:
    """The rows of a table by the columns that hold value, name and colour; `values` are those of the rows' places."""
    value = _place(columns, _MIN_MAX, _VALUE_COLUMNS)
    name = _place(columns, _NAME, _NAME_COLUMNS)
    if name is None:
        texts = [i for i, column in enumerate(columns) if column.kind == _TEXT]
        name = texts[0] if len(texts) == 1 else None
    if name is None or (value is None and values is None):
        return []
    channels = [_place(columns, usage, (text,)) for usage, text in ((_RED, "red"), (_GREEN, "green"), (_BLUE, "blue"))]
    rows = []
    for place, row in enumerate(cells):
        if len(row) != len(columns):
            continue
        number = _whole(row[value]) if value is not None else values[place] if values else None
        text = _one_line(row[name])
        if number is not None and text:
            rows.append(_Row(number, text, _table_color([row[i] for i in channels if i is not None])))
    return rows


def _place(columns: Sequence[_Column], usage: int, names: Sequence[str]) -> int | None:
    """The column for a usage: the first that GDAL declares for it, else the first with one of the names, in order."""
    declared = [i for i, column in enumerate(columns) if column.usage == usage]
    by_name = sorted(
        (names.index(column.name.strip().lower()), i)
        for i, column in enumerate(columns)
        if column.name.strip().lower() in names
    )
    return declared[0] if declared else by_name[0][1] if by_name else None


def _whole(text: str | None) -> int | None:
    """A whole number of 32 bits from a text such as 3, 3.0 or 3e0."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return int(number) if number.is_integer() and abs(number) <= _LARGEST_ID else None


def _table_color(cells: Sequence[str]) -> Color | None:
    """Red, green and blue as 0 to 255, or, in tables of ArcGIS, as 0.0 to 1.0 with a decimal point."""
    try:
        channels = [float(cell) for cell in cells]
    except ValueError:
        return None
    if len(channels) != 3 or not all(math.isfinite(channel) and 0 <= channel <= 255 for channel in channels):
        return None
    if max(channels) <= 1 and any("." in cell for cell in cells):
        channels = [255 * channel for channel in channels]
    red, green, blue = (round(channel) for channel in channels)
    return red, green, blue


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _colormap(dataset: DatasetReader, band: int) -> dict[int, Color]:
    """The colours of a colour table by value; none if all are equal, and without black, which fills unused entries."""
    try:
        entries: Mapping[int, Sequence[int]] = dataset.colormap(band)
    except ValueError:
        return {}
    colors = {value: (red, green, blue) for value, (red, green, blue, *_) in entries.items()}
    if len(set(colors.values())) < 2:
        return {}
    return {value: color for value, color in colors.items() if color != (0, 0, 0)}
