"""`glraster vectorize`."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options

if TYPE_CHECKING:
    from glraster.segmentation.segment import SegmentOptions
    from glraster.vector.vectorize import VectorizeResult


log = logging.getLogger("glraster")


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:  # noqa: ARG001
    names = tuple(name.strip() for name in value.split(",") if name.strip()) if value else ()
    if value is not None and not names:
        raise click.BadParameter("names no class", param=param)
    return names or None


def _connectivity(ctx: click.Context, param: click.Parameter, value: str) -> int:  # noqa: ARG001
    return int(value)


@click.command("vectorize")
@click.argument("mask")
@options.output
@click.option("--simplify", "simplify_m", type=float, metavar="METRES", help="Simplify borders; they stay shared.")
@click.option("--smooth", is_flag=True, help="Round the corners of borders; they stay shared.")
@click.option(
    "--min-area",
    "min_area_m2",
    type=float,
    metavar="M2",
    help="Smaller parts take the class of the neighbour with the longest common border.",
)
@click.option(
    "--connectivity",
    type=click.Choice(["4", "8"]),
    default="4",
    show_default=True,
    callback=_connectivity,
    help="8: parts that touch at a corner are one.",
)
@click.option("--classes", callback=_names, metavar="A,B", help="Only these classes, by name or number.")
@click.option("--dissolve", is_flag=True, help="One multipolygon per class.")
@click.option("--dst-crs", metavar="CRS", help="CRS of the output; the mask's by default.")
@click.option("--layer", metavar="NAME", help="Name of the layer; the output's by default.")
@click.option("--confidence", metavar="FILE", help="Raster on the mask's grid whose mean becomes a column.")
@click.option("--catalog", metavar="FILE", help="Catalog that names the classes where the mask does not.")
@options.bounds
@click.option("--threads", type=int, metavar="N", help="Threads that trace.")
@options.scheduler
@options.workers
@click.option("--resume", is_flag=True, help="Repeat an interrupted run; it starts anew.")
@options.overwrite
@options.json_output
@options.verbose
@options.quiet
def command(
    mask: str, output: str, scheduler: str | None, workers: int | None, as_json: bool, quiet: bool, **settings: Any
) -> None:
    """Turn the class MASK, anything GDAL opens, into polygons that share their borders.

    The ending of the output says its format: .gpkg (with a style), .parquet, .fgb, .geojson, .geojsonl; - writes
    GeoJSON lines to standard output.
    """
    with _without("geopandas", "pandas", "shapely"):
        import pyogrio.raw  # noqa: F401
    with _without("scipy"):
        from glraster.cluster.client import connected
        from glraster.vector.vectorize import VectorizeOptions, vectorize

        far = scheduler is not None or workers is not None
        if far and settings["threads"] is not None:
            raise click.UsageError("--threads is for a run without --scheduler and --workers; leave it out")
        with (
            connected(scheduler, workers) if far else nullcontext() as cluster,
            _rows_bar(quiet) as progress,
        ):
            result = vectorize(mask, output, VectorizeOptions(**settings), progress, cluster)
    text = json.dumps(result.to_json()) if as_json else _text(result)
    click.echo(text, err=output == "-")


@contextmanager
def _rows_bar(quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr that counts rows; nothing where stderr is no terminal."""
    from glraster.vector.compiled import first_compilation

    if quiet or not sys.stderr.isatty():
        with first_compilation(log.info):
            yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, transient=True) as bar, first_compilation(console.print):
        task = bar.add_task("vectorizing")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _text(result: VectorizeResult) -> str:
    """The outcome of a vectorization for people."""
    lines = [
        f"{result.output}: {result.polygons} polygons of a mask of {result.width} x {result.height} px",
        f"{result.seconds:.1f} s, {result.peak_memory_bytes / 2**20:.0f} MiB memory at most",
    ]
    width = max((len(c.name) for c in result.classes), default=0)
    for c in result.classes:
        area = "" if c.area_m2 is None else f"  {c.area_m2 / 1e4:.2f} ha"
        lines.append(f"  {c.id:>3}  {c.name:<{width}}  {c.polygons:>9}{area}")
    return "\n".join(lines)


def check_output(polygons: Path, mask: str, overwrite: bool) -> None:
    """Tell before a long segmentation what would stop its polygons from being written."""
    from glraster.vector.job import check_output as check

    check(str(polygons), mask, overwrite)


def of_segment(mask: str, polygons: Path, segmented: SegmentOptions) -> tuple[dict[str, Any], str]:
    """Vectorize the mask that was just written; return the result as JSON values and as text."""
    from glraster.vector.vectorize import VectorizeOptions, vectorize

    options = VectorizeOptions(confidence=segmented.confidence, overwrite=segmented.overwrite)
    result = vectorize(mask, polygons, options)
    return result.to_json(), _text(result)


@contextmanager
def _without(*libraries: str) -> Iterator[None]:
    """Keep libraries out that others import where they are: half a second for nothing that is used here."""
    absent = [name for name in libraries if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
