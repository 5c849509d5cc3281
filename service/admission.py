"""Middleware: no more requests at once than may be, none for longer than it may take, none for a client that has gone."""

import asyncio
from typing import Final, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from service.metrics import Metrics, Reason
from service.settings import ServiceSettings
from training.errors import TryAgain

_ALWAYS: Final = ("/healthz", "/readyz", "/metrics", "/info")
_SLOW: Final = ("/items", "/reload")  # changes: half done they would be done all the same


class Gate:
    """How many requests are inside, and whether more may enter."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside = 0
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    def check(self) -> None:
        """Raises TryAgain where no more may enter."""
        if self._closed:
            raise TryAgain("stopping", "the service is stopping")
        if self._inside >= self._most:
            raise TryAgain("queue_full", f"{self._inside} requests are being answered, and max_concurrent_requests={self._most}")

    def __enter__(self) -> None:
        self.check()
        self._inside += 1
        self._empty.clear()

    def __exit__(self, *_: object) -> None:
        self._inside -= 1
        if not self._inside:
            self._empty.set()

    def close(self) -> None:
        """Lets no more in."""
        self._closed = True

    async def emptied(self) -> None:
        """Awaits that all have left."""
        await self._empty.wait()


class Admission:
    """Lets requests in through the gate, and answers 503 at once to those it does not, 503 or 408 to those that take too long."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, metrics: Metrics, gate: Gate) -> None:
        self._app = app
        self._deadline_ms = settings.deadline_ms
        self._metrics = metrics
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what may enter."""
        if scope["type"] != "http" or scope["path"] in _ALWAYS:
            return await self._app(scope, receive, send)
        try:
            with self._gate:
                await self._within_deadline(scope, receive, send)
        except TryAgain as error:
            self._metrics.rejected(cast("Reason", error.reason))
            await errors.answer_ours(error)(scope, receive, send)

    async def _within_deadline(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _Request(receive, send)
        has_deadline = scope["method"] == "GET" or not scope["path"].startswith(_SLOW)
        try:
            async with asyncio.timeout(self._deadline_ms / 1e3 if has_deadline else None) as request.deadline:
                await self._app(scope, request.receive, request.send)
        except TimeoutError:
            if not request.deadline.expired() or request.started:
                raise
            raise TryAgain("deadline", f"not answered within deadline_ms={self._deadline_ms:g}") from None
        except asyncio.CancelledError:
            if not request.closed:
                raise
            task = asyncio.current_task()
            assert task  # noqa: S101
            task.uncancel()
            self._metrics.rejected("closed")
        finally:
            request.stop_watching()


class _Request:
    """Both ends of a request, watched: once its body is there, its task is cancelled when the client goes."""

    deadline: asyncio.Timeout

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self.started = self.closed = False

    async def receive(self) -> Message:
        """The next part of the body."""
        if self._watcher and not self.started:
            await asyncio.wait([self._watcher])
            if self._watcher.cancelled():
                return await self._receive()
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body") and not self.started:
            self._watcher = asyncio.create_task(self._watch())
        return message

    async def send(self, message: Message) -> None:
        """A part of the answer. Once there is one, the client's own pace counts no more."""
        if not self.started:
            self.started = True
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
