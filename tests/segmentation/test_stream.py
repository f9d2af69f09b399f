"""Reading ahead and writing behind change nothing but the time: order, errors and ends are as without."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from glraster.segmentation.stream import read_ahead, write_behind

SOON = 5.0
"""Seconds after which a thread that should have gone on has hung."""


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_items_come_in_order_and_are_written_in_order() -> None:
    written: list[int] = []
    with read_ahead(range(50)) as items, write_behind(written.append) as put:
        for item in items:
            put(item * item)
    assert written == [i * i for i in range(50)]


def test_one_item_is_read_while_another_is_worked_on_and_no_more() -> None:
    read: list[int] = []
    second, third = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        for i in range(5):
            read.append(i)
            {1: second, 2: third}.get(i, threading.Event()).set()
            yield i

    with read_ahead(source()) as items:
        assert next(items) == 0
        assert second.wait(SOON)
        assert not third.wait(0.1)
        assert read == [0, 1]
        assert next(items) == 1
        assert third.wait(SOON)


def test_writing_goes_on_while_the_caller_works() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def write(_: int) -> None:
        begun.set()
        assert may_end.wait(SOON)

    with write_behind(write) as put:
        put(1)
        assert begun.wait(SOON)
        put(2)
        may_end.set()


def test_the_writer_bounds_how_much_waits_for_it() -> None:
    may_go, written, handed = threading.Event(), [], []

    def write(item: int) -> None:
        assert may_go.wait(SOON)
        written.append(item)

    def hand_over() -> None:
        with write_behind(write) as put:
            for i in range(6):
                put(i)
                handed.append(i)

    caller = threading.Thread(target=hand_over)
    caller.start()
    time.sleep(0.1)
    assert handed == [0, 1]  # one is being written, one waits
    may_go.set()
    caller.join(SOON)
    assert written == list(range(6))


def test_an_error_while_reading_is_raised_behind_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk")

    taken = []
    with pytest.raises(OSError, match="the disk"), read_ahead(source()) as items:
        for item in items:
            taken.append(item)
    assert taken == [1, 2]


@pytest.mark.parametrize("last", [True, False])
def test_an_error_while_writing_is_raised(last: bool) -> None:
    written: list[int] = []

    def write(item: int) -> None:
        if item == 2:
            raise OSError("no space")
        written.append(item)

    with pytest.raises(OSError, match="no space"), write_behind(write) as put:
        for i in range(3 if last else 100):
            put(i)
    assert written == [0, 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_in_the_work_ends_both_sides(error: type[BaseException]) -> None:
    """What is being written is finished, what waits is dropped, and the error is that of the work."""
    begun, written = threading.Event(), []

    def write(item: int) -> None:
        begun.set()
        time.sleep(0.05)
        written.append(item)

    def source() -> Iterator[int]:
        i = 0
        while True:
            yield i
            i += 1

    with pytest.raises(error), read_ahead(source()) as items, write_behind(write) as put:
        put(next(items))
        assert begun.wait(SOON)
        put(next(items))
        raise error
    assert written == [0]


def test_a_source_is_cleaned_up_in_the_thread_that_read_it() -> None:
    threads: list[str] = []

    def source() -> Iterator[int]:
        try:
            threads.append(threading.current_thread().name)
            yield from range(9)
        finally:
            threads.append(threading.current_thread().name)

    items = source()  # held here, as a caller may
    with pytest.raises(ValueError, match="the work"), read_ahead(items) as taken:
        next(taken)
        raise ValueError("the work")
    assert threads == ["glraster reader"] * 2


def test_who_waits_sleeps() -> None:
    def source() -> Iterator[int]:
        yield 1
        time.sleep(0.5)
        yield 2

    began = time.process_time()
    with read_ahead(source()) as items:
        assert list(items) == [1, 2]
    assert time.process_time() - began < 0.25


def test_nothing_to_do() -> None:
    with read_ahead([]) as items, write_behind(print):
        assert list(items) == []
