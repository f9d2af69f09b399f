"""`glraster segment`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options, progress, terminal

if TYPE_CHECKING:
    from glraster.cluster.client import Cluster
    from glraster.interchange.sidecars import Sidecars
    from glraster.reporting.report import ReportOptions
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
    from glraster.process import keep_freed_memory
    from glraster.segmentation.segment import SegmentOptions

    further = FurtherOutputs(**{name: settings.pop(name) for name in ("polygons", "page", "qml", "stac")})
    call = _Call(scenes, output, model, SegmentOptions(**settings), further)
    if model is None and not quiet:
        click.echo("glraster: using the default model (five classes, see 'glraster model info default')", err=True)
    if call.several:
        call.refuse_options_of_one_scene(dry_run)
    elif dry_run:
        return _print_estimate(call, as_json)
    else:
        further.check(call)
    keep_freed_memory()
    with options.cluster(scheduler, workers, gpus=True) as cluster:
        run = _segment_scenes if call.several else _segment_scene
        return run(call, cluster, as_json, quiet)


@dataclass(frozen=True)
class _Call:
    """What the user asked for."""

    scenes: tuple[str, ...]
    output: str
    model: str | None
    options: SegmentOptions
    further: FurtherOutputs

    @property
    def several(self) -> bool:
        # Path.is_dir raises if a name is too long
        return len(self.scenes) > 1 or self.output.endswith("/") or os.path.isdir(self.output)  # noqa: PTH112

    def refuse_options_of_one_scene(self, dry_run: bool) -> None:
        given = {"--vectorize": self.further.polygons, "--report": self.further.page, "--dry-run": dry_run}
        for name, value in given.items():
            if value:
                raise click.UsageError(f"{name} is for one scene and an output that is a file; leave it out")


def _print_estimate(call: _Call, as_json: bool) -> int:
    from glraster.segmentation.segment import plan_segment

    estimate = plan_segment(call.scenes[0], call.output, call.model, call.options)
    click.echo(json.dumps(estimate.to_json()) if as_json else terminal.estimate_text(estimate))
    return 0


def _segment_scene(call: _Call, cluster: Cluster | None, as_json: bool, quiet: bool) -> int:
    from glraster.segmentation.segment import segment

    with progress.windows_bar(quiet) as show:
        settings = call.further.settings(call.options)
        result = segment(call.scenes[0], call.output, call.model, settings, show, cluster)
    values, lines = call.further.write(call)
    if as_json:
        click.echo(json.dumps(result.to_json() | values))
    else:
        click.echo("\n".join([terminal.segment_text(result), *lines]))
    return 0


def _segment_scenes(call: _Call, cluster: Cluster | None, as_json: bool, quiet: bool) -> int:
    from glraster.segmentation.scenes import ScenesOptions, Watch, segment_scenes

    def print_outcome(outcome: SceneOutcome) -> None:
        if outcome.error is not None:
            message = "; ".join([str(outcome.error), *getattr(outcome.error, "__notes__", [])])
            click.echo(f"glraster: error: {message}", err=True)
        elif not as_json:
            click.echo(terminal.segment_text(outcome.result) if outcome.result else f"{outcome.output}: kept")

    settings = ScenesOptions(call.options, call.further.sidecars())
    with progress.scenes_bar(quiet) as show:
        result = segment_scenes(call.scenes, call.output, call.model, settings, cluster, Watch(print_outcome, show))
    click.echo(json.dumps(result.to_json()) if as_json else terminal.scenes_text(result))
    return result.exit_code


@dataclass(frozen=True)
class FurtherOutputs:
    """What is written beside a mask on request: polygons, a report `page`, a QGIS style, a STAC item."""

    polygons: Path | None = None
    page: Path | None = None
    qml: bool = False
    stac: bool = False

    def sidecars(self) -> Sidecars:
        """The files that are named after their mask."""
        from glraster.interchange.sidecars import Sidecars

        return Sidecars(stac=self.stac, qml=self.qml)

    def settings(self, options: SegmentOptions) -> SegmentOptions:
        """The options of the segmentation: a report shows the confidence, so it needs one, for a while at least."""
        if self.page is None or options.confidence is not None:
            return options
        return replace(options, confidence=self.page.with_name(f"{self.page.name}.confidence.tif"))

    def check(self, call: _Call) -> None:
        """Refuse outputs that cannot be written, before a long segmentation.

        Raises:
            GlrasterError: with what to do.
        """
        from glraster.files import claim, refuse_duplicates
        from glraster.interchange.sidecars import check_sidecars
        from glraster.raster.source import input_files
        from glraster.vector.output import ending_of

        mask, settings = Path(call.output), call.options
        further = [path for path in (self.polygons, self.page) if path is not None]
        rasters = [path for path in (mask, settings.confidence, settings.probabilities) if path is not None]
        refuse_duplicates([*rasters, *further, *self.sidecars().paths(mask)])
        if self.polygons is not None:
            ending_of(str(self.polygons))
        claim(*further, inputs=input_files(call.scenes[0], call.model), overwrite=settings.overwrite)
        check_sidecars(mask, self.sidecars(), overwrite=settings.overwrite)

    def write(self, call: _Call) -> tuple[dict[str, Any], list[str]]:
        """Write all of it beside the finished mask; return what to print, as JSON values and as lines."""
        from glraster.interchange.sidecars import write_sidecars

        values: dict[str, Any] = {}
        lines = []
        confidence, probabilities = call.options.confidence, call.options.probabilities
        write_sidecars(call.scenes[0], call.output, self.sidecars(), confidence=confidence, probabilities=probabilities)
        if self.polygons is not None:
            from glraster.vector.vectorize import VectorizeOptions, vectorize

            settings = VectorizeOptions(confidence=confidence, overwrite=call.options.overwrite)
            vectorized = vectorize(call.output, self.polygons, settings)
            values["vectorized"] = vectorized.to_json()
            lines.append(terminal.vectorize_text(vectorized))
        if self.page is not None:
            values |= self._write_report(call, self.page)
            lines.append(f"{self.page}: open it in a browser")
        return values, lines

    def _write_report(self, call: _Call, page: Path) -> dict[str, Any]:
        from glraster.reporting.report import write_report

        confidence = self.settings(call.options).confidence
        assert confidence is not None
        write_report(call.output, page, _report_options(call, confidence))
        if call.options.confidence is not None:
            return {"report": str(page)}
        confidence.unlink(missing_ok=True)
        return {"confidence": None, "report": str(page)}


def _report_options(call: _Call, confidence: Path | None) -> ReportOptions:
    from glraster.reporting.report import ReportOptions

    return ReportOptions(
        scene=call.scenes[0],
        confidence=confidence,
        model=call.model,
        command=options.command_line(),
        overwrite=call.options.overwrite,
    )
