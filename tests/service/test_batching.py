"""Batches: every caller gets one answer or one error, whatever happens to the others, to the batch or to its thread."""

import asyncio
import ctypes
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from service.batching import Batcher, Result, Worker
from training.errors import BadValue, TryAgain


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("test")
    yield worker
    worker.close()


class Recorded:
    """Work that doubles numbers, and remembers the batches it was given; the first waits until `release` is set, if asked to."""

    def __init__(self, hold: bool = False) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.began, self.release = threading.Event(), threading.Event()
        if not hold:
            self.release.set()

    def __call__(self, key: str, items: list[int]) -> Sequence[int]:
        self.batches.append((key, items))
        self.began.set()
        assert self.release.wait(60)
        if any(item < 0 for item in items):
            raise BadValue("item", min(items), "at least 0")
        return [2 * item for item in items]


def batcher(work: Callable[[str, list[int]], Sequence[int]], worker: Worker, **options: Any) -> Batcher[str, int, int]:
    chosen: dict[str, Any] = {"max_batch_size": 4, "max_wait_s": 0.0, "max_queue": 100}
    chosen |= {"more_to_come": lambda: False, "report": lambda _: None}
    return Batcher(work, worker, **(chosen | options))


def answers(*calls: Coroutine[Any, Any, Result[int]]) -> list[int | BaseException]:
    async def all_of_them() -> list[Result[int] | BaseException]:
        return await asyncio.gather(*calls, return_exceptions=True)

    return [answer.value if isinstance(answer, Result) else answer for answer in asyncio.run(all_of_them())]


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 60)


def test_those_who_come_while_the_worker_is_busy_share_the_next_batches(worker: Worker) -> None:
    work = Recorded(hold=True)
    ask = batcher(work, worker)

    async def main() -> list[Result[int]]:
        first = asyncio.create_task(ask("a", 0))
        await until(work.began)
        others = [asyncio.create_task(ask("a", i)) for i in range(1, 7)]
        await asyncio.sleep(0)
        work.release.set()
        return await asyncio.gather(first, *others)

    assert [result.value for result in asyncio.run(main())] == [0, 2, 4, 6, 8, 10, 12]
    assert work.batches == [("a", [0]), ("a", [1, 2, 3, 4]), ("a", [5, 6])]


def test_only_what_has_the_same_key_is_done_together_and_order_is_kept(worker: Worker) -> None:
    work = Recorded(hold=True)
    ask = batcher(work, worker)

    async def main() -> None:
        first = asyncio.create_task(ask("a", 0))
        await until(work.began)
        others = [asyncio.create_task(ask(key, i)) for i, key in enumerate("bcbc")]
        await asyncio.sleep(0)
        work.release.set()
        await asyncio.gather(first, *others)

    asyncio.run(main())
    assert work.batches[1:] == [("b", [0, 2]), ("c", [1, 3])]


def test_sizes_fill_a_batch_and_one_that_is_too_large_goes_alone(worker: Worker) -> None:
    work, sizes = Recorded(hold=True), list[int]()
    ask = batcher(work, worker, report=sizes.append)

    async def main() -> None:
        first = asyncio.create_task(ask("a", 0))
        await until(work.began)
        others = [asyncio.create_task(ask("a", i, size)) for i, size in enumerate((10, 2, 2, 1))]
        await asyncio.sleep(0)
        work.release.set()
        await asyncio.gather(first, *others)

    asyncio.run(main())
    assert [items for _, items in work.batches] == [[0], [0], [1, 2], [3]]
    assert sizes == [1, 10, 4, 1]


def test_a_batch_waits_for_those_to_come_but_no_longer_than_it_may(worker: Worker) -> None:
    work, coming = Recorded(), True
    patient = batcher(work, worker, max_wait_s=3600.0, more_to_come=lambda: coming)

    async def main() -> None:
        nonlocal coming
        tasks = [asyncio.create_task(patient("a", i)) for i in range(3)]
        await asyncio.sleep(0)
        assert work.batches == []
        coming = False
        patient.consider()
        await asyncio.gather(*tasks)
        coming = True
        await asyncio.gather(*(patient("a", i) for i in range(4)))  # full: waits for nobody
        await batcher(work, worker, max_wait_s=0.001, more_to_come=lambda: True)("a", 9)

    asyncio.run(main())
    assert [items for _, items in work.batches] == [[0, 1, 2], [0, 1, 2, 3], [9]]


def test_a_poisoned_item_fails_alone(worker: Worker) -> None:
    ask = batcher(Recorded(), worker, max_wait_s=3600.0, more_to_come=lambda: True)
    good, bad, fine, other = answers(ask("a", 1), ask("a", -5), ask("a", 2), ask("a", 3))
    assert (good, fine, other) == (2, 4, 6)
    assert isinstance(bad, BadValue)
    assert "-5" in str(bad)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_answers_its_callers_and_is_replaced(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    def deadly(_key: str, items: list[int]) -> list[int]:
        if 13 in items:
            raise SystemExit
        return items

    ask = batcher(deadly, worker, max_wait_s=3600.0, more_to_come=lambda: True)
    for answer in answers(*(ask("a", item) for item in (1, 13, 2, 3))):
        assert isinstance(answer, TryAgain)
        assert answer.reason == "batch_failed"
    assert answers(*(ask("a", item) for item in range(4))) == [0, 1, 2, 3]
    assert "another takes its place" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_is_killed_while_it_waits_is_replaced(worker: Worker) -> None:
    thread = worker.submit(threading.current_thread).result()
    assert thread.ident
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    assert [worker.submit(partial(abs, i)).result(60) for i in range(3)] == [0, 1, 2]
    thread.join(60)
    assert not thread.is_alive()


def test_a_full_queue_says_so_at_once(worker: Worker) -> None:
    work = Recorded(hold=True)
    ask = batcher(work, worker, max_queue=2)

    async def main() -> None:
        waiting = [asyncio.create_task(ask("a", 0))]
        await until(work.began)
        waiting += [asyncio.create_task(ask("a", i)) for i in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(TryAgain, match="max_queue=2") as caught:
            await ask("a", 3)
        assert caught.value.reason == "queue_full"
        work.release.set()
        await asyncio.gather(*waiting)
        assert (await ask("a", 4)).value == 8

    asyncio.run(main())


def test_a_caller_who_leaves_frees_its_place(worker: Worker) -> None:
    work = Recorded(hold=True)
    ask = batcher(work, worker, max_queue=1)

    async def main() -> None:
        first = asyncio.create_task(ask("a", 0))
        await until(work.began)
        leaving = asyncio.create_task(ask("a", 1))
        await asyncio.sleep(0)
        with pytest.raises(TryAgain):
            ask.check()
        leaving.cancel()
        await asyncio.wait([leaving])
        staying = asyncio.create_task(ask("a", 2))
        await asyncio.sleep(0)
        work.release.set()
        await asyncio.gather(first, staying)

    asyncio.run(main())
    assert [items for _, items in work.batches] == [[0], [2]]


def test_a_worker_that_has_ended_takes_nothing_more() -> None:
    worker = Worker("test")
    assert worker.submit(lambda: 5).result() == 5
    worker.close()
    with pytest.raises(TryAgain, match="stopping"):
        worker.submit(lambda: 5).result()


def test_a_worker_keeps_nothing_of_what_it_has_done(worker: Worker) -> None:
    """What a finished piece of work held can be freed while the worker waits for the next."""

    class Model:
        pass

    model = Model()
    gone = weakref.ref(model)
    worker.submit(partial(str, model)).result()
    done = threading.Event()
    worker.submit(done.set).result()
    del model
    gc.collect()
    assert gone() is None
