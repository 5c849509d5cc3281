"""Heads on a real connection: offers of another protocol, as Java's HttpClient makes them, are declined, and the body is read."""

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.http11 import Http11

OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n",
    "tls": b"Connection: upgrade\r\nUpgrade: TLS/1.2\r\n",
    "several": b"Connection: keep-alive, upgrade\r\nUpgrade: h2c, x/1\r\n",
}
LENGTH, CHUNKED = b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
HIDDEN = b"Content-Length: 38\r\n\r\nDELETE /hidden HTTP/1.1\r\nHost: x\r\n\r\n.."


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what was asked and sent."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    text = f"{scope['method']} {scope['path']} {body.decode()}".encode() + dict(scope["headers"]).get(b"x-key", b"")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(echo, http=Http11, ws="none", lifespan="off", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()
        server.should_exit = True
        thread.join(60)


def answers(address: tuple[str, int], number: int, *parts: bytes) -> list[str]:
    """The bodies of `number` answers to what is sent part by part, each once the ones before it were taken in."""
    found: list[str] = []
    with socket.create_connection(address, timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
        with connection.makefile("rb") as file:
            while len(found) < number:
                status, length = file.readline(), 0
                while (line := file.readline().strip().lower()) not in (b"", b"\r\n"):
                    length = int(line.split(b":")[1]) if line.startswith(b"content-length") else length
                if b" 100 " not in status:
                    assert b" 200 " in status, status
                    found.append(file.read(length).decode())
    return found


def head(method: bytes, path: bytes, offer: str) -> bytes:
    return b"%s %s HTTP/1.1\r\nHost: x\r\n%s" % (method, path, OFFERS[offer])


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize(
    ("body", "read"), [(LENGTH, "hello"), (CHUNKED, "hello"), (HIDDEN, HIDDEN.partition(b"\r\n\r\n")[2].decode())]
)
def test_the_body_behind_an_offer_is_read(address: tuple[str, int], offer: str, body: bytes, read: str) -> None:
    request = head(b"POST", b"/a", offer) + body
    plain = b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n"
    expected = [f"POST /a {read}", "GET /b "]
    assert answers(address, 2, request + plain) == expected
    assert answers(address, 2, request, plain) == expected
    middle = request.index(b"\r\n\r\n") + 4
    assert answers(address, 2, request[:middle], request[middle:] + plain) == expected
    assert answers(address, 2, *(request[i : i + 1] for i in range(len(request))), plain) == expected


@pytest.mark.parametrize("sent", [b"a b", b"  a b", b"a b  ", b"\ta b\t ", b" a b \t"])
def test_white_space_around_a_value_is_no_part_of_it(address: tuple[str, int], sent: bytes) -> None:
    request = b"POST /a HTTP/1.1\r\nHost: x\r\nX-Key:" + sent + b"\r\n" + LENGTH
    assert answers(address, 1, request) == answers(address, 1, *(request[i : i + 1] for i in range(len(request))))
    assert answers(address, 1, request) == ["POST /a helloa b"]


@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_without_a_body_is_answered_and_so_are_the_next(address: tuple[str, int], offer: str) -> None:
    request = head(b"GET", b"/a", offer) + b"\r\n"
    assert answers(address, 3, request * 3) == ["GET /a "] * 3
    assert answers(address, 2, request, head(b"POST", b"/b", offer) + LENGTH) == ["GET /a ", "POST /b hello"]


def test_a_client_that_waits_for_leave_to_send_gets_it(address: tuple[str, int]) -> None:
    request = head(b"POST", b"/a", "h2c") + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    assert answers(address, 1, request, b"hello") == ["POST /a hello"]
