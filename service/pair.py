"""The model and the index that answer: a pair, searched by many at once, changed by one at a time, swapped for another."""

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from indexer.opening import OpenStore, fitted, open_next, open_store
from indexer.storage import artifact
from service.errors import Refused
from training import checkpoint
from training.checkpoint import Model
from training.errors import FC7Error, NotReady, TryAgain
from training.files import exclusively

T = TypeVar("T")
LOOK_S: Final = 1.0  # how often, at most, the folders are looked at
_log = logging.getLogger("fc7.service")


@dataclass(frozen=True, eq=False)
class Pair:
    """A model, and an index that was made with it. A request takes one when it begins and keeps it to its end."""

    model: Model
    store: OpenStore


@dataclass(frozen=True)
class _DiskState:
    """What tells one state of the disk from another."""

    model: tuple[str, int, int] | None
    index: tuple[str, str, int, int] | None


@dataclass(frozen=True, eq=False)
class _State:
    """What answers: each part, or the reason why there is none."""

    model: Model | FC7Error
    store: OpenStore | FC7Error
    disk: _DiskState  # when it was loaded


class CurrentPair:
    """Holds one pair. What another process publishes, or a change made here, gives the next; requests keep the one they have."""

    def __init__(
        self,
        model: Path,
        index: Path,
        prepare: Callable[[Model], None],
        patience_s: float,
        swapped: Callable[[bool], None],
    ) -> None:
        """Opens what is there; where that fails, the reason is what those who ask are told.

        `prepare` gets a new model ready. `patience_s` is how long a request may hold on to a pair; `swapped` is told of every
        swap, and of every pair that was refused (False).
        """
        self._folders = model, index
        self._prepare, self._patience_s, self._swapped = prepare, patience_s, swapped
        self._thread = ThreadPoolExecutor(1, "index")  # all changes and openings, one after the other
        self._following: Future[bool] | None = None
        self._guard = threading.Lock()
        self._last_look_s = time.monotonic()
        self._refusal: FC7Error | None = None
        self._releases: list[threading.Event] = []  # set when no request holds the parts of the pair before this one any more
        self._disk = self._look()
        loaded = load(self._load_model)
        store = load(lambda: self._open_store(loaded, None))
        self._state = _State(_fitted(loaded, store), store, self._disk)

    @property
    def model(self) -> Model:
        """The model that answers. Raises NotReady with the reason where there is none."""
        self._watch()
        return present(self._state.model)

    @property
    def pair(self) -> Pair:
        """The pair that answers. Raises NotReady with the reason where there is none.

        A pair that was published since is verified meanwhile, and answers from then on.
        """
        self._watch()
        state = self._state
        return Pair(present(state.model), present(state.store))

    def newest(self) -> Pair:
        """The pair that answers once it has followed what is published now, but for a model, which takes long to load.

        Raises like `pair`, and TryAgain where following takes too long. Not for the event loop's thread.
        """
        if following := self._see():
            try:
                following.exception(self._patience_s)  # which _follow has logged
            except TimeoutError:
                raise TryAgain("swapping", "the index is being taken up that was published; try again when it is") from None
        return self.pair

    async def followed(self) -> Pair:
        """The same where nobody has looked for a while; else like `pair`. For the event loop's thread."""
        if time.monotonic() >= self._last_look_s + LOOK_S:
            self._last_look_s = time.monotonic()
            if following := self._see():
                await asyncio.wait([asyncio.wrap_future(following)], timeout=self._patience_s)
        return self.pair

    async def reload(self) -> tuple[Pair, bool]:
        """Goes over to the pair on disk once it is verified; whether it is another.

        Raises Refused, with the reason, where it is not fit to answer; TryAgain where a request holds one too many; NotReady
        where there was none before either.
        """
        changed = await asyncio.get_running_loop().run_in_executor(self._thread, self._follow)
        if self._refusal and isinstance(self._state.store, FC7Error):
            raise _as_error(self._refusal, NotReady, str(self._refusal)) from self._refusal
        if self._refusal:
            raise _as_error(self._refusal, Refused, f"{self._refusal}; what answered before goes on answering") from self._refusal
        state = self._state
        return Pair(present(state.model), present(state.store)), changed

    async def change(self, work: Callable[[Pair], tuple[OpenStore, T]]) -> T:
        """Runs `work`, which gives the next store and a result, on the newest pair; what it gives answers from then on.

        Raises Busy where another process is writing, NotReady where the disk takes nothing, and what made the newest version
        unreadable.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._change, work)

    @property
    def following(self) -> Future[bool] | None:
        """The last going over to what another process published, done or not; None before the first."""
        return self._following

    def close(self) -> None:
        """Waits for changes that have begun and lets go of files."""
        self._thread.shutdown()
        if not isinstance(self._state.store, FC7Error):
            self._state.store.close()

    def _watch(self) -> None:
        with self._guard:
            if time.monotonic() >= self._last_look_s + LOOK_S and (self._following is None or self._following.done()):
                self._last_look_s = time.monotonic()
                if self._look() != self._disk:
                    self._following = self._thread.submit(self._follow)

    def _see(self) -> "Future[bool] | None":
        """The going over to what is published now, where it is not done, and is to no other model."""
        with self._guard:
            disk = self._look()
            if disk != self._disk:
                self._following = self._thread.submit(self._follow)
            following = self._following
        return None if following is None or following.done() or disk.model != self._state.disk.model else following

    def _change(self, work: Callable[[Pair], tuple[OpenStore, T]]) -> T:
        present(self._state.store)
        try:
            with exclusively(self._folders[1]):
                self._follow()
                if self._refusal:
                    raise _as_error(self._refusal, NotReady, str(self._refusal)) from self._refusal
                state = self._state
                store, result = work(Pair(present(state.model), present(state.store)))
                self._disk = _DiskState(state.disk.model, self._look().index)
                self._state = _State(state.model, store, self._disk)
                return result
        except OSError as error:
            raise NotReady(f"{error.filename or self._folders[1]} cannot be written: {error.strerror}") from error

    def _follow(self) -> bool:
        """Goes over to what is on disk, or notes why not; whether anything is another."""
        try:
            return self._take_up()
        except Exception:
            self._disk = self._state.disk  # so that the next look tries again
            _log.exception("what is on disk could not be taken up")
            raise

    def _take_up(self) -> bool:
        self._disk, old = self._look(), self._state
        previous = None if isinstance(old.store, FC7Error) else old.store
        same_model = self._disk.model == old.disk.model and isinstance(old.model, Model)
        if same_model and previous is not None and self._disk == old.disk:
            self._refusal = None
            return False
        model = old.model if same_model else load(self._load_model)
        able = old.model if isinstance(model, FC7Error) and isinstance(old.model, Model) else model
        store = load(lambda: self._open_store(able, previous))
        able = _fitted(able, store)
        self._refusal = next((part for part in (model, store) if isinstance(part, FC7Error)), None)
        if isinstance(self._refusal, TryAgain):
            self._disk = old.disk  # nothing is wrong with what is there: the next look tries again
        if self._refusal and previous is not None:
            if not isinstance(self._refusal, TryAgain):
                self._swapped(False)
            _log.warning("version %s of the index goes on answering", previous.version_number)
            return False
        if able is not old.model:
            self._retire(old)
        self._state = _State(able, store, self._disk)
        self._swapped(self._refusal is None)
        return True

    def _load_model(self) -> Model:
        self._await_release()
        model = checkpoint.load(self._folders[0])
        self._prepare(model)
        return model

    def _open_store(self, model: Model | FC7Error, previous: OpenStore | None) -> OpenStore:
        index = self._folders[1]
        store: OpenStore = open_store(index) if previous is None else open_next(index, previous)
        if isinstance(model, FC7Error):
            raise NotReady(str(model)) from model
        fitted(store, model)
        return store

    def _retire(self, state: _State) -> None:
        for part in (state.model, state.store):
            if not isinstance(part, FC7Error):
                released = threading.Event()
                weakref.finalize(part, released.set).atexit = False
                self._releases.append(released)

    def _await_release(self) -> None:
        """Waits until no request holds the pair before the one that answers: no more than two are ever in memory."""
        end = time.monotonic() + self._patience_s
        if not all(released.wait(max(0.0, end - time.monotonic())) for released in self._releases):
            raise TryAgain("swapping", "a request still holds the model before the one that answers; try again when it is done")
        self._releases.clear()

    def _look(self) -> _DiskState:
        model, index = self._folders
        try:
            description = (model / checkpoint.DESCRIPTION).resolve(strict=True)
            status = description.stat()
            about_model = str(description), status.st_mtime_ns, status.st_ino
        except OSError:
            about_model = None
        try:
            status = (index / "current" / artifact.MANIFEST).stat()  # an index made anew begins with version 1 again
            about_index = str(index.resolve()), str((index / "current").readlink()), status.st_mtime_ns, status.st_ino
        except OSError:
            about_index = None
        return _DiskState(about_model, about_index)


def _fitted(model: Model | FC7Error, store: OpenStore | FC7Error) -> Model | FC7Error:
    """The model with the layer of an index: features of queries are the same layer's as those that the index holds."""
    return model.at(store.manifest.layer) if isinstance(model, Model) and not isinstance(store, FC7Error) else model


def load(loader: Callable[[], T]) -> T | FC7Error:
    """What `loader` gives, or the reason, which is logged, why it gives nothing."""
    try:
        return loader()
    except FC7Error as error:
        reason = error
    except OSError as error:
        reason = NotReady(f"{error.filename} cannot be read: {error.strerror}")
    _log.warning("%s", reason)
    reason.__traceback__ = reason.__context__ = reason.__cause__ = None  # whose frames hold what was loaded in vain
    return reason


def _as_error(reason: FC7Error, kind: type[FC7Error], text: str) -> FC7Error:
    """A reason that was kept, as an error of this kind for those who ask; but TryAgain stays what it is."""
    return TryAgain(reason.reason, text) if isinstance(reason, TryAgain) else kind(text)


def present(loaded: T | FC7Error) -> T:
    """What was loaded. Raises NotReady with the reason where it was not."""
    if isinstance(loaded, FC7Error):
        raise NotReady(str(loaded)) from loaded
    return loaded
