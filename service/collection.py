"""The index that answers: searched by many at once, changed by one at a time, and followed where another process changes it."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol, Self, TypeVar

from indexer.artifact import Described
from indexer.store import Store
from training.errors import FC7Error, NotReady
from training.files import exclusively

T = TypeVar("T")
LOOK_S: Final = 1.0  # how often, at most, `current` is looked at
_log = logging.getLogger("fc7.service")


class Opened(Store, Described, Protocol):
    """A store that was opened from an index folder."""

    def renewed(self) -> Self:
        """The folder's current version; what this one has of it is not read again."""


class Collection:
    """Holds one state of the index. A change gives the next; searches that have begun finish on the one they began with."""

    def __init__(self, folder: Path, opener: Callable[[Opened | None], Opened]) -> None:
        """Opens what is there; where that fails, the reason is what those who ask are told.

        `opener` gives the folder's current version, verified; of what the store that it is given has, only the changes.
        """
        self._folder = folder
        self._opener = opener
        self._thread = ThreadPoolExecutor(1, "index")  # all changes and openings, one after the other
        self._following: Future[None] | None = None
        self._guard = threading.Lock()
        self._looked = time.monotonic()
        self._seen = self._link()
        self._refused: FC7Error | None = None
        self._store = load(lambda: opener(None))

    @property
    def store(self) -> Opened:
        """The index as it is now. Raises NotReady with the reason where there is none.

        A version that another process has published since is opened meanwhile, and answers from then on.
        """
        with self._guard:
            if time.monotonic() >= self._looked + LOOK_S and (self._following is None or self._following.done()):
                self._looked = time.monotonic()
                if self._link() != self._seen:
                    self._following = self._thread.submit(self._follow)
        return present(self._store)

    async def change(self, work: Callable[[Opened], tuple[Opened, T]]) -> T:
        """Runs `work`, which gives the next state and a result, on the newest state; what it gives answers from then on.

        Raises Busy where another process is writing, NotReady where the disk takes nothing, and what made the newest version
        unreadable.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._change, work)

    def close(self) -> None:
        """Waits for changes that have begun and lets go of files."""
        self._thread.shutdown()
        if not isinstance(self._store, FC7Error):
            self._store.close()

    def _change(self, work: Callable[[Opened], tuple[Opened, T]]) -> T:
        present(self._store)
        try:
            with exclusively(self._folder):
                if self._refused or self._link() != self._seen:
                    self._follow()
                if self._refused:
                    raise self._refused
                self._store, result = work(present(self._store))
                self._seen = self._link()
                return result
        except OSError as error:
            raise NotReady(f"{error.filename or self._folder} cannot be written: {error.strerror}") from error

    def _follow(self) -> None:
        self._seen = self._link()
        known = None if isinstance(self._store, FC7Error) else self._store
        opened = load(lambda: self._opener(known))
        self._refused = opened if isinstance(opened, FC7Error) else None
        if self._refused and known:
            _log.warning("version %s of the index goes on answering", known.version)
        else:
            self._store = opened

    def _link(self) -> str | None:
        try:
            return str((self._folder / "current").readlink())
        except OSError:
            return None


def load(loader: Callable[[], T]) -> T | FC7Error:
    """What `loader` gives, or the reason, which is logged, why it gives nothing."""
    try:
        return loader()
    except FC7Error as error:
        reason = error
    except OSError as error:
        reason = NotReady(f"{error.filename} cannot be read: {error.strerror}")
    _log.warning("%s", reason)
    return reason


def present(loaded: T | FC7Error) -> T:
    """What was loaded. Raises NotReady with the reason where it was not."""
    if isinstance(loaded, FC7Error):
        raise NotReady(str(loaded)) from loaded
    return loaded
