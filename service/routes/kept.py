"""Results of work that takes long, kept for whoever asks next."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, Literal, TypeVar

from service.engine import Engine

T = TypeVar("T")


class Kept(Generic[T]):
    """The last results of work that is slow: a thread of the engine's does it, once however many ask together."""

    def __init__(self, thread: Literal["measure", "look"], most: int) -> None:
        """Keeps the `most` that were last asked for."""
        self._thread, self._most = thread, most
        self._results: OrderedDict[Hashable, T] = OrderedDict()
        self._guard = Lock()

    async def result(self, engine: Engine, key: Hashable, work: Callable[[], T]) -> T:
        """What `work` gave for this key; it is kept too where whoever asked has gone meanwhile."""
        found = self._find(key)
        if found is None:
            found = await engine.slowly(self._thread, lambda: self.on_thread(key, work))
        return found

    def on_thread(self, key: Hashable, work: Callable[[], T]) -> T:
        """The same for who is on the thread already."""
        found = self._find(key)
        return self._add(key, work()) if found is None else found

    def _find(self, key: Hashable) -> T | None:
        with self._guard:
            if key in self._results:
                self._results.move_to_end(key)
            return self._results.get(key)

    def _add(self, key: Hashable, result: T) -> T:
        with self._guard:
            self._results[key] = result
            if len(self._results) > self._most:
                self._results.popitem(last=False)
        return result
