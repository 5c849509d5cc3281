"""Middleware: a body is no longer than allowed, whatever its headers say; and what browsers are told about our answers."""

import asyncio
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from service.metrics import Metrics
from service.settings import ServiceSettings
from training.errors import ImageTooLarge, TryAgain

BODIES: Final = 4  # times the longest: what the bodies of all requests may hold
_CLOSE: Final = {"Connection": "close"}
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
}


class LimitBody:
    """Answers 413 at once for a body declared too long, and as soon as one that declared nothing becomes too long.

    One that comes too slowly is answered 408. The bodies of all requests together may be a few times as long as one. Beyond that
    the one that has held most for longest, with nothing coming of it, is answered 503; where all are here, the one that comes.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings, metrics: Metrics) -> None:
        self._app = app
        self._max_bytes = settings.max_request_bytes
        self._stall_s, self._least = settings.stall_s, settings.min_bytes_per_s * settings.stall_s
        self._metrics = metrics
        self._held = 0
        self._coming: set[_Body] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on with its body counted."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            return await errors.answer_error(self._too_large(int(declared)), self._metrics)(scope, receive, send)
        if declared == "0" and "transfer-encoding" not in headers:
            return await self._app(scope, receive, send)
        body = _Body(receive)
        self._coming.add(body)
        try:
            return await self._app(scope, partial(self._next, body), send)
        except _TooSlow:
            self._metrics.rejected("slow")
            detail = f"less than {self._least:g} bytes of the request came in stall_s={self._stall_s:g}"
            await errors.answer_http(HTTPException(HTTPStatus.REQUEST_TIMEOUT, detail, _CLOSE))(scope, receive, send)
        finally:
            self._coming.discard(body)
            self._held -= body.held

    async def _next(self, body: "_Body") -> Message:
        """The next part. Raises ImageTooLarge, _TooSlow, and TryAgain where there is no room for it any more."""
        if body not in self._coming:
            return await body.receive()
        while True:
            try:
                async with asyncio.timeout_at(body.window_s + self._stall_s) as body.timer:
                    message = await body.receive()
                    break
            except TimeoutError:
                if body not in self._coming:
                    break
                if body.received - body.in_window < self._least:
                    raise _TooSlow from None
                body.window_s, body.in_window = asyncio.get_running_loop().time(), body.received
        if body not in self._coming:
            raise TryAgain("queue_full", "others are sending too, and nothing came of this for longest")
        self._charge(body, len(message.get("body", b"")))
        if not message.get("more_body", False):
            self._coming.discard(body)
        return message

    def _charge(self, body: "_Body", size: int) -> None:
        now = asyncio.get_running_loop().time()
        body.latest_s = now
        body.received += size
        body.held += size
        self._held += size
        if body.received > self._max_bytes:
            raise self._too_large(body.received)
        while self._held > BODIES * self._max_bytes:
            stalled = max(self._coming, key=lambda one: one.held * (now - one.latest_s))
            if stalled is body or not stalled.held:
                raise TryAgain("queue_full", f"bodies of {self._held} bytes are being read already")
            self._coming.remove(stalled)
            self._held -= stalled.held
            stalled.held = 0
            with suppress(RuntimeError):  # its time is up just now
                stalled.timer.reschedule(now)

    def _too_large(self, size: int) -> ImageTooLarge:
        return ImageTooLarge(f"the request has at least {size} bytes, more than max_request_bytes={self._max_bytes}")


class _TooSlow(Exception):
    """Less of a body has come than must."""


class _Body:
    """What has come of a request's body."""

    timer: asyncio.Timeout

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.received = self.held = 0  # bytes that came; and that count, which those of a body that is given up do not
        self.window_s = self.latest_s = asyncio.get_running_loop().time()  # since when its rate is taken; when bytes came last
        self.in_window = 0  # what had come by then


class AnswerHead:
    """HEAD is GET without the body, on every path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes HEAD on as GET and keeps the body back."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self._app(scope, receive, send)

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        # ranges are of GET alone (RFC 9110, section 14.2)
        headers = [(name, value) for name, value in scope["headers"] if name not in (b"range", b"if-range")]
        as_get = {**scope, "method": "GET", "headers": headers}
        try:
            await self._app(as_get, receive, without_body)
        finally:
            scope["route"] = as_get.get("route")  # for those outside who name the request by it


class SecureHeaders:
    """Adds the headers that keep a browser from guessing types, framing the page, or loading from elsewhere.

    Pages of other origins may not show the pictures either, unless some of them may ask. No cache keeps an answer that does not
    say itself how: without an ETag nobody can ask whether it still holds, and the index may change.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._headers = _HEADERS if settings.cors_origins else {**_HEADERS, "Cross-Origin-Resource-Policy": "same-origin"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on; the answer gets the headers."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        return await self._app(scope, receive, with_headers)
