"""Middleware: a body is no longer than allowed, whatever its headers say; and what browsers are told about our answers."""

from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from training.errors import ImageTooLarge

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
# The description's own page loads its script from elsewhere; everything else comes from here.
_DOCS = ("/docs", "/redoc")
_POLICY = "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"


class LimitBody:
    """Answers 413 at once for a body declared too long, and as soon as one that declared nothing becomes too long."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on with its body counted."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            detail = self._detail(int(declared))
            return await errors.answer(errors.problem(ImageTooLarge(detail)))(scope, receive, send)
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._detail(received))
            return message

        return await self._app(scope, counted, send)

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

        return await self._app({**scope, "method": "GET"}, receive, without_body)


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
                if not scope["path"].startswith(_DOCS):
                    headers["Content-Security-Policy"] = _POLICY
            await send(message)

        return await self._app(scope, receive, with_headers)
