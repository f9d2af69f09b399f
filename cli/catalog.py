"""`glraster catalog deepglobe`, `inria`, `folder` and `check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options, terminal

_path = click.Path(path_type=Path)
_root = click.argument("root", type=_path)
_output = click.option(
    "-o", "--output", type=_path, metavar="FILE", help="Where to write; catalog.yaml in ROOT by default."
)
_seed = click.option("--seed", type=int, default=0, show_default=True, help="Decides which scene goes where.")


@click.group("catalog")
def command() -> None:
    """Make and check catalogs of training data."""


@command.command("deepglobe")
@_root
@_output
@click.option(
    "--split-lists",
    multiple=True,
    type=_path,
    metavar="PATH",
    help="Lists of ids: a folder with train.txt, val.txt, test.txt, or these three files, one option each.",
)
@_seed
@options.overwrite
def deepglobe_command(
    root: Path, output: Path | None, split_lists: tuple[Path, ...], seed: int, overwrite: bool
) -> None:
    """DeepGlobe land cover in ROOT, with the paper's classes and split.

    Without --split-lists the scenes are divided at random in the paper's proportions (454, 207, 142).
    """
    from glraster.labels.make_catalog import Target, deepglobe_catalog

    click.echo(terminal.catalog_text(deepglobe_catalog(root, Target(output, overwrite), split_lists, seed)))


@command.command("inria")
@_root
@_output
@options.overwrite
def inria_command(root: Path, output: Path | None, overwrite: bool) -> None:
    """Inria Aerial Image Labeling in ROOT; tiles 1 to 5 of every city validate."""
    from glraster.labels.make_catalog import Target, inria_catalog

    click.echo(terminal.catalog_text(inria_catalog(root, Target(output, overwrite))))


@command.command("folder")
@_root
@click.option("--images", required=True, metavar="GLOB", help="Images below ROOT: 'tiles/*_rgb.tif'.")
@click.option("--labels", required=True, metavar="GLOB", help="Their labels, with the same wildcards.")
@click.option(
    "--classes", callback=options.parse_classes, metavar="ID=NAME,...", help="Classes; found in the labels if absent."
)
@click.option("--val-share", type=float, default=0.2, show_default=True, help="Share of scenes that validate.")
@_seed
@_output
@options.overwrite
def folder_command(root: Path, output: Path | None, overwrite: bool, **settings: Any) -> None:
    """Any images and labels in ROOT; whole scenes are divided among the splits."""
    from glraster.labels.make_catalog import FolderOptions, Target, folder_catalog

    click.echo(terminal.catalog_text(folder_catalog(root, Target(output, overwrite), FolderOptions(**settings))))


@command.command("check")
@click.argument("file", type=_path)
@options.json_output
@options.verbose
@options.quiet
def check_command(file: Path, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """Open every file of a catalog and count its classes; ends with status 1 if something is wrong."""
    from glraster.labels.make_catalog import check_catalog_file

    report = check_catalog_file(file)
    click.echo(json.dumps(report.to_json()) if as_json else terminal.catalog_report_text(report))
    report.require_sound(str(file))
