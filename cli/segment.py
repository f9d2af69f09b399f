"""`glraster segment`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options, report
from .extras import Extras


def _gsd(ctx: click.Context, param: click.Parameter, value: str | None) -> float | str | None:  # noqa: ARG001
    if value in (None, "native"):
        return value
    try:
        metres = float(str(value))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither metres nor 'native'", param=param) from error
    if not 0 < metres < float("inf"):
        raise click.BadParameter("metres per pixel must be positive", param=param)
    return metres


def _optional_path(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:  # noqa: ARG001
    return None if value is None else Path(value)


_file: dict[str, Any] = {"type": click.Path(dir_okay=False), "metavar": "FILE", "callback": _optional_path}


@click.command("segment")
@click.argument("scene")
@options.output
@click.option("-m", "--model", envvar="GLRASTER_MODEL", metavar="FILE", help="Model file; glraster's own by default.")
@options.bands
@options.bounds
@options.nodata
@click.option("--gsd", callback=_gsd, metavar="METRES|native", help="Read at this GSD; the model's by default.")
@click.option(
    "--scale",
    "value_range",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    help="Values that become black and white.",
)
@click.option("--context", "context_px", type=int, metavar="PX", help="Extent the global branch sees at once.")
@click.option("--tile", "tile_px", type=int, metavar="PX", help="Side of a local tile, a multiple of 4.")
@click.option("--overlap", "overlap_px", type=int, metavar="PX", help="Overlap of tiles, 64 or a quarter of a tile.")
@click.option(
    "--branch",
    type=click.Choice(["global", "local", "full"]),
    help="Whose scores to map; the model's richest.",
)
@click.option(
    "--merge",
    type=click.Choice(["smooth", "paper"]),
    default="smooth",
    show_default=True,
    help="How tiles meet.",
)
@click.option("--tta", is_flag=True, help="Average over eight flips and turns: slower, smoother.")
@click.option("--coarse-to-fine", is_flag=True, help="Skip tiles far from the second class: two classes, mode local.")
@click.option("--batch", type=int, metavar="N", help="Tiles at a time.")
@click.option(
    "--device", default="auto", show_default=True, envvar="GLRASTER_DEVICE", help="auto, cpu, cuda or cuda:N."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Number format.",
)
@click.option("--confidence", **_file, help="Also write the best class's probability (%).")
@click.option("--probabilities", **_file, help="Also write every class's probability (%).")
@click.option("--vectorize", "polygons", **_file, help="Also write the map as polygons, as 'glraster vectorize' does.")
@click.option("--report", "page", **_file, help="Also write a page that shows the map, as 'glraster report' does.")
@click.option("--qml", is_flag=True, help="Also write a QGIS style beside the mask, *.qml.")
@click.option("--stac", is_flag=True, help="Also write a STAC item beside the mask, *.stac.json.")
@options.creation_options
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@options.overwrite
@click.option("--dry-run", is_flag=True, help="Print what it would take; compute and write nothing.")
@options.json_output
@options.verbose
@options.quiet
def command(
    scene: str,
    output: str,
    model: str | None,
    polygons: Path | None,
    page: Path | None,
    qml: bool,
    stac: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Map the land cover of SCENE, anything GDAL opens.

    Writes a Cloud-Optimized GeoTIFF of class numbers on the scene's own grid, with class names and colours.
    An interrupted run goes on with --resume.
    """
    from glraster.workflows.segment import SegmentOptions, plan_segment, segment

    chosen = SegmentOptions(**settings)
    if model is None and not quiet:
        click.echo("glraster: using the default model (five classes, see 'glraster model info default')", err=True)
    if dry_run:
        estimate = plan_segment(scene, output, model, chosen)
        click.echo(json.dumps(estimate.to_json()) if as_json else report.estimate_text(estimate))
        return
    extras = Extras(polygons, page, qml, stac)
    extras.check(scene, output, model, chosen)
    with report.progress_bar(quiet) as progress:
        result = segment(scene, output, model, extras.settings(chosen), progress)
    told, text = extras.write(scene, output, model, chosen)
    click.echo(json.dumps(result.to_json() | told) if as_json else report.segment_text(result) + text)
