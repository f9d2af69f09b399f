"""An error carries what, where and advice, and is one line for people, also after a way through a process."""

from __future__ import annotations

import pickle

import pytest

from glraster.errors import CatalogError, GlrasterError, LabelError, UsageError

ONE = LabelError("has no column kinds", where="roofs.gpkg", advice="did you mean kind?")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ONE, "roofs.gpkg: has no column kinds; did you mean kind?"),
        (LabelError("is cut off", where="a.tif"), "a.tif: is cut off"),
        (UsageError("--seed -1 is negative"), "--seed -1 is negative"),
        (CatalogError("line 3, bands: is empty", where="c.yaml"), "c.yaml: line 3, bands: is empty"),
        (CatalogError("one", "two", where="c.yaml"), "c.yaml: 2 problems\n  one\n  two"),
    ],
)
def test_the_fields_become_a_sentence(error: GlrasterError, line: str) -> None:
    assert str(error) == line
    assert str(pickle.loads(pickle.dumps(error))) == line


def test_fields_and_problems_survive_pickling() -> None:
    copy = pickle.loads(pickle.dumps(ONE))
    assert (copy.what, copy.where, copy.advice) == ("has no column kinds", "roofs.gpkg", "did you mean kind?")
    assert pickle.loads(pickle.dumps(CatalogError("one", "two", where="c.yaml"))).problems == ("one", "two")
