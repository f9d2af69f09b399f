"""`glraster model import`, `info`, `describe` and `export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options, terminal

_checkpoint: dict[str, Any] = {"type": click.Path(dir_okay=False, path_type=Path), "metavar": "FILE.pth"}


@click.group("model")
def command() -> None:
    """Import, inspect and export model files."""


@command.command("import")
@click.option("--global", "global_path", **_checkpoint, help="Trained global branch.")
@click.option("--global-to-local", **_checkpoint, help="Trained global → local branch.")
@click.option("--local-to-global", **_checkpoint, help="Trained local → global branch.")
@options.output
@options.overwrite
@options.json_output
@options.verbose
@options.quiet
def import_command(output: str, overwrite: bool, as_json: bool, quiet: bool, **checkpoints: Any) -> None:  # noqa: ARG001
    """Turn the checkpoints of the authors' GLNet into one model file.

    All three give the full model, the first alone the global model, the second alone the global → local model.
    """
    from glraster.interchange.models import import_model

    spec = import_model(Path(output), overwrite=overwrite, **checkpoints)
    click.echo(
        json.dumps(spec)
        if as_json
        else f"{output}: {spec['architecture']['mode']} model, {len(spec['classes'])} classes"
    )


@command.command("info")
@click.argument("file", type=click.Path(path_type=Path))
@options.json_output
def info_command(file: Path, as_json: bool) -> None:
    """Print the metadata of a model file."""
    from glraster.interchange.models import model_info

    info = model_info(file)
    click.echo(json.dumps(info) if as_json else terminal.model_text(info))


@command.command("describe")
@click.argument("model", metavar="MODEL")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Where to write.")
@options.overwrite
def describe_command(model: str, output: Path | None, overwrite: bool) -> None:
    """Describe MODEL, a file or "default", as a STAC item with the Machine Learning Model extension.

    Without --output the item is printed.
    """
    from glraster.interchange.models import describe_model

    item = describe_model(model, output, overwrite=overwrite)
    click.echo(json.dumps(item, indent=2) if output is None else f"{output}: STAC item {item['id']}")


@command.command("export")
@click.argument("model", metavar="MODEL")
@options.output
@click.option("--tile", "tile_px", type=int, metavar="PX", help="Side of the ONNX input; the model's tile by default.")
@options.overwrite
@options.json_output
def export_command(model: str, output: str, tile_px: int | None, overwrite: bool, as_json: bool) -> None:
    """Write MODEL, a file or "default", as ONNX with one input: an image tile.

    The QGIS plugin Deepness reads its metadata. Needs the extra: pip install 'glraster[onnx]'.
    """
    from glraster.interchange.models import export_model

    result = export_model(model, Path(output), tile_px=tile_px, overwrite=overwrite)
    size = f"tiles of {result.tile_px} px, {result.bytes / 2**20:.1f} MiB"
    text = f"{output}: {size}, probabilities within {result.deviation:.1g} of torch's"
    click.echo(json.dumps(result.to_json()) if as_json else text)
