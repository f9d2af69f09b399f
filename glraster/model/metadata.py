"""The spec of a model as JSON, as a model file's header holds it. Needs no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import TypeVar, get_args

from glraster.config import NODATA, Architecture, LandClass, Mode, ModelSpec, is_plain

FORMAT_VERSION = 1
BACKBONES = ("resnet18", "resnet34", "resnet50", "lite0", "lite1", "lite2")
FIXED_STEMS = {"lite0": 32, "lite1": 32, "lite2": 32}
"""Channels of the stem of backbones that have no choice of it."""

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")

Fields = Mapping[str, object]
T = TypeVar("T")


def dump_spec(spec: ModelSpec) -> str:
    """Write a spec as JSON.

    Args:
        spec: of the model.

    Returns:
        The JSON text, which `parse_spec` reads back to an equal spec.

    Raises:
        ValueError: if the spec contradicts itself.
    """
    provenance = dict(spec.provenance)
    text = json.dumps(
        {"format_version": FORMAT_VERSION, **asdict(spec), "provenance": provenance},
        ensure_ascii=False,
        sort_keys=True,
    )
    parse_spec(text)
    return text


def parse_spec(text: str) -> ModelSpec:
    """Read a spec from JSON and check every field.

    Args:
        text: what `dump_spec` wrote.

    Returns:
        The spec.

    Raises:
        ValueError: if a field is missing, unknown or impossible; the message names it.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("the metadata is not JSON") from error
    version = record.pop("format_version", None) if isinstance(record, dict) else None
    if _whole("format_version", version, 1) > FORMAT_VERSION:
        raise ValueError(f"format version {version} is newer than this glraster knows; upgrade glraster")
    record.setdefault("bfloat16_agreement", None)  # older files lack it
    values = _fields("the metadata", record, ModelSpec)
    architecture = _architecture(values["architecture"])
    spec = ModelSpec(
        architecture=architecture,
        classes=_classes(values["classes"], architecture.classes),
        dtype=_choice("dtype", values["dtype"], DTYPES),
        scale=_positive("scale", values["scale"]),
        mean=_per_band("mean", values["mean"], architecture.bands, _number),
        std=_per_band("std", values["std"], architecture.bands, _positive),
        gsd_m=None if values["gsd_m"] is None else _positive("gsd_m", values["gsd_m"]),
        context_px=_whole("context_px", values["context_px"], 1),
        tile_px=_whole("tile_px", values["tile_px"], 1),
        thumbnail_px=_whole("thumbnail_px", values["thumbnail_px"], 1),
        bfloat16_agreement=_share("bfloat16_agreement", values["bfloat16_agreement"]),
        provenance=_mapping("provenance", values["provenance"]),
    )
    if spec.tile_px % 4:
        raise ValueError(f"tile_px {spec.tile_px} is not a multiple of 4")
    return spec


def _architecture(value: object) -> Architecture:
    values = _fields("architecture", value, Architecture)
    mode = _choice("architecture.mode", values["mode"], get_args(Mode))
    width = _whole("architecture.width", values["width"], 2)
    if width % 2:
        raise ValueError(f"architecture.width {width} is odd")
    backbone = _choice("architecture.backbone", values["backbone"], BACKBONES)
    stem = _whole("architecture.stem", values["stem"], 1)
    if stem != FIXED_STEMS.get(backbone, stem):
        raise ValueError(f"architecture.stem is {stem}, {backbone} has {FIXED_STEMS[backbone]} channels there")
    return Architecture(
        mode=mode,
        bands=_whole("architecture.bands", values["bands"], 1),
        classes=_whole("architecture.classes", values["classes"], 1),
        backbone=backbone,
        width=width,
        stem=stem,
    )


def _classes(value: object, count: int) -> tuple[LandClass, ...]:
    classes = tuple(_land_class(f"classes[{i}]", item) for i, item in enumerate(_list("classes", value)))
    if len(classes) != count:
        raise ValueError(f"{len(classes)} classes are described, the network has {count}")
    ids = [land_class.id for land_class in classes]
    repeated = sorted({i for i in ids if ids.count(i) > 1})
    if repeated:
        raise ValueError(f"class id {repeated[0]} is given twice")
    return classes


def _land_class(where: str, value: object) -> LandClass:
    values = _fields(where, value, LandClass)
    name = values["name"]
    if not isinstance(name, str) or not name.strip() or not is_plain(name):
        raise ValueError(f"{where}.name is {name!r}, not a name")
    color = [_whole(f"{where}.color", part, 0, 255) for part in _list(f"{where}.color", values["color"])]
    if len(color) != 3:
        raise ValueError(f"{where}.color has {len(color)} parts, not red, green and blue")
    return LandClass(_whole(f"{where}.id", values["id"], 0, NODATA - 1), name, (color[0], color[1], color[2]))


def _fields(where: str, value: object, record: type) -> Fields:
    """The fields of a record; a missing or an unknown one is an error."""
    values = _mapping(where, value)
    expected = {field.name for field in fields(record)}
    for problem, names in (("lacks", expected - set(values)), ("has unknown", set(values) - expected)):
        if names:
            raise ValueError(f"{where} {problem} {', '.join(sorted(names))}")
    return values


def _mapping(where: str, value: object) -> Fields:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {value!r}, not an object")
    return value


def _list(where: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"{where} is {value!r}, not a list")
    return value


def _choice(where: str, value: object, choices: tuple[T, ...]) -> T:
    for choice in choices:
        if value == choice:
            return choice
    raise ValueError(f"{where} is {value!r}, not one of {', '.join(map(str, choices))}")


def _whole(where: str, value: object, least: int, most: int | None = None) -> int:
    # bool is a subclass of int
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most and value > most):
        span = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise ValueError(f"{where} is {value!r}, not a whole number {span}")
    return value


def _number(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where} is {value!r}, not a finite number")
    return float(value)


def _share(where: str, value: object) -> float | None:
    share = None if value is None else _number(where, value)
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"{where} is {value!r}, not a share from 0 to 1")
    return share


def _positive(where: str, value: object) -> float:
    number = _number(where, value)
    if number <= 0:
        raise ValueError(f"{where} is {value!r}, not a positive number")
    return number


def _per_band(where: str, value: object, bands: int, check: Callable[[str, object], float]) -> tuple[float, ...]:
    items = _list(where, value)
    if len(items) not in (1, bands):
        raise ValueError(f"{where} has {len(items)} values for {bands} bands; give one, or one per band")
    return tuple(check(where, item) for item in items)
