"""Middleware: each request has an id, is counted, timed and logged, and is answered even when something inside it fails."""

import asyncio
import logging
import re
import uuid
from http import HTTPStatus
from time import perf_counter
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors, logs
from service.metrics import Metrics, known_method
from service.schemas import Problem

CLIENT_CLOSED: Final = 499  # nginx's status of a request whose client, or whose server, did not wait for the answer
LONGEST_PATH: Final = 200
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds by machines
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_access = logging.getLogger("fc7.access")
_log = logging.getLogger("fc7.service")


class Observe:
    """Watches requests from outside: X-Request-ID, metrics, a line in the access log, and 500 for an error nobody expected."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on; the answer gets the header. What fails once the answer has begun is left to the server."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id = _id(scope)
        # never reset: every request is a task of its own, and the server logs in it after us
        logs.request_id.set(request_id)
        header = (b"x-request-id", request_id.encode())
        status, size = CLIENT_CLOSED, 0  # until an answer begins

        async def marked(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), header]}
            else:
                size += len(message.get("body", b""))
            await send(message)

        started = perf_counter()
        with self._metrics.requests_in_flight.track_inprogress():
            try:
                await self._app(scope, receive, marked)
            except asyncio.CancelledError:
                status = CLIENT_CLOSED
                raise
            except ClientDisconnect:
                pass  # nobody is left to be answered
            except Exception:
                if status != CLIENT_CLOSED:
                    raise
                _log.exception("%s %s failed", scope["method"], scope["path"][:LONGEST_PATH])
                await errors.answer(_unexpected())(scope, receive, marked)
            finally:
                self._note(scope, status, size, perf_counter() - started)

    def _note(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        method, template = known_method(scope["method"]), getattr(scope.get("route"), "path", None)
        self._metrics.answered(method, template or "unknown", status, seconds)
        level = logging.DEBUG if template in _QUIET and status < HTTPStatus.BAD_REQUEST else logging.INFO
        if _access.isEnabledFor(level):
            path = template or scope["path"][:LONGEST_PATH]
            client = scope.get("client")
            fields = {
                "method": method,
                "path": path,
                "status": status,
                "ms": round(seconds * 1000, 2),
                "bytes": size,
                "client": client and client[0],
            }
            _access.log(level, "%s %s %d", method, path, status, extra=fields)


def _id(scope: Scope) -> str:
    """The client's own id where it is well-formed, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return str(value, "ascii")
    return uuid.uuid4().hex


def _unexpected() -> Problem:
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return Problem(title=status.phrase, status=status, detail="an error inside the service; its log says more")
