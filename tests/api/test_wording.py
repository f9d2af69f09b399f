"""Options of the command line become keywords."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import click
import pytest

from glraster.api.wording import FOREIGN, RENAMED, SWITCHES, in_python

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("line", "keywords"),
    [
        ("exists; use --overwrite to replace it", "exists; use overwrite=True to replace it"),
        ("or use --gsd native", 'or use gsd="native"'),
        ("--tile 50 must be", "tile_px=50 must be"),
        ("--branch full needs a local model", 'branch="full" needs a local model'),
        ("leave out --scheduler and --workers", "leave out scheduler and workers"),
        ("assign one (rio edit-info --crs)", "assign one (rio edit-info --crs)"),
        ("--coarse-to-fine is for models of two classes", "coarse_to_fine=True is for models of two classes"),
    ],
)
def test_a_line_in_python(line, keywords):
    assert in_python(line) == keywords


def options():
    """Every option of the command line, by its flag without dashes."""
    from glraster_cli.main import VERBS, glraster

    def walk(command):
        yield from command.params
        for child in getattr(command, "commands", {}).values():
            yield from walk(child)

    context = click.Context(glraster)
    for verb in VERBS:
        for option in walk(glraster.get_command(context, verb)):
            flags = [flag[2:] for flag in option.opts if flag.startswith("--")]
            yield from ((flag, option) for flag in flags if isinstance(option, click.Option))


def test_switches_and_renamed_options_are_those_of_the_command_line():
    from glraster import SegmentOptions, TrainOptions, VectorizeOptions

    keywords = {field.name for record in (SegmentOptions, TrainOptions, VectorizeOptions) for field in fields(record)}
    aliases = {"amp"}
    for flag, option in options():
        if option.name not in keywords or flag in aliases:
            continue
        assert RENAMED.get(flag, flag.replace("-", "_")) == option.name, flag
        assert (flag in SWITCHES) == option.is_flag, flag


def texts(path):
    """The texts of a module that are no docstrings."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and n not in docstrings]


def test_messages_name_no_option_that_is_not_there():
    known = {flag for flag, _ in options()}
    for path in ROOT.glob("glraster/**/*.py"):
        for text in texts(path):
            named = set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*)", text))
            assert named <= known | FOREIGN, f"{path}: {named - known - FOREIGN}"
