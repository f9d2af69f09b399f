"""`glraster preview`."""

from __future__ import annotations

from typing import Any

import click

from . import options


@click.command("preview")
@click.argument("mask")
@options.output
@click.option("--size", type=int, default=1200, show_default=True, metavar="PX", help="The map's longer side.")
@click.option("--title", metavar="TEXT", help="Above the map; the file's name if absent.")
@options.overwrite
@options.verbose
@options.quiet
def command(mask: str, output: str, quiet: bool, **settings: Any) -> None:
    """Draw MASK with its legend, class areas and a scale bar, as PNG."""
    from glraster.reporting.preview import PreviewOptions, preview

    picture = preview(mask, output, PreviewOptions(**settings))
    if not quiet:
        click.echo(str(picture))
