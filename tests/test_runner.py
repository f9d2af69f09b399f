"""Threads change nothing but the time: order, errors and ends are those of a loop."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing

import pytest

from glraster.runner import Threads


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_the_order_of_their_tasks(count: int) -> None:
    assert list(Threads(10, count).map(lambda source, task: source * task, range(50))) == [10 * i for i in range(50)]


@pytest.mark.parametrize("count", [1, 3])
def test_threads_work_ahead_and_no_further(count: int) -> None:
    """While a result is used, as many tasks as there are threads are under way or done."""
    drawn: list[int] = []

    def tasks() -> Iterator[int]:
        for i in range(20):
            drawn.append(i)
            yield i

    begun = [threading.Event() for _ in range(20)]
    with closing(Threads(begun, count).map(lambda events, i: events[i].set() or i, tasks())) as results:
        for taken in results:
            assert len(drawn) == min(20, taken + 1 + count)
            assert all(event.wait() for event in begun[: len(drawn)])


def test_a_source_is_shared_and_tasks_run_side_by_side() -> None:
    """Each of two tasks waits until the other one has begun."""
    both = threading.Barrier(2)
    assert sorted(Threads(both, 2).map(lambda barrier, _: barrier.wait(), range(2))) == [0, 1]


def test_an_error_takes_the_place_of_its_result() -> None:
    def function(_: None, task: int) -> int:
        if task == 2:
            raise OSError("the disk")
        return task

    results = []
    with pytest.raises(OSError, match="the disk"), closing(Threads(None, 2).map(function, range(9))) as tasks:
        for result in tasks:
            results.append(result)
    assert results == [0, 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_who_leaves_early_waits_for_what_has_begun_and_drops_the_rest(error: type[BaseException]) -> None:
    done: list[int] = []
    with pytest.raises(error), closing(Threads(done).map(list.append, iter(range(10**9)))) as results:
        next(results)
        raise error
    assert len(done) <= 3


def test_a_result_is_not_held_once_the_next_one_is_asked_for() -> None:
    class Result: ...

    references = []
    with closing(Threads(None).map(lambda *_: Result(), range(4))) as results:
        for result in results:
            references.append(weakref.ref(result))
            del result
            gc.collect()
            assert references[-1]() is None


def test_nothing_to_do() -> None:
    assert list(Threads(None).map(print, [])) == []
