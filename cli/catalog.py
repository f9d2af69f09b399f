"""`glraster catalog deepglobe`, `inria`, `folder` and `check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options

if TYPE_CHECKING:
    from glraster.catalog import Catalog
    from glraster.labels.check import CatalogReport, SplitReport

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

    click.echo(_catalog_text(deepglobe_catalog(root, Target(output, overwrite), split_lists, seed)))


@command.command("inria")
@_root
@_output
@options.overwrite
def inria_command(root: Path, output: Path | None, overwrite: bool) -> None:
    """Inria Aerial Image Labeling in ROOT; tiles 1 to 5 of every city validate."""
    from glraster.labels.make_catalog import Target, inria_catalog

    click.echo(_catalog_text(inria_catalog(root, Target(output, overwrite))))


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

    click.echo(_catalog_text(folder_catalog(root, Target(output, overwrite), FolderOptions(**settings))))


@command.command("check")
@click.argument("file", type=_path)
@options.json_output
@options.verbose
@options.quiet
def check_command(file: Path, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """Open every file of a catalog and count its classes; ends with status 1 where something is wrong."""
    from glraster.labels.make_catalog import check_catalog_file

    report = check_catalog_file(file)
    click.echo(json.dumps(report.to_json()) if as_json else _report_text(report))
    report.require_sound(str(file))


def _catalog_text(catalog: Catalog) -> str:
    splits = ", ".join(f"{name} {len(pairs)}" for name, pairs in catalog.splits.items() if pairs)
    return f"{catalog.source}: {len(catalog.classes)} classes; scenes: {splits}"


def _report_text(report: CatalogReport) -> str:
    lines = [f"{report.name}  {report.content_hash}"]
    for split in report.splits:
        lines += _split_lines(split) if split.scenes else []
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def _split_lines(split: SplitReport) -> list[str]:
    sizes = [(scene.width, scene.height) for scene in split.scenes]
    extremes = (least_or_most(sizes, key=lambda size: size[0] * size[1]) for least_or_most in (min, max))
    least, most = (f"{width} x {height}" for width, height in extremes)
    span = least if least == most else f"{least} to {most}"
    width = max(len(c.name) for c in split.classes)
    return [
        f"{split.name}: {len(split.scenes)} scene{'s' if len(split.scenes) > 1 else ''}, {span} px",
        *(f"  {c.id:>3}  {c.name:<{width}}  {100 * c.share:5.1f} %  {c.pixels:>12} px" for c in split.classes),
        f"       {'ignored':<{width}}           {split.ignored_pixels:>12} px",
    ]
