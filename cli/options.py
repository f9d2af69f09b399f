"""Options that several verbs share: the same flag means the same thing everywhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _set_level(ctx: click.Context, param: click.Parameter, value: Any) -> Any:  # noqa: ARG001
    if value:
        logging.getLogger("glraster").setLevel(logging.INFO if param.name == "verbose" else logging.ERROR)
    return value


def parse_creation_options(
    ctx: click.Context,  # noqa: ARG001
    param: click.Parameter,
    values: tuple[str, ...],
) -> tuple[tuple[str, str], ...]:
    """`NAME=VALUE` texts as pairs."""
    pairs = [text.partition("=") for text in values]
    for (name, equals, _), text in zip(pairs, values, strict=True):
        if not (name and equals):
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param=param)
    return tuple((name, value) for name, _, value in pairs)


def parse_bands(
    ctx: click.Context,  # noqa: ARG001
    param: click.Parameter,
    values: tuple[str, ...],
) -> tuple[int, ...] | None:
    """`-b 3 -b 2` or `-b 3,2` as band numbers."""
    try:
        bands = tuple(int(number) for text in values for number in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{','.join(values)!r} is not a list of band numbers", param=param) from error
    return bands or None


output = click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False), metavar="FILE", help="Where to write."
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
creation_options = click.option(
    "--co",
    "creation_options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=parse_creation_options,
    help="Creation option of GDAL's COG driver; repeatable.",
)
bands = click.option(
    "-b",
    "--bidx",
    "indexes",
    multiple=True,
    callback=parse_bands,
    metavar="BANDS",
    help="Bands to read, from 1: -b 4,3,2.",
)
bounds = click.option(
    "--bounds",
    nargs=4,
    type=float,
    metavar="LEFT BOTTOM RIGHT TOP",
    help="Only this extent, in the scene's CRS.",
)
nodata = click.option("--nodata", type=float, metavar="VALUE", help="Pixels of this value are invalid.")
json_output = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
verbose = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=_set_level, help="Say more on stderr."
)
quiet = click.option("-q", "--quiet", is_flag=True, callback=_set_level, help="Say only errors on stderr.")
