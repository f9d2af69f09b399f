"""`glraster report`."""

from __future__ import annotations

import json
from typing import Any

import click

from . import options


@click.command("report")
@click.argument("run_or_mask")
@options.output
@click.option("--scene", metavar="FILE", help="The scene of the map, to look at.")
@click.option("--truth", metavar="FILE", help="A raster, polygons or points to hold the map against.")
@click.option("--confidence", metavar="FILE", help="What 'segment --confidence' wrote with the map.")
@click.option("-m", "--model", metavar="FILE", help="The model that made the map, for its provenance.")
@options.truth
@options.tolerance
@options.overwrite
@options.json_output
@options.verbose
@options.quiet
def command(run_or_mask: str, output: str, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Write one HTML file that shows a map, or the folder of a training.

    It needs no network and no other file: open it with a double click, or send it on.
    """
    from dataclasses import asdict

    from glraster.reporting.report import ReportOptions, TruthOptions, write_report

    meaning = TruthOptions(**{name: settings.pop(name) for name in options.TRUTH_NAMES})
    result = write_report(
        run_or_mask, output, ReportOptions(meaning=meaning, command=options.command_line(), **settings)
    )
    if as_json:
        click.echo(json.dumps(asdict(result)))
    elif not quiet:
        click.echo(f"{result.output}: {result.bytes / 1e6:.1f} MB, one file, open it in a browser")
