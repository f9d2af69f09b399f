"""The errors a user can meet. The command line turns each into one line; everything else is a bug."""

from __future__ import annotations

import importlib.util


class GlrasterError(Exception):
    """Something the user can put right.

    `str(error)` joins the fields into the one line that people read: "WHERE: WHAT; ADVICE".

    Attributes:
        what: what is wrong; the whole message if the other fields are empty.
        where: the file, option or key that it concerns.
        advice: what to do next.
        exit_code: the status with which the command line ends: 1, or 2 for a wrong call.
    """

    exit_code = 1

    def __init__(self, what: str = "", *, where: str = "", advice: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.advice = what, where, advice

    def __str__(self) -> str:
        sentence = f"{self.where}: {self.what}" if self.where else self.what
        return f"{sentence}; {self.advice}" if self.advice else sentence


class UsageError(GlrasterError):
    """The call contradicts itself or the model: a wrong option, not a wrong file."""

    exit_code = 2


class SceneError(GlrasterError):
    """The scene cannot be read as a raster, or lacks what the model needs."""


class OutputError(GlrasterError):
    """An output cannot be written, or exists and may not be replaced."""


class ModelError(GlrasterError):
    """A model file or an official checkpoint is damaged, unknown, or not one."""


class ResumeError(GlrasterError):
    """The parts on disk belong to another model, scene or setting."""


class DeviceError(GlrasterError):
    """The compute device that was asked for is absent or out of memory."""


class ClusterError(GlrasterError):
    """The workers cannot be reached, do not see what they need, or do not compute the same."""


class CatalogError(GlrasterError):
    """A catalog, or the data it names, cannot be trained on.

    `problems` has all that is wrong, each a sentence with its place; `where` is the catalog file, if there is one.
    """

    def __init__(self, *problems: str, where: str = "") -> None:
        listed = problems[0] if len(problems) == 1 else "\n  ".join([f"{len(problems)} problems", *problems])
        super().__init__(listed, where=where)
        self.problems = problems


class LabelError(GlrasterError):
    """A label, or a truth, cannot be read, lies on another grid than its image, or has values that are no class."""


class TruthError(GlrasterError):
    """Map and truth cannot be compared: other grids, other classes, or too few points."""


def require_extra(extra: str, packages: tuple[str, ...], purpose: str) -> None:
    """Refuse a call whose optional packages are not installed, before any work is done for it.

    Args:
        extra: the name of the extra in pyproject.toml.
        packages: the modules that are needed.
        purpose: what needs them, the subject of the message.

    Raises:
        UsageError: naming the missing packages and how to install them.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"{purpose} needs {', '.join(missing)}: pip install 'glraster[{extra}]'")
