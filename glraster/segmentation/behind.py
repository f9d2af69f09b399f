"""Write a map while its windows are computed: a block is assembled once the parts it needs are there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from glraster.errors import OutputError
from glraster.segmentation.windows import Place

T = TypeVar("T")


class StoppedError(Exception):
    """Nothing will follow: whoever made the parts has failed."""


class Arrivals:
    """Which of the `wanted` parts are there. `finished` tells it of some; it is asked again after every `look`.

    `where` the parts are is for an error.
    """

    def __init__(
        self, wanted: Iterable[Place], finished: Callable[[Iterable[Place]], Iterable[Place]], where: str
    ) -> None:
        self._missing, self._finished, self._where = set(wanted), finished, where
        self._changed = threading.Condition()
        self._looks, self._ended, self._stopped = 0, False, False

    def look(self) -> None:
        """Say that parts may have come."""
        with self._changed:
            self._looks += 1
            self._changed.notify_all()

    def end(self) -> None:
        """Say that all parts have come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Say that nobody need wait any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait(self, places: Iterable[Place]) -> None:
        """Sleep until those of `places` that are wanted at all are there.

        Raises:
            StoppedError: where nobody wants them any more.
            OutputError: where all have come, but these are not there.
        """
        places = set(places)
        while True:
            with self._changed:
                if self._stopped:
                    raise StoppedError
                looks, ended = self._looks, self._ended
            absent = places & self._missing
            self._missing.difference_update(self._finished(absent) if absent else ())
            if not places & self._missing:
                return
            if ended:
                raise OutputError(f"{self._where}: finished parts are gone or damaged; let no other process work there")
            with self._changed:
                while self._looks == looks and not (self._ended or self._stopped):
                    self._changed.wait()


class Writing(Generic[T]):
    """Something that is written in a thread of its own."""

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def check(self) -> None:
        """Raise what has ended the writing, where something has."""
        if self._future.done():
            self._future.result()

    def result(self) -> T:
        """Wait for the end of it."""
        return self._future.result()


@contextmanager
def written_behind(write: Callable[[], T], arrivals: Arrivals) -> Iterator[Writing[T]]:
    """Run `write` in a thread, which waits for `arrivals`, while the body lets them come.

    An error in the body, or an interrupt, ends the writing at its next block, and is what the caller sees.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="glraster map") as pool:
        try:
            yield Writing(pool.submit(write))
        finally:
            arrivals.stop()
