"""What the tests of several workflows use."""

from __future__ import annotations

import json

import pytest
from train.scenes import write_catalog


@pytest.fixture
def evaluated(run):
    """Call `glraster evaluate` and return its JSON."""

    def call(*arguments):
        outcome = run("evaluate", *arguments, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    return call


@pytest.fixture(scope="session")
def cluster():
    """Two processes of this machine, shared by all tests that spread work."""
    from glraster.workflows.cluster import connected

    with connected(workers=2) as found:
        yield found


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """The catalog of three small scenes."""
    return write_catalog(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def finished(request, catalog, tmp_path_factory):
    """The folder of an undisturbed training with the module's settings `SMALL`."""
    from glraster.workflows.train import TrainOptions, train

    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(catalog, folder, TrainOptions(settings=request.module.SMALL))
    return folder
