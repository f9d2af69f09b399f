"""`glraster train`."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import click

from . import options, progress, terminal


def _parse_stages(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:  # noqa: ARG001
    """`global,local` as names."""
    names = tuple(name.strip() for name in value.split(",")) if value else ()
    if not all(names):
        raise click.BadParameter(f"{value!r} is not a list of stages: NAME,NAME", param=param)
    return names


@click.command("train")
@click.argument("catalogs", nargs=-1, required=True, metavar="CATALOG...", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="The run's folder."
)
@click.option("--recipe", type=click.Choice(["fast", "paper"]), default="fast", show_default=True, help="How to train.")
@click.option(
    "--arch",
    metavar="NAME[,KEY=VALUE]",
    help="The network: a backbone (resnet18, resnet34, resnet50, lite0, lite1, lite2), and stem, width, mode: "
    "resnet50,stem=64.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting of the recipe; repeatable."
)
@click.option(
    "--init",
    metavar="imagenet|FILE|none",
    help="Start from a model, 'default', or a backbone's weights; 'imagenet' finds or downloads them.",
)
@click.option("--offline", is_flag=True, envvar="GLRASTER_OFFLINE", help="Never download ImageNet weights.")
@click.option(
    "--stage",
    "stages",
    callback=_parse_stages,
    metavar="NAME[,NAME]",
    help="Only these stages of the recipe; later ones go on from --init.",
)
@click.option(
    "--bfloat16",
    "--amp",
    "bfloat16",
    is_flag=True,
    help="Convolutions in bfloat16 (float16 on GPUs without it): about twice as fast with hardware for it.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides initial weights and samples.")
@click.option(
    "--device", default="auto", show_default=True, envvar="GLRASTER_DEVICE", help="auto, cpu, cuda or cuda:N."
)
@click.option("--resume", is_flag=True, help="Go on with a training that stopped.")
@options.json_output
@options.verbose
@options.quiet
def command(catalogs: tuple[Path, ...], output: Path, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Train a model on the scenes of CATALOG, or of several, whose classes are united by name.

    The best model on the val split is FOLDER/model.safetensors, ready for `glraster segment`; FOLDER/report.html shows
    how it went. torchrun divides every batch among several processes: torchrun --nproc-per-node 2 -m glraster_cli
    train ...
    """
    from glraster.reporting.report import ReportOptions, write_report
    from glraster.training.train import TrainOptions, train

    speaks = os.environ.get("RANK", "0") == "0"  # of several processes only the first prints
    if not speaks:
        logging.getLogger("glraster").setLevel(logging.ERROR)
    with progress.training_progress(quiet or not speaks) as show:
        result = train(catalogs, output, TrainOptions(**settings), show)
    if speaks:
        page = ReportOptions(command=options.command_line(), overwrite=True)
        write_report(output, output / "report.html", page)
        click.echo(json.dumps(result.to_json()) if as_json else terminal.train_text(result))
