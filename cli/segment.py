"""`glraster segment`."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options, terminal
from .extras import Extras

if TYPE_CHECKING:
    from glraster.cluster.client import Cluster
    from glraster.segmentation.scenes import SceneOutcome
    from glraster.segmentation.segment import SegmentOptions


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
@click.argument("scenes", nargs=-1, required=True, metavar="SCENE...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    metavar="FILE|FOLDER",
    help="Where to write; a folder for several scenes.",
)
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
@options.scheduler
@options.workers
@click.option("--parts", metavar="PLACE", help="Where parts are kept: a folder, or s3://BUCKET/KEY; beside the output.")
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
    scenes: tuple[str, ...],
    output: str,
    model: str | None,
    polygons: Path | None,
    page: Path | None,
    qml: bool,
    stac: bool,
    scheduler: str | None,
    workers: int | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> int:
    """Map the land cover of every SCENE, anything GDAL opens.

    Writes a Cloud-Optimized GeoTIFF of class numbers on the scene's own grid, with class names and colours.
    Several scenes go to a folder, as NAME.tif; one that fails does not stop the others.
    An interrupted run goes on with --resume.
    """
    from glraster.cluster.client import connected
    from glraster.segmentation.segment import SegmentOptions, plan_segment, segment

    chosen, extras = SegmentOptions(**settings), Extras(polygons, page, qml, stac)
    if model is None and not quiet:
        click.echo("glraster: using the default model (five classes, see 'glraster model info default')", err=True)
    # Path.is_dir raises where a name is too long
    several = len(scenes) > 1 or output.endswith("/") or os.path.isdir(output)  # noqa: PTH112
    if several:
        _refuse_single({"--vectorize": polygons, "--report": page, "--dry-run": dry_run})
    elif dry_run:
        estimate = plan_segment(scenes[0], output, model, chosen)
        click.echo(json.dumps(estimate.to_json()) if as_json else terminal.estimate_text(estimate))
        return 0
    else:
        extras.check(scenes[0], output, model, chosen)
    with connected(scheduler, workers) if scheduler or workers is not None else nullcontext() as cluster:
        if several:
            return _segment_scenes((scenes, output, model), chosen, extras, cluster, as_json, quiet)
        with terminal.progress_bar(quiet) as progress:
            result = segment(scenes[0], output, model, extras.settings(chosen), progress, cluster)
    told, text = extras.write(scenes[0], output, model, chosen)
    click.echo(json.dumps(result.to_json() | told) if as_json else terminal.segment_text(result) + text)
    return 0


def _segment_scenes(
    call: tuple[tuple[str, ...], str, str | None],
    chosen: SegmentOptions,
    extras: Extras,
    cluster: Cluster | None,
    as_json: bool,
    quiet: bool,
) -> int:
    from glraster.segmentation.scenes import ScenesOptions, Watch, segment_scenes

    def tell(outcome: SceneOutcome) -> None:
        if outcome.error is not None:
            told = "; ".join([str(outcome.error), *getattr(outcome.error, "__notes__", [])])
            click.echo(f"glraster: error: {told}", err=True)
        elif not as_json:
            click.echo(terminal.segment_text(outcome.result) if outcome.result else f"{outcome.output}: kept")

    options = ScenesOptions(chosen, extras.sidecars())
    with terminal.scenes_bar(quiet) as progress:
        result = segment_scenes(*call, options, cluster, Watch(tell, progress))
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        fates = {fate: result.count(fate) for fate in ("done", "kept", "failed")}
        counts = ", ".join(f"{count} {fate}" for fate, count in fates.items() if count)
        click.echo(f"{len(result.scenes)} scenes: {counts}")
    return result.exit_code


def _refuse_single(given: dict[str, object]) -> None:
    for name, value in given.items():
        if value:
            raise click.UsageError(f"{name} is for one scene and an output that is a file; leave it out")
