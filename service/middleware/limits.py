"""Middleware: a body is no longer than allowed, whatever its headers say; and what browsers are told about our answers."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from service.metrics import Metrics
from training.errors import ImageTooLarge, TryAgain

_BODIES_HELD = 4
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
}


class LimitBody:
    """Answers 413 at once for a body declared too long, and as soon as one that declared nothing becomes too long.

    The bodies of all requests together may be a few times as long as one; 503 beyond that.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, metrics: Metrics) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on with its body counted."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            detail = self._detail(int(declared))
            return await errors.answer_error(ImageTooLarge(detail), self._metrics)(scope, receive, send)
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            self._held += size
            if received > self._max_bytes:
                raise ImageTooLarge(self._detail(received))
            if self._held > _BODIES_HELD * self._max_bytes:
                raise TryAgain("queue_full", f"bodies of {self._held} bytes are being read already")
            return message

        try:
            return await self._app(scope, counted, send)
        finally:
            self._held -= received

    def _detail(self, size: int) -> str:
        return f"the request has at least {size} bytes, more than max_request_bytes={self._max_bytes}"


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
    """Adds the headers that keep a browser from guessing types, framing the page, or loading from elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on; the answer gets the headers."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
            await send(message)

        return await self._app(scope, receive, with_headers)
