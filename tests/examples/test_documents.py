"""What the documents show is what the program does: their commands and their Python are run on a small scene."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import make_scene
import pytest
from conftest import Outcome
from examples.console import ROOT, Shown, blocks, commands

RUN = ("README.md", "docs/quickstart.md")
"""Documents whose commands are run; those of the others are held to the options that there are."""

NOT_RUN = {
    "pip install .": "it changes the environment that the tests run in",
    "glraster model import --global": "it needs the authors' checkpoints",
}
"""Commands that are not run, by how they begin, and why."""

OTHERS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md") if path.name != "quickstart.md")

SHORT = ("stem=8", "width=8", "tile_px=64", "thumbnail_px=64", "batch=1", "steps=2", "steps_per_epoch=1", "warm_up=1")
"""What makes a training last seconds; the documents show the command without it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model_file: Callable[..., Path]) -> Path:
    """The files that the documents speak of, small."""
    folder = tmp_path_factory.mktemp("documents")
    for name in ("demo", "tiles", "runs"):
        (folder / name).mkdir()
    make_scene.make_scene(folder / "demo" / "scene.tif", seed=3, width=320, height=288)
    for number in range(3):
        scene, truth = make_scene.make_scene(folder / "tiles" / f"{number}_rgb.tif", seed=number, width=256, height=256)
        truth.rename(scene.with_name(f"{number}_label.tif"))
    (folder / "scene.tif").write_bytes((folder / "demo" / "scene.tif").read_bytes())
    (folder / "model.safetensors").write_bytes(model_file("local").read_bytes())
    return folder


def why_not(shown: Shown) -> str:
    return next((why for start, why in NOT_RUN.items() if " ".join(shown.words).startswith(start)), "")


def test_the_commands_of_readme_and_quickstart_do_what_they_say(
    folder: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Outcome]
) -> None:
    monkeypatch.chdir(folder)
    tried = [shown for document in RUN for shown in commands(document) if not why_not(shown)]
    assert len(tried) >= 8
    for shown in tried:
        assert shown.words[0] == "glraster", f"{shown}: run it here, or say in NOT_RUN why not"
        more = [part for setting in SHORT for part in ("--set", setting)] if shown.words[1] == "train" else []
        outcome = run(*shown.words[1:], *more)
        assert outcome.code == 0, f"{shown}: {outcome.err}"
    made = ("demo/mask.tif", "landcover.gpkg", "report.html", "tiles/catalog.yaml", "runs/first/model.safetensors")
    assert [name for name in (*made, "mask.tif") if not Path(name).is_file()] == []


@pytest.mark.parametrize("start", NOT_RUN)
def test_commands_that_are_not_run_are_there(start: str) -> None:
    assert any(" ".join(shown.words).startswith(start) for document in RUN for shown in commands(document))


@pytest.mark.parametrize("document", [*RUN, "docs/python.md"])
def test_the_python_of_a_document_runs(document: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for block in blocks(document, "python"):
        (folder / "mask.tif").unlink(missing_ok=True)
        exec(compile(block, document, "exec"), {})
        assert (folder / "mask.tif").is_file()


def test_the_make_targets_of_readme_exist() -> None:
    targets = re.findall(r"^make (\S+)", "".join(blocks("README.md", "sh")), re.MULTILINE)
    assert targets
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


def commands_of_glraster(document: str) -> Iterator[tuple[str, ...]]:
    """Verb and arguments of a document's commands that call glraster."""
    for shown in commands(document):
        for start in (("glraster",), ("AWS_PROFILE=maps", "glraster")):
            if shown.words[: len(start)] == start:
                yield shown.words[len(start) :]
        if "glraster_cli" in shown.words:
            yield shown.words[shown.words.index("glraster_cli") + 1 :]


@pytest.mark.parametrize("document", [*RUN, *OTHERS])
def test_options_in_documents_exist(document: str) -> None:
    from glraster_cli.main import glraster

    for words in commands_of_glraster(document):
        command: click.Command = glraster
        context, rest = click.Context(glraster), list(words)
        while isinstance(command, click.Group):
            name = rest.pop(0)
            found = command.get_command(context, name)
            assert found is not None, f"{document}: no command {name}"
            command = found
        command.make_context(" ".join(words[:2]), rest)  # raises where an option or an argument is unknown


def test_every_example_has_its_test() -> None:
    """Catalogs are found by their ending; a script needs a test of its name."""
    scripts = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
    assert scripts
    for name in scripts:
        assert importlib.util.find_spec(name) is not None
        assert Path(__file__).with_name(f"test_{name}.py").is_file(), name
