"""What comes before a request, and stays after it, over real sockets: heads, connections, answers that nobody reads."""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from service import connections
from service.connections import HEAD_BYTES, HEADERS, PIPELINED, Connection, Connections
from service.metrics import Metrics
from service.settings import ServiceSettings

PATIENCE_S = 20
NEVER_S = 3600.0
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 8 * 2**20  # bytes of an answer, far more than the sockets of both ends take


class Client:
    """A connection whose receive buffer is small."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(("127.0.0.1", port))
        self._read = b""
        self.closed = False

    def send(self, data: bytes) -> "Client":
        """All of it, or as much as is taken before the other end closes."""
        try:
            self._socket.sendall(data)
        except ConnectionError:
            self.closed = True
        return self

    def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        head = self.head()
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(self._read) < length:
            self._receive()
        body, self._read = self._read[:length], self._read[length:]
        return int(head[9:12]), body

    def head(self) -> bytes:
        """The head of the next answer."""
        while b"\r\n\r\n" not in self._read:
            self._receive()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        return head

    def rest(self) -> bytes:
        """What comes until the other end closes, or resets."""
        read = self._read
        with suppress(ConnectionResetError):
            while more := self._socket.recv(2**16):
                read += more
        return read

    def close(self) -> None:
        """Goes away with a reset, as a process does that is killed with data unread."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _receive(self) -> None:
        data = self._socket.recv(2**16)
        assert data, f"closed after {self._read!r}"
        self._read += data


class Server:
    """A server with an application of the test's, in a thread."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self.metrics = Metrics()
        self.connections = Connections(settings, settings.max_connections, self.metrics)
        http: Any = partial(Connection, self.connections)
        config = uvicorn.Config(app, http=http, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._clients: list[Client] = []

    def client(self) -> Client:
        self._clients.append(Client(self.port))
        return self._clients[-1]

    def silent(self) -> Client:
        """A client that the server has taken up: it has had an answer, and sends nothing more."""
        client = self.client().send(GET)
        assert client.answer()[0] == 200
        return client

    def rejected(self, reason: str) -> int:
        start = f'fc7_rejects_total{{reason="{reason}"}} '
        return int(float(self.metrics.text().decode().partition(start)[2].split()[0]))

    @contextmanager
    def running(self) -> Iterator["Server"]:
        self._thread.start()
        try:
            yield self
        finally:
            for client in self._clients:
                client.close()
            self._server.should_exit = True
            self._thread.join(PATIENCE_S)
            self._listener.close()


async def short(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and says how long it was."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await respond(send, b"%d" % size)


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    """An answer of LARGE bytes at /large, in one piece; else a short one."""
    await respond(send, bytes(LARGE) if scope["path"] == "/large" else b"0")


async def respond(send: Send, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def started(app: ASGIApp = short, **settings: Any) -> Server:
            server = Server(app, ServiceSettings(**({"stall_s": NEVER_S} | settings)))
            return stack.enter_context(server.running())

        yield started


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released once for each connection that is cut."""
    cuts, cut = threading.Semaphore(0), Connections.cut

    def noted(self: Connections, connection: Connection) -> None:
        cut(self, connection)
        cuts.release()

    monkeypatch.setattr(Connections, "cut", noted)
    return cuts


def assert_problem(client: Client, status: int, words: str) -> None:
    """It was told this, and the connection is closed."""
    found, body = client.answer()
    problem = json.loads(body)
    assert (found, problem["status"]) == (status, status)
    assert words in problem["detail"]
    assert client.rest() == b""


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "target": b"GET /" + b"a" * HEAD_BYTES,
    "name": b"GET / HTTP/1.1\r\n" + b"a" * HEAD_BYTES,
    "value": b"GET / HTTP/1.1\r\nA: " + b"a" * HEAD_BYTES,
    "folds": b"GET / HTTP/1.1\r\nA: b\r\n" + b" c\r\n" * (HEAD_BYTES // 4),
    "long headers": b"GET / HTTP/1.1\r\n" + b"".join(b"%d: %s\r\n" % (i, b"a" * 1000) for i in range(70)),
    "many headers": b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * (HEADERS + 2),
    "lines before it": b"\r\n" * (HEAD_BYTES // 2 + 1),
    "size of a chunk": CHUNKED + b"0" * (HEAD_BYTES + 1),
    "extension of a chunk": CHUNKED + b"5;" + b"a" * HEAD_BYTES,
    "trailer": CHUNKED + b"0\r\nA: " + b"a" * HEAD_BYTES,
    "many trailers": CHUNKED + b"0\r\n" + b"a:b\r\n" * (HEADERS + 2),
}


@pytest.mark.parametrize("sent", ENDLESS.values(), ids=ENDLESS)
def test_what_never_becomes_a_request_is_ended_by_its_length(serve: Serve, sent: bytes) -> None:
    client, more = serve().client(), sent[-4:] * 1024
    assert any(client.send(piece).closed for piece in (sent, *[more] * 1000))
    told = client.rest()  # nothing where the connection was reset before it was read
    assert not told or told[9:12] in (b"400", b"431")  # the parser itself knows some that cannot be


def test_heads_within_the_limits_are_read(serve: Serve) -> None:
    client = serve().client()
    many = b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: %s\r\n" % (i, b"a" * 500) for i in range(HEADERS)) + b"\r\n"
    body = b"".join(b"%x;ext=%s\r\n%s\r\n" % (size, b"e" * 900, b"x" * size) for size in range(1, 200))
    for _ in range(3):
        assert client.send(many).answer() == (200, b"0")
        assert client.send(CHUNKED + body + b"0\r\nT: %s\r\n\r\n" % (b"t" * 900)).answer() == (200, b"%d" % sum(range(200)))


def test_what_is_not_http_is_a_problem(serve: Serve) -> None:
    assert_problem(serve().client().send(b"\x16\x03\x01\r\n\r\n"), 400, "not HTTP/1.1")


def test_a_head_that_does_not_come_in_time_is_ended_and_so_is_who_says_nothing(serve: Serve) -> None:
    server = serve(stall_s=0.2)
    silent, begun, again = server.client(), server.client().send(GET[:-2]), server.silent().send(GET[:9])
    assert silent.rest() == b""
    for slow in (begun, again):
        assert_problem(slow, 408, "stall_s=0.2")
    assert server.silent().send(GET).answer() == (200, b"0")


def test_requests_that_are_sent_ahead_are_few(serve: Serve) -> None:
    server = serve()
    client = server.client().send(GET * (PIPELINED + 1))
    for _ in range(PIPELINED + 1):
        assert client.answer() == (200, b"0")
    assert_problem(server.client().send(GET * 2000), 429, f"more than {PIPELINED} requests")


@pytest.mark.parametrize(
    "limits", [{"max_connections": 3}, {"max_connections_per_client": 3}], ids=lambda limits: next(iter(limits))
)
def test_the_connection_that_is_idle_for_longest_makes_room(serve: Serve, limits: dict[str, int]) -> None:
    server = serve(**limits)
    first, second, third = server.silent(), server.client(), server.silent()
    assert first.send(GET).answer() == (200, b"0")
    fourth = server.silent()
    assert second.rest() == b""
    fifth = server.silent()
    assert third.rest() == b""
    for client in (first, fourth, fifth):
        assert client.send(GET).answer() == (200, b"0")


def test_far_more_silent_connections_than_may_be_keep_nobody_from_being_answered(serve: Serve) -> None:
    server = serve(max_connections=20, max_connections_per_client=10)
    silent = [server.client() for _ in range(200)]
    client = server.client()
    for _ in range(5):
        assert client.send(GET).answer() == (200, b"0")
        for _ in range(9):
            server.silent()
    assert all(one.rest() == b"" for one in silent)


class Waiting:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.release: list[Callable[[], object]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        self.release.append(lambda: loop.call_soon_threadsafe(event.set))
        self.began.release()
        await event.wait()
        await respond(send, b"0")


def test_where_all_connections_are_in_use_a_new_one_is_told_so_at_once(serve: Serve) -> None:
    waiting = Waiting()
    server = serve(waiting, max_connections=2)
    clients = [server.client().send(GET) for _ in range(2)]
    for _ in clients:
        assert waiting.began.acquire(timeout=PATIENCE_S)
    assert_problem(server.client(), 503, "max_connections=2")
    assert server.rejected("queue_full") == 1
    for release in waiting.release:
        release()
    for client in clients:
        assert client.answer() == (200, b"0")


@pytest.mark.parametrize("what", ["an answer", "a body"])
def test_who_does_nothing_makes_room_where_all_connections_are_in_use(
    serve: Serve, cuts: threading.Semaphore, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    unread, stalled = threading.Event(), Connections.stalled

    def noted(self: Connections, connection: Connection) -> None:
        stalled(self, connection)
        unread.set()

    monkeypatch.setattr(Connections, "stalled", noted)
    monkeypatch.setattr(connections, "LOOK_AGAIN_S", 0.0)
    server = serve(large if what == "an answer" else short, max_connections=1)
    if what == "an answer":
        client = server.client().send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert unread.wait(PATIENCE_S)
    else:
        client = server.client().send(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        assert client.head().startswith(b"HTTP/1.1 100 ")
    assert_problem(server.client(), 503, "max_connections=1")
    monkeypatch.setattr(connections, "PATIENCE_S", 0.0)
    assert server.client().send(GET).answer() == (200, b"0")
    assert cuts.acquire(timeout=PATIENCE_S)
    assert len(client.rest()) < LARGE


def test_where_none_could_go_a_moment_ago_those_who_come_are_refused_without_a_look_at_all(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    waiting = Waiting()

    def noted(self: Connection) -> float:
        looks.append(0.0)
        return 0.0

    monkeypatch.setattr(Connection, "silent_s", noted)
    monkeypatch.setattr(connections, "LOOK_AGAIN_S", 3600.0)
    server = serve(waiting, max_connections=1)
    client = server.client().send(GET)
    assert waiting.began.acquire(timeout=PATIENCE_S)
    for _ in range(3):
        assert_problem(server.client(), 503, "max_connections=1")
    assert len(looks) == 1
    waiting.release[0]()
    assert client.answer() == (200, b"0")


def test_answers_that_are_not_read_hold_no_more_than_they_may(serve: Serve, cuts: threading.Semaphore) -> None:
    server = serve(large, max_unread_bytes=LARGE + LARGE // 2)
    ask = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
    unread = [server.client().send(ask) for _ in range(6)]
    assert server.client().send(ask).answer() == (200, bytes(LARGE))
    for _ in range(5):
        assert cuts.acquire(timeout=PATIENCE_S)
    lengths = sorted(len(client.rest()) for client in unread)
    assert lengths[-2] < LARGE


def test_an_answer_that_is_not_read_is_ended_and_one_that_is_read_slowly_is_not(serve: Serve, cuts: threading.Semaphore) -> None:
    server = serve(large, stall_s=0.2, min_bytes_per_s=1000)
    ask = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
    unread, closing = server.client().send(ask), server.client().send(ask.replace(b"Host: x", b"Connection: close"))
    for _ in range(2):
        assert cuts.acquire(timeout=PATIENCE_S)
    assert len(unread.rest()) < LARGE
    assert len(closing.rest()) < LARGE
    assert server.rejected("slow") == 2


def test_the_rest_of_a_body_that_is_answered_before_it_came_is_not_waited_for_without_end(
    serve: Serve, cuts: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LINGER_S", 0.1)
    server = serve(large)
    client = server.client().send(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
    assert client.answer() == (200, b"0")
    assert cuts.acquire(timeout=PATIENCE_S)
    assert client.rest() == b""


@pytest.mark.parametrize(
    ("addresses", "same"),
    [
        (("10.0.0.1", "10.0.0.2"), False),
        (("10.0.0.1", "10.0.0.1"), True),
        (("2001:db8::1", "2001:db8::ffff:2"), True),
        (("2001:db8::1", "2001:db8:0:1::1"), False),
        (("::ffff:10.0.0.1", "::ffff:10.0.0.2"), False),
    ],
)
def test_a_client_is_an_address_or_a_network_of_ipv6(addresses: tuple[str, str], same: bool) -> None:
    first, second = (connections._client((address, 1)) for address in addresses)
    assert (first == second) is same
