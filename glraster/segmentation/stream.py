"""Threads that read ahead and write behind, so that the device need not wait for disks.

Items go through bounded channels; whoever waits sleeps until it is woken. An error on either side ends the work and is
raised where the work is done; what was read ahead is then dropped, and what is being written is finished.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """A queue of at most `capacity` items between two threads, which either may close."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = self._ended = False
        self._error: BaseException | None = None

    def wait_for_room(self) -> bool:
        """Sleep until an item may be put; False where nobody will take it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            return not self._closed

    def put(self, item: T) -> bool:
        """Put an item once there is room; False where nobody will take it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def end(self, error: BaseException | None = None) -> None:
        """No item will follow; with an error, it is raised behind the last one."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Take no item any more; what is queued is dropped."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Take the items in order, until the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended or self._closed)
                if not self._items:
                    if self._error is not None and not self._closed:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item  # not held while the next one is waited for


@contextmanager
def read_ahead(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """Iterate over `items` in a thread of its own, one item ahead of whoever takes them.

    Memory: one item more than without.
    """
    channel: Channel[T] = Channel(1)

    def read() -> None:
        source = iter(items)
        try:
            while channel.wait_for_room():
                item = next(source)
                channel.put(item)
                del item
        except StopIteration:
            channel.end()
        except BaseException as error:
            channel.end(error)
        finally:
            if isinstance(source, Generator):
                source.close()  # here: what it cleans up may belong to this thread

    thread = threading.Thread(target=read, name="glraster reader")
    thread.start()
    try:
        yield iter(channel)
    finally:
        channel.close()
        thread.join()


@contextmanager
def write_behind(write: Callable[[T], None]) -> Iterator[Callable[[T], None]]:
    """Call `write` in a thread of its own, in order, while the caller goes on; leaving waits for the last call.

    The function that is yielded hands an item over, and sleeps while one is still waiting for its turn.
    """
    channel: Channel[T] = Channel(1)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for item in channel:
                write(item)
                del item
        except BaseException as error:
            failed.append(error)
            channel.close()

    def put(item: T) -> None:
        if not channel.put(item):
            thread.join()
            raise failed[0]

    thread = threading.Thread(target=work, name="glraster writer")
    thread.start()
    try:
        yield put
        channel.end()
    except BaseException:
        channel.close()
        raise
    finally:
        thread.join()
    if failed:
        raise failed[0]
