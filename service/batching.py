"""Work that is cheaper in company: what callers hand in one by one is done in batches, on one thread that all batches share.

One thread at a time uses every core; two would take them from each other.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from training.errors import FC7Error, TryAgain

K = TypeVar("K")
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
T = TypeVar("T")
_log: Final = logging.getLogger("fc7.service")


class Worker:
    """A thread that works through what it is given, in order. One that dies is replaced, and whom it left waiting is told.

    A ThreadPoolExecutor does not replace its thread: after one that was killed while it waited for work, nothing is ever done.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()  # the first is being worked on
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """The result of `work`, to come. Its exception is the work's own, or TryAgain where the thread died or has ended."""
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                future.set_exception(TryAgain("stopping", "the service is stopping"))
            else:
                self._jobs.append((work, future))
                self._changed.notify()
                self._start()
        return future

    async def run(self, work: Callable[[], T]) -> T:
        """Awaits the result of `work`."""
        return await asyncio.wrap_future(self.submit(work))

    def close(self) -> None:
        """Finishes what it was given, and ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread:
            thread.join()

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._main, name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def _main(self) -> None:
        try:
            while self._next():
                self._work_on(*self._jobs[0])
                self._jobs.popleft()
        finally:
            with self._changed:
                self._thread = None
                if not self._closed or self._jobs:
                    _log.error("the thread %s has ended; another takes its place", self._name)
                    self._start()

    def _next(self) -> bool:
        """Waits for something to do; False at the end."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            return bool(self._jobs)

    def _work_on(self, work: Callable[[], Any], future: "Future[Any]") -> None:
        if future.running():
            future.set_exception(TryAgain("batch_failed", f"the thread {self._name} ended in the middle of the work"))
        elif not future.done() and future.set_running_or_notify_cancel():
            try:
                result = work()
            except Exception as error:
                future.set_exception(error)
                del future  # the error's traceback holds this frame
            else:
                future.set_result(result)


@dataclass(frozen=True)
class Result(Generic[R]):
    """What came of an item, and how long that took."""

    value: R
    waited_s: float  # until its batch began
    worked_s: float  # its batch took


@dataclass(eq=False)
class _Entry(Generic[K, I, R]):
    key: K
    item: I
    size: int
    since: float
    future: "asyncio.Future[Result[R]]"


class Batcher(Generic[K, I, R]):
    """Gathers items into batches of the same key. All its methods are for the event loop's thread, but `work` is the worker's."""

    def __init__(
        self,
        work: Callable[[K, list[I]], Sequence[R]],
        worker: Worker,
        max_batch_size: int,
        max_wait_s: float,
        max_queue: int,
        more_to_come: Callable[[], bool],
        report: Callable[[int], None],
    ) -> None:
        """A batch begins when the worker is free, and it is full or its first item has waited `max_wait_s` or no more is to come.

        `work` gives a result for each item; where it raises, each item is tried alone, so that one that cannot be done fails
        alone. `report` is told the size of every batch.
        """
        self._work, self._worker = work, worker
        self._max_batch_size, self._max_wait_s, self._max_queue = max_batch_size, max_wait_s, max_queue
        self._more_to_come, self._report = more_to_come, report
        self._waiting: deque[_Entry[K, I, R]] = deque()
        self._guard = threading.Lock()  # of `_waiting`, which the worker takes from
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None

    def check(self, more: int = 1) -> None:
        """Raises TryAgain where the queue has no room for as many more."""
        with self._guard:
            waiting = len(self._waiting)
        if waiting + more > self._max_queue:
            raise TryAgain("queue_full", f"{waiting} are waiting already, and max_queue={self._max_queue}")

    async def __call__(self, key: K, item: I, size: int = 1) -> Result[R]:
        """The result for one item, which counts as `size` of a batch. Raises what `work` raises for it, and TryAgain like check.

        A caller that is cancelled leaves the queue at once.
        """
        self.check()
        loop = asyncio.get_running_loop()
        entry: _Entry[K, I, R] = _Entry(key, item, size, time.perf_counter(), loop.create_future())
        with self._guard:
            self._waiting.append(entry)
        self.consider()
        try:
            return await entry.future
        finally:
            with self._guard:
                if entry in self._waiting:
                    self._waiting.remove(entry)
            del entry  # an error's traceback holds this frame, and the entry the error

    def consider(self) -> None:
        """Begins a batch, now or when its time has come; to be called too when what was to come will not."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        with self._guard:
            if self._scheduled or not self._waiting:
                return
            first = self._waiting[0]
            full = sum(entry.size for entry in self._waiting if entry.key == first.key) >= self._max_batch_size
        left = first.since + self._max_wait_s - time.perf_counter()
        loop = asyncio.get_running_loop()
        if full or left <= 0 or not self._more_to_come():
            self._scheduled = True
            batch: list[_Entry[K, I, R]] = []  # what the worker took; it is told here too when the worker dies
            self._worker.submit(lambda: self._run(batch)).add_done_callback(
                lambda future: loop.call_soon_threadsafe(self._finish, batch, future)
            )
        else:
            self._timer = loop.call_later(left, self.consider)

    def _take(self, batch: list[_Entry[K, I, R]]) -> None:
        """Moves what can be done together from the queue to `batch`: the first, and what fits of those with its key."""
        with self._guard:
            room = self._max_batch_size
            for entry in [entry for entry in self._waiting if entry.key == self._waiting[0].key]:
                if batch and entry.size > room:
                    break
                room -= entry.size
                batch.append(entry)
                self._waiting.remove(entry)

    def _run(self, batch: list[_Entry[K, I, R]]) -> list[Result[R] | Exception]:
        self._take(batch)
        if not batch:
            return []
        began = time.perf_counter()
        key = batch[0].key
        self._report(sum(entry.size for entry in batch))
        items = [entry.item for entry in batch]
        results = self._try(key, items)
        if len(batch) > 1 and any(isinstance(result, Exception) for result in results):
            results = [result for item in items for result in self._try(key, [item])]
        took = time.perf_counter() - began
        return [
            result if isinstance(result, Exception) else Result(result, began - entry.since, took)
            for entry, result in zip(batch, results, strict=True)
        ]

    def _try(self, key: K, items: list[I]) -> Sequence[R | Exception]:
        try:
            return self._work(key, items)
        except Exception as error:
            if not isinstance(error, FC7Error):
                _log.exception("a batch of %d failed", len(items))
            # the frames that these name hold the batch, whose futures hold the error: a ring that would keep the key in memory
            error.__traceback__ = error.__context__ = error.__cause__ = None
            return [error] * len(items)

    def _finish(self, batch: list[_Entry[K, I, R]], future: "Future[list[Result[R] | Exception]]") -> None:
        self._scheduled = False
        failed = future.exception()
        if failed and not batch:  # the worker takes nothing any more
            with self._guard:
                batch = list(self._waiting)
                self._waiting.clear()
        answers = [failed] * len(batch) if failed else future.result()
        for entry, answer in zip(batch, answers, strict=True):
            if entry.future.done():
                continue
            if isinstance(answer, Result):
                entry.future.set_result(answer)
            else:
                assert answer is not None  # noqa: S101
                entry.future.set_exception(answer)
        self.consider()
