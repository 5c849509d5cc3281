"""Middleware: no more requests at once than may be, none for longer than it may take, none for a client that has gone."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from service.metrics import Metrics
from service.middleware.access import is_change
from service.settings import ServiceSettings
from training.errors import FC7Error, TryAgain

_ALWAYS: Final = ("/healthz", "/readyz", "/metrics", "/info")


class Gate:
    """How many requests are inside, and whether more may come."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside = self._coming = 0
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    def check(self) -> None:
        """Raises TryAgain where the service is stopping."""
        if self._closed:
            raise TryAgain("stopping", "the service is stopping")

    @contextmanager
    def coming(self) -> Iterator[None]:
        """While a request is being read and answered. Raises TryAgain where the service is stopping or there is no room left."""
        self.check()
        self._check_room()
        self._coming += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._coming -= 1
            if not self._coming:
                self._empty.set()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """While a request that has come is answered. Raises TryAgain where there is no room left."""
        self._check_room()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    @property
    def closed(self) -> bool:
        """Whether nothing may come any more."""
        return self._closed

    def close(self) -> None:
        """Lets no more come."""
        self._closed = True

    async def emptied(self) -> None:
        """Awaits that all have left."""
        await self._empty.wait()

    def _check_room(self) -> None:
        if self._inside >= self._most:
            raise TryAgain("queue_full", f"{self._inside} requests are being answered, and max_concurrent_requests={self._most}")


class Admission:
    """Lets requests in through the gate; answers 503, at once, to those that may not enter, and to those that take too long."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, metrics: Metrics, gate: Gate) -> None:
        self._app = app
        self._deadline_ms = settings.deadline_ms
        self._metrics = metrics
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what may enter, once all of it is here: who sends slowly takes no room from the others."""
        if scope["type"] != "http" or scope["path"] in _ALWAYS:
            return await self._app(scope, receive, send)
        request = _Request(scope, receive, send)
        try:
            with self._gate.coming():
                await self._within_deadline(scope, request)
        except ClientDisconnect:
            self._metrics.rejected("closed")
        except FC7Error as error:
            if request.started:
                raise
            await errors.answer_error(error, self._metrics)(scope, receive, send)

    async def _within_deadline(self, scope: Scope, request: "_Request") -> None:
        deadline_s = None if is_change(scope) else self._deadline_ms / 1e3  # half done a change would be done all the same
        try:
            async with asyncio.timeout(deadline_s) as request.deadline:
                await request.read()
                with ExitStack() as place:
                    place.enter_context(self._gate.inside())
                    request.leave = place.close
                    await self._app(scope, request.receive, request.send)
        except TimeoutError:
            if not request.deadline.expired() or request.started:
                raise
            raise TryAgain("deadline", f"not answered within deadline_ms={self._deadline_ms:g}") from None
        except asyncio.CancelledError:
            if request.started or not (request.closed or self._gate.closed):
                raise
            task = asyncio.current_task()
            assert task  # noqa: S101
            task.uncancel()
            if request.closed:
                raise ClientDisconnect from None
            raise TryAgain("stopping", "the service has stopped before this was answered; a change may have been made") from None
        finally:
            request.stop_watching()


class _Request:
    """Both ends of a request, watched: once its body is here, its task is cancelled when the client goes."""

    deadline: asyncio.Timeout
    leave: Callable[[], None]  # the place inside

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._receive, self._send = receive, send
        self._body: deque[Message] = deque()
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self.started = self.closed = False

    async def read(self) -> None:
        """Awaits the whole body. Raises ClientDisconnect where the client goes before."""
        while self._has_body:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._body.append(message)
            self._has_body = message.get("more_body", False)
        if self._body:
            self._watcher = asyncio.create_task(self._watch())

    async def receive(self) -> Message:
        """The next part of the body."""
        if self._body:
            return self._body.popleft()
        if self._watcher and not self.started:
            await asyncio.wait([self._watcher])
            if not self._watcher.cancelled():
                return {"type": "http.disconnect"}
        return await self._receive()

    async def send(self, message: Message) -> None:
        """A part of the answer. Once there is one, the client's own pace counts no more, and keeps no place from the others."""
        if not self.started:
            self.started = True
            self.leave()
            self.deadline.reschedule(None)
            self.stop_watching()
        await self._send(message)

    def stop_watching(self) -> None:
        """Lets the task run on, whatever the client does."""
        if self._watcher:
            self._watcher.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._task and not self.started:
            self.closed = True
            self._task.cancel()
