"""Every catalog among the examples is a valid one, and fits its data where they are there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import make_scene
import pytest
import yaml
from conftest import Outcome

from glraster.catalog import load_catalog
from glraster.errors import CatalogError

EXAMPLES = Path(__file__).parents[2] / "examples"
CATALOGS = sorted(path.name for path in EXAMPLES.glob("*.yaml"))


def folder_of(document: str) -> Path:
    """Where a catalog looks for its data, unless a variable says otherwise."""
    written = yaml.safe_load(document)["root"]
    return EXAMPLES / written.partition(":-")[2].rstrip("}")


@pytest.mark.parametrize("name", CATALOGS)
def test_a_catalog_fits_its_data(name: str, run: Callable[..., Outcome]) -> None:
    document = (EXAMPLES / name).read_text(encoding="utf-8")
    if not folder_of(document).is_dir():
        pytest.skip(f"needs the data of {name}")
    try:
        catalog = load_catalog(EXAMPLES / name)
    except CatalogError as error:
        pytest.skip(f"needs the data of {name}: {str(error).splitlines()[0]}")
    outcome = run("catalog", "check", EXAMPLES / name, "--json")
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert report
    assert catalog.train
    assert catalog.val


@pytest.mark.parametrize("name", CATALOGS)
def test_a_catalog_is_valid_and_speaks_of_the_same_classes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On empty files in the place of its data: names, classes, splits and labels are read."""
    document = yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))
    for split in document["splits"].values():
        for entry in split:
            for file in entry.values():
                if isinstance(file, str):
                    path = tmp_path / file.replace("[15678]", "1")
                    path.parent.mkdir(exist_ok=True)
                    path.touch()
    monkeypatch.setenv("GLRASTER_DATA", str(tmp_path))
    monkeypatch.setenv("GLRASTER_TRAINING", str(tmp_path))
    catalog = load_catalog(EXAMPLES / name)
    assert catalog.train
    assert catalog.val
    assert all(Path(pair.image).is_file() for pair in (*catalog.train, *catalog.val))
    if name not in ("banepa.yaml", "buildings.yaml"):
        known = {number: (name, make_scene.COLOURS[number]) for number, name in enumerate(make_scene.CLASS_NAMES)}
        assert {c.id: (c.name, c.color) for c in catalog.classes} == known
