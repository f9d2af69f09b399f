"""Options that several verbs share: the same flag means the same thing everywhere."""

from __future__ import annotations

import logging
import re
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from glraster.cluster.client import Cluster
    from glraster.evaluation.compare import Tolerance

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


def parse_classes(
    ctx: click.Context,  # noqa: ARG001
    param: click.Parameter,
    value: str | None,
) -> tuple[tuple[int, str], ...]:
    """`0=water,1=land` as (id, name) pairs."""
    pairs = [text.partition("=") for text in value.split(",")] if value else []
    for number, _, name in pairs:
        if not (number.strip().isdecimal() and int(number) < 255 and name.strip()):
            raise click.BadParameter(f"{value!r} is not ID=NAME,ID=NAME with ids from 0 to 254", param=param)
    classes = tuple((int(number), name.strip()) for number, _, name in pairs)
    if len(dict(classes)) < len(classes) or len({name for _, name in classes}) < len(classes):
        raise click.BadParameter(f"{value!r} gives an id or a name twice", param=param)
    return classes


def parse_values(
    ctx: click.Context,  # noqa: ARG001
    param: click.Parameter,  # noqa: ARG001
    value: str | None,
) -> tuple[int | str, ...]:
    """`5,255,cloud` as numbers and names."""
    texts = [text.strip() for text in value.split(",")] if value else []
    return tuple(int(text) if text.lstrip("-").isdecimal() else text for text in texts if text)


def parse_tolerance(ctx: click.Context, param: click.Parameter, value: str) -> Tolerance:  # noqa: ARG001
    """`2`, `2m` or `3px` as a distance."""
    from glraster.evaluation.compare import Tolerance

    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(m|px)?", value.strip())
    if match is None or float(match[1]) == 0:
        raise click.BadParameter(f"{value!r} is neither metres, as 2, nor pixels, as 3px", param=param)
    return Tolerance(float(match[1]), "px" if match[2] == "px" else "m")


def cluster(
    scheduler: str | None, workers: int | None, *, gpus: bool = False
) -> AbstractContextManager[Cluster | None]:
    """The workers that --scheduler or --workers ask for; None without these options: this process computes.

    With `gpus`, processes that are started share those of this machine.
    """
    if scheduler is None and workers is None:
        return nullcontext()
    if gpus:
        from glraster.segmentation.distributed import connect

        return connect(scheduler, workers)
    from glraster.cluster.client import connected

    return connected(scheduler, workers)


def command_line() -> str:
    """The command as it was typed, for the provenance of a file."""
    return shlex.join(["glraster", *sys.argv[1:]])


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
scheduler = click.option(
    "--scheduler", metavar="ADDRESS", help="Compute on the workers of this Dask scheduler, tcp://HOST:8786."
)
workers = click.option("--workers", type=int, metavar="N", help="Compute in N processes of this machine, with Dask.")
nodata = click.option("--nodata", type=float, metavar="VALUE", help="Pixels of this value are invalid.")
json_output = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
verbose = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=_set_level, help="Say more on stderr."
)
quiet = click.option("-q", "--quiet", is_flag=True, callback=_set_level, help="Say only errors on stderr.")
tolerance = click.option(
    "--tolerance",
    default="2",
    show_default=True,
    callback=parse_tolerance,
    metavar="METRES|Npx",
    help="How far outlines may lie apart for the boundary F1.",
)

TRUTH_NAMES = ("classes", "ignore", "others", "column", "layer", "background", "resample")


def truth(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what a truth means; their values have the names in `TRUTH_NAMES`."""
    decorators = (
        click.option(
            "--classes",
            callback=parse_classes,
            metavar="ID=NAME,...",
            help="What the truth's values mean, by the names of the map's classes; the map's ids if absent.",
        ),
        click.option(
            "--ignore", callback=parse_values, metavar="VALUE,...", help="Values of the truth that are not judged."
        ),
        click.option("--others", metavar="NAME", help="The truth's class for all that only the map tells apart."),
        click.option("--column", metavar="NAME", help="Column of a vector truth with the class; 'class' if there."),
        click.option("--layer", metavar="NAME", help="Layer of a vector truth that has several."),
        click.option("--background", metavar="NAME", help="Class outside the truth's polygons; not judged if absent."),
        click.option("--resample", is_flag=True, help="Lay a truth of another grid on the map's, nearest neighbour."),
    )
    for option in reversed(decorators):
        function = option(function)
    return function
