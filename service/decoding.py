"""Photographs are decoded on every core, the small before the large, and only so many pixels of all requests at a time."""

import asyncio
import heapq
import itertools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from training.errors import TryAgain
from training.images import preprocess
from training.images.preprocess import ImageLimits

T = TypeVar("T")
AT_ONCE: Final = 2  # times the largest photograph: pixels that are decoded at once
WAITING: Final = 8  # times the largest photograph: pixels that are decoded, or wait to be


class Decoders:
    """Threads for the work on photographs. Its methods are for the event loop's thread."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._threads = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, "decode")
        self._readers = ThreadPoolExecutor(1, "read")
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap: pixels, number
        self._numbers = itertools.count()
        self._pixels = self._decoding = self._running = 0  # of all; of those that have a thread; and how many these are

    async def read(self, work: Callable[[], T]) -> T:
        """Awaits the result of work that is quick but too slow for the event loop: a header, JSON. One is done at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def decode(self, data: bytes, work: Callable[[], T]) -> T:
        """Awaits the result of `work`, which decodes `data`.

        Raises TryAgain where others have too many pixels, for a large photograph sooner than for a small one; and like
        preprocess.cost.
        """
        pixels = await self.read(lambda: preprocess.cost(data, self._limits))
        if self._pixels + 2 * pixels > WAITING * self._limits.max_image_pixels:
            raise TryAgain("queue_full", f"photographs of {self._pixels} pixels are being decoded or wait for it")
        self._pixels += pixels
        try:
            await self._turn(pixels)
        except BaseException:
            self._pixels -= pixels
            raise
        loop = asyncio.get_running_loop()
        future: Future[T] = self._pool.submit(work)
        # once the thread has ended, though nobody may wait for it any more
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._ended, pixels))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Finishes what has begun."""
        self._readers.shutdown()
        self._pool.shutdown()

    async def _turn(self, pixels: int) -> None:
        """Awaits a free thread, and room for the pixels; both are taken when it returns."""
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (pixels, next(self._numbers), turn))
        self._begin()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._left(pixels)
            raise

    def _begin(self) -> None:
        """Gives those their turn that may begin."""
        while self._waiting and self._running < self._threads:
            pixels, _, turn = self._waiting[0]
            if not turn.cancelled():
                if self._decoding + pixels > AT_ONCE * self._limits.max_image_pixels:
                    return
                self._running += 1
                self._decoding += pixels
                turn.set_result(None)
            heapq.heappop(self._waiting)

    def _left(self, pixels: int) -> None:
        self._running -= 1
        self._decoding -= pixels
        self._begin()

    def _ended(self, pixels: int) -> None:
        self._pixels -= pixels
        self._left(pixels)
