"""What the tests of several workflows use."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def evaluated(run):
    """Call `glraster evaluate` and return its JSON."""

    def call(*arguments):
        outcome = run("evaluate", *arguments, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    return call
