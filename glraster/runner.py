"""Run one function for many tasks, here in threads; `cluster.client` does the same on the workers of a Dask cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
Source = TypeVar("Source")
Source_co = TypeVar("Source_co", covariant=True)


class Runner(Protocol[Source_co]):
    """Threads, or a cluster, that have something open which tasks need: a scene, or a mask."""

    def map(
        self, function: Callable[[Source_co, Task], Result], tasks: Iterable[Task]
    ) -> Generator[Result, None, None]:
        """Results of `function(source, task)` in the order of the tasks, which are drawn as the results are taken.

        An error of the function is raised in the place of its result. Whoever leaves early closes the generator: tasks
        that have not begun are then dropped.
        """


@dataclass(frozen=True)
class Threads(Generic[Source]):
    """Threads of this process that share a source.

    Memory: as many results as there are threads, and the one that was taken last.
    """

    source: Source
    count: int = 1
    name: str = "glraster"

    def map(self, function: Callable[[Source, Task], Result], tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """See `Runner.map`. While a result is used, the threads work at the next ones."""
        remaining, waiting = iter(tasks), deque[Future[Result]]()
        pool = ThreadPoolExecutor(self.count, self.name)
        try:
            while True:
                for task in islice(remaining, 1 + self.count - len(waiting)):
                    waiting.append(pool.submit(function, self.source, task))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
