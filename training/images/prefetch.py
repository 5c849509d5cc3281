"""Work done ahead of whoever consumes it, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(work: Callable[[T], R], items: Iterable[T], *, workers: int, waiting: int, name: str) -> Iterator[R]:
    """`work` of every item, in order, done on `workers` threads called `name`, `waiting` results before they are asked for.

    An error of `work` is raised where its result is asked for; what is still waiting when the consumer leaves is not begun.
    """
    futures: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, name) as pool:
        try:
            for item in items:
                futures.append(pool.submit(work, item))
                if len(futures) > waiting:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()
