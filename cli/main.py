"""The `glraster` command: its verbs, loaded when called, and the one place where errors become a line and a status."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click

from glraster._version import __version__
from glraster.errors import GlrasterError

VERBS = {
    "segment": "Map the land cover of a scene.",
    "vectorize": "Turn a class mask into polygons.",
    "evaluate": "Say how good a map or a model is.",
    "report": "Write a page that shows a map or a training.",
    "preview": "Draw a map with its legend.",
    "train": "Train a model on a catalog of labelled scenes.",
    "model": "Import, inspect and export model files.",
    "catalog": "Make and check catalogs of training data.",
}

INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own, imported only when one of them runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f".{cmd_name}", __package__).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "GLRASTER",
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="glraster")
def glraster() -> None:
    """Land-cover maps from scenes of any size."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its status."""
    _log_to_stderr()
    try:
        with _sigterm_interrupts():
            status = glraster.main(arguments, prog_name="glraster", standalone_mode=False)
    except GlrasterError as error:
        _print_line(error, f"error: {error}")
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        cause = error.__cause__ or error
        _print_line(cause, "interrupted" if getattr(cause, "__notes__", None) else "interrupted; run the command again")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM, which batch systems send before they kill, end a run as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _print_line(error: BaseException, line: str) -> None:
    click.echo("; ".join([f"glraster: {line}", *getattr(error, "__notes__", [])]), err=True)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("glraster: %(levelname)s: %(message)s"))
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.addLevelName(level, logging.getLevelName(level).lower())
    logger = logging.getLogger("glraster")
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING)
