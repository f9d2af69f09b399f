"""`glraster model import` and `glraster model info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options

_checkpoint: dict[str, Any] = {"type": click.Path(dir_okay=False, path_type=Path), "metavar": "FILE.pth"}


@click.group("model")
def command() -> None:
    """Import and inspect model files."""


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
    from glraster.workflows.model import import_model

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
    """Print what a model file says of itself."""
    from glraster.workflows.model import model_info

    info = model_info(file)
    click.echo(json.dumps(info) if as_json else _info_text(info))


def _info_text(info: dict[str, Any]) -> str:
    architecture = info.pop("architecture")
    lines = [f"{key:<14}{value}" for key, value in {**architecture, "classes": ""}.items() if key != "classes"]
    lines += [f"{key:<14}{value}" for key, value in info.items() if key not in ("classes", "provenance")]
    lines.append("classes")
    lines += [f"  {c['id']:>3}  #{bytes(c['color']).hex()}  {c['name']}" for c in info["classes"]]
    lines.append("provenance")
    lines += [f"  {key}: {value}" for key, value in info["provenance"].items()]
    return "\n".join(lines)
