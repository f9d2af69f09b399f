"""`glraster evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options, terminal

_GIVEN = click.core.ParameterSource.COMMANDLINE

if TYPE_CHECKING:
    from glraster.evaluation.evaluate import EvaluateOptions
    from glraster.metrics.records import Evaluation, PointEvaluation, SceneScores


@click.command("evaluate")
@click.argument("prediction")
@click.argument("truth", required=False)
@options.truth
@options.tolerance
@click.option("--protocol", type=click.Choice(["deepglobe", "inria"]), help="Score as this benchmark does, too.")
@click.option("-m", "--model", envvar="GLRASTER_MODEL", metavar="FILE", help="Of a catalog: the model to judge.")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="val",
    show_default=True,
    help="Of a catalog: which scenes.",
)
@click.option(
    "--masks",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Of a catalog: keep the maps here; one that is there is not made again.",
)
@click.option(
    "--device", default="auto", show_default=True, envvar="GLRASTER_DEVICE", help="auto, cpu, cuda or cuda:N."
)
@click.option(
    "--json",
    "json_file",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="Write the result as JSON; without FILE print it, instead of tables.",
)
@options.overwrite
@options.verbose
@options.quiet
def command(
    prediction: str, truth: str | None, json_file: str | None, overwrite: bool, quiet: bool, **settings: Any
) -> None:
    """Say how good the map PREDICTION is.

    TRUTH is a raster or polygons of the same classes, or a sample of points, from which class areas are estimated. If
    PREDICTION is a catalog (.yaml), its scenes are mapped with --model and compared with their labels.
    """
    from glraster.evaluation.evaluate import EvaluateOptions, TruthOptions, evaluation_inputs
    from glraster.files import claim, write_file

    meaning = TruthOptions(**{name: settings.pop(name) for name in options.TRUTH_NAMES})
    how = EvaluateOptions(truth=meaning, **settings)
    target = None if json_file in (None, "-") else Path(str(json_file))
    if target is not None:
        claim(target, inputs=evaluation_inputs(prediction, truth, how), overwrite=overwrite)
    result = _evaluated(prediction, truth, how, quiet)
    if target is not None:
        write_file(target, json.dumps(result.to_json(), indent=1) + "\n")
    if json_file == "-":
        click.echo(json.dumps(result.to_json()))
    elif not (quiet and target):
        terminal.print_evaluation(result)


def _evaluated(
    prediction: str, truth: str | None, settings: EvaluateOptions, quiet: bool
) -> Evaluation | PointEvaluation:
    from glraster.errors import UsageError
    from glraster.evaluation.evaluate import evaluate, evaluate_catalog
    from glraster.process import keep_freed_memory

    if prediction.lower().endswith((".yaml", ".yml")):
        if truth is not None:
            raise UsageError("a catalog names its own labels; leave TRUTH out")
        keep_freed_memory()
        return evaluate_catalog(prediction, settings, None if quiet else _print_scene)
    if truth is None:
        raise UsageError(f"what is {prediction} to be held against? Give TRUTH: a raster, polygons or points")
    source = click.get_current_context().get_parameter_source
    catalog_only = [f"--{name}" for name in ("model", "split", "masks", "device") if source(name) is _GIVEN]
    if catalog_only:
        raise UsageError(f"{catalog_only[0]} is for catalogs; {prediction} is a map already")
    return evaluate(prediction, truth, settings)


def _print_scene(scene: SceneScores) -> None:
    click.echo(f"{scene.name}: mIoU {'-' if scene.miou is None else f'{scene.miou:.4f}'}", err=True)
