"""A map that is written while its parts come: whoever waits is woken, by parts, by their absence, by an error."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from glraster.errors import OutputError
from glraster.segmentation.behind import Arrivals, StoppedError, written_behind
from glraster.vector.distributed import call_of
from glraster.vector.job import VectorizeOptions

PLACES = [(0, 0), (0, 1)]


def test_the_writer_sleeps_until_its_parts_are_there():
    there: set[tuple[int, int]] = set()
    arrivals = Arrivals(PLACES, lambda asked: there & set(asked), "parts")
    seen = []

    def write() -> int:
        for place in PLACES:
            arrivals.wait([place, (7, 7)])  # one that is not wanted is not waited for
            seen.append((place, set(there)))
        return len(seen)

    with written_behind(write, arrivals) as writing:
        for place in PLACES:
            there.add(place)
            arrivals.look()
        assert writing.result() == 2
    assert all(place in known for place, known in seen)


def test_parts_that_vanish_end_the_run_instead_of_a_wait_for_ever():
    arrivals = Arrivals(PLACES, lambda _: (), "mask.tif.parts")
    with written_behind(lambda: arrivals.wait(PLACES), arrivals) as writing:
        arrivals.look()
        arrivals.end()
        with pytest.raises(OutputError, match=r"mask\.tif\.parts: finished parts are gone"):
            writing.result()


def test_an_error_of_the_computation_wakes_the_writer():
    arrivals, stopped = Arrivals(PLACES, lambda _: (), "parts"), threading.Event()

    def write() -> None:
        try:
            arrivals.wait(PLACES)
        except StoppedError:
            stopped.set()
            raise

    with pytest.raises(KeyboardInterrupt), written_behind(write, arrivals):
        raise KeyboardInterrupt
    assert stopped.is_set()


def test_an_error_of_the_writer_reaches_the_computation():
    arrivals, failed = Arrivals(PLACES, lambda _: (), "parts"), threading.Event()

    def write() -> None:
        failed.set()
        raise OutputError("no space")

    with pytest.raises(OutputError, match="no space"), written_behind(write, arrivals) as writing:
        failed.wait(10)
        while True:
            writing.check()


def test_workers_get_the_address_of_a_mask_with_its_query():
    name = "https://host/mask.tif?signature=1"
    mask = SimpleNamespace(name=name, path="https://host/mask.tif?...")
    assert call_of(SimpleNamespace(mask=mask, options=VectorizeOptions())).mask == name  # type: ignore[arg-type]
