"""`glraster vectorize`."""

from __future__ import annotations

import json
from typing import Any

import click

from . import options, progress, terminal


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
    help="Smaller patches take the class of the neighbour with the longest common border.",
)
@click.option(
    "--connectivity",
    type=click.Choice(["4", "8"]),
    default="4",
    show_default=True,
    callback=_connectivity,
    help="8: patches that touch at a corner are one.",
)
@click.option("--classes", callback=_names, metavar="A,B", help="Only these classes, by name or number.")
@click.option("--dissolve", is_flag=True, help="One multipolygon per class.")
@click.option("--dst-crs", metavar="CRS", help="CRS of the output; the mask's by default.")
@click.option("--layer", metavar="NAME", help="Name of the layer; the output's by default.")
@click.option("--confidence", metavar="FILE", help="Raster on the mask's grid whose mean becomes a column.")
@click.option("--catalog", metavar="FILE", help="Catalog with the names of the classes, if the mask has none.")
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
    from glraster.vector.vectorize import VectorizeOptions, vectorize

    spread = scheduler is not None or workers is not None
    if spread and settings["threads"] is not None:
        raise click.UsageError("--threads is for a run without --scheduler and --workers; leave it out")
    with options.cluster(scheduler, workers) as cluster, progress.rows_bar(quiet) as rows:
        result = vectorize(mask, output, VectorizeOptions(**settings), rows, cluster)
    text = json.dumps(result.to_json()) if as_json else terminal.vectorize_text(result)
    click.echo(text, err=output == "-")
