"""Requests as a server hands them to the application, for what no client would send or do."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from httpx import Headers
from starlette.types import Message, Receive

App = Callable[..., Awaitable[None]]


class Answer(NamedTuple):
    """What came back."""

    status: int  # 0 where nothing did
    headers: Headers
    body: bytes


async def unread() -> Message:
    """Where the request's body would come from, if it were right to ask for it."""
    raise AssertionError("the body was read")


class Sending:
    """A client that sends its body in parts, all of it or only so much, and then waits for its answer until it goes away."""

    def __init__(self, *parts: bytes, whole: bool = True) -> None:
        self._messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        if whole:
            self._messages.append({"type": "http.request", "body": b"", "more_body": False})
        self._gone = asyncio.Event()
        self.waits = threading.Event()  # set when everything was taken

    async def __call__(self) -> Message:
        """The next part."""
        if self._messages:
            return self._messages.pop(0)
        self.waits.set()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def leave(self) -> None:
        """Goes away."""
        self._gone.set()


async def exchange(
    app: App, method: str, path: str, headers: Iterable[tuple[str, str]] = (), receive: Receive = unread
) -> Answer:
    """The answer to one request. The path goes to the application as it is; a `?` in it begins the query."""
    path, _, query = path.partition("?")
    headers = list(headers)
    if "host" not in {name.lower() for name, _ in headers}:
        headers.append(("host", "127.0.0.1"))
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": ("198.51.100.7", 50000),
        "server": ("127.0.0.1", 8000),
    }
    status, found, body = 0, Headers(), b""

    async def send(message: Message) -> None:
        nonlocal status, found, body
        if message["type"] == "http.response.start":
            status, found = message["status"], Headers(message["headers"])
        else:
            body += message.get("body", b"")

    await app(scope, receive, send)
    return Answer(status, found, body)
