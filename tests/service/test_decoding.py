"""Decoding: so many pixels at a time, the small before the large, and whoever leaves gives up what was not begun."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from service.decoding import AT_ONCE, WAITING, Decoders
from training.errors import TryAgain
from training.images import preprocess
from training.images.preprocess import ImageLimits

MOST = 1000  # pixels of a photograph


class Work:
    """What decodes until it is told to stop; notes what began."""

    def __init__(self, decoders: Decoders) -> None:
        self._decoders = decoders
        self.began: list[int] = []
        self.release = threading.Event()
        self._tasks: list[asyncio.Task[int]] = []

    async def add(self, pixels: int) -> "asyncio.Task[int]":
        """A photograph of this many pixels, which has its turn or waits for it when this returns."""
        task = asyncio.create_task(self._decoders.decode(b"x" * pixels, lambda: self._work(pixels)))
        waiting = len(self._decoders._waiting) + self._decoders._running
        while not task.done() and len(self._decoders._waiting) + self._decoders._running == waiting:
            await asyncio.sleep(0)
        return task

    def _work(self, pixels: int) -> int:
        self.began.append(pixels)
        assert self.release.wait(60)
        return pixels


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[Work], Coroutine[Any, Any, None]]], None]:
    monkeypatch.setattr(preprocess, "cost", lambda data, _limits: len(data))

    def runs(threads: int, test: Callable[[Work], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            monkeypatch.setattr(os, "cpu_count", lambda: threads)
            decoders = Decoders(ImageLimits(max_image_pixels=MOST))
            work = Work(decoders)
            try:
                await test(work)
            finally:
                work.release.set()
                await asyncio.to_thread(decoders.close)
            for _ in range(3):
                await asyncio.sleep(0)
            assert (decoders._pixels, decoders._decoding, decoders._running, decoders._waiting) == (0, 0, 0, [])

        asyncio.run(main())

    return runs


Run = Callable[[int, Callable[[Work], Coroutine[Any, Any, None]]], None]


def test_no_more_pixels_are_decoded_at_once_than_may_be_however_many_threads_there_are(run: Run) -> None:
    async def test(work: Work) -> None:
        tasks = [await work.add(MOST) for _ in range(AT_ONCE + 2)]
        small = await work.add(1)  # for which there is no room either
        assert work._decoders._decoding == AT_ONCE * MOST
        work.release.set()
        assert await asyncio.gather(*tasks, small) == [MOST] * len(tasks) + [1]

    run(16, test)


def test_the_small_come_before_the_large(run: Run) -> None:
    async def test(work: Work) -> None:
        tasks = [await work.add(pixels) for pixels in (500, 400, 300, 2, 200, 1)]
        work.release.set()
        await asyncio.gather(*tasks)
        assert work.began == [500, 1, 2, 200, 300, 400]

    run(1, test)


def test_beyond_the_budget_the_large_are_turned_away_at_once_and_the_small_are_not(run: Run) -> None:
    async def test(work: Work) -> None:
        tasks = [await work.add(MOST) for _ in range(WAITING + 9)]
        refused = [task for task in tasks if task.done()]
        assert len(tasks) - len(refused) == WAITING - 1
        for task in refused:
            assert isinstance(error := task.exception(), TryAgain)
            assert error.reason == "queue_full"
        small = [await work.add(1) for _ in range(100)]
        assert not any(task.done() for task in small)
        work.release.set()
        await asyncio.gather(*small, *(task for task in tasks if task not in refused))

    run(2, test)


def test_who_leaves_while_waiting_makes_room_at_once_and_who_leaves_later_when_the_thread_ends(run: Run) -> None:
    async def test(work: Work) -> None:
        first, *waiting = [await work.add(MOST) for _ in range(WAITING - 1)]
        for task in waiting:
            task.cancel()
        first.cancel()
        for task in (first, *waiting):
            with suppress(asyncio.CancelledError):
                await task
        assert work._decoders._pixels == MOST
        after = await work.add(3)
        assert not after.done()
        work.release.set()
        assert await after == 3
        assert work.began == [MOST, 3]

    run(1, test)


def test_an_error_of_the_work_is_the_callers(run: Run) -> None:
    async def test(work: Work) -> None:
        def fails() -> int:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work._decoders.decode(b"x", fails)

    run(1, test)
