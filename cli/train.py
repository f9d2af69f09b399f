"""`glraster train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options, report


@click.command("train")
@click.argument("catalog", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="The run's folder."
)
@click.option("--recipe", type=click.Choice(["fast", "paper"]), default="fast", show_default=True, help="How to train.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting of the recipe; repeatable."
)
@click.option("--init", type=click.Path(path_type=Path), metavar="FILE", help="Start from this model.")
@click.option("--bfloat16", is_flag=True, help="Convolutions in bfloat16: twice as fast where the processor has it.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides initial weights and samples.")
@click.option(
    "--device", default="auto", show_default=True, envvar="GLRASTER_DEVICE", help="auto, cpu, cuda or cuda:N."
)
@click.option("--resume", is_flag=True, help="Go on with a training that stopped.")
@options.json_output
@options.verbose
@options.quiet
def command(catalog: Path, output: Path, as_json: bool, quiet: bool, **chosen: Any) -> None:
    """Train a model on the scenes of CATALOG.

    The best model on the val split is FOLDER/model.safetensors, ready for `glraster segment`.
    """
    from glraster.workflows.train import TrainOptions, train

    with report.training_lines(quiet) as progress:
        result = train(catalog, output, TrainOptions(**chosen), progress)
    click.echo(json.dumps(result.to_json()) if as_json else report.train_text(result))
