"""What comes before a request, and stays after it: how many connections, how long a head, how slow a reader may be.

uvicorn bounds none of it. This is its protocol on httptools with limits; with h11, whose heads are bounded, a request costs more
and connections and time are as unbounded.
"""

import asyncio
import fcntl
import sys
import termios
import time
from collections import deque
from collections.abc import Collection
from http import HTTPStatus
from ipaddress import IPv6Address, IPv6Network
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service import errors
from service.http11 import Http11
from service.metrics import Metrics, Reason
from service.schemas import Problem
from service.settings import ServiceSettings
from training.errors import TryAgain

HEAD_BYTES: Final = 2**16  # of a head, or of a body's chunk sizes and trailers in one piece
HEADERS: Final = 100  # of a request, with its trailers
PIPELINED: Final = 16  # requests of one connection that wait for the answer to the one before
LINGER_S: Final = 30.0  # for which the rest of a body is let in, and dropped, that was answered before it was all here
PATIENCE_S: Final = 0.25  # for which a client may do nothing though others find no room
LOOK_AGAIN_S: Final = 0.02  # for which those who come are not worth another look at all connections
_AS_IT_IS: Final = (
    "abort",
    "close",
    "get_extra_info",
    "get_write_buffer_size",
    "is_closing",
    "pause_reading",
    "resume_reading",
    "set_protocol",
)


class Connections:
    """All connections. For the event loop's thread."""

    def __init__(self, settings: ServiceSettings, most: int, metrics: Metrics) -> None:
        """At most `most` at once, and of each client and of bytes unread as the settings say."""
        self.stall_s, self.least_per_s = settings.stall_s, settings.min_bytes_per_s
        self._most, self._most_of_client = most, settings.max_connections_per_client
        self._most_unread = settings.max_unread_bytes
        self._metrics = metrics
        self._all: dict[Connection, str] = {}  # with their clients
        self._of_client: dict[str, set[Connection]] = {}
        self._unread: set[Connection] = set()  # with more to read than a socket takes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._full_of, self._full_until = "", 0.0  # of whose connections none may go, and until when that is believed

    def enter(self, connection: "Connection") -> None:
        """Takes up a connection, for which another may have to go. Raises TryAgain where all are in use."""
        client = _client(connection.client)
        peers = self._of_client.get(client, ())
        if len(peers) >= self._most_of_client:
            self._make_room(client, peers, f"max_connections_per_client={self._most_of_client}")
        elif len(self._all) >= self._most:
            self._make_room("", self._all, f"max_connections={self._most}")
        self._all[connection] = client
        self._of_client.setdefault(client, set()).add(connection)
        if self._loop is None:
            self._loop = connection.loop
            self._look_later()

    def leave(self, connection: "Connection") -> None:
        """A connection is over."""
        self._unread.discard(connection)
        client = self._all.pop(connection, None)
        if client is not None:
            peers = self._of_client[client]
            peers.remove(connection)
            if not peers:
                del self._of_client[client]

    def cut(self, connection: "Connection") -> None:
        """Ends a connection with what was not read of it."""
        self._metrics.rejected("slow")
        self.leave(connection)
        connection.transport.abort()

    def stalled(self, connection: "Connection") -> None:
        """A connection has more to read than its socket takes; where all have too much, whoever keeps most for longest goes."""
        self._unread.add(connection)
        unread = {one: one.look() for one in self._unread}
        total = sum(size for size, _ in unread.values())
        others = {one: size * silent_s for one, (size, silent_s) in unread.items() if one is not connection}
        while total > self._most_unread and others:
            slowest = max(others, key=lambda one: others[one])
            total -= unread[slowest][0]
            del others[slowest]
            self.cut(slowest)

    def flowing(self, connection: "Connection") -> None:
        """What a connection had to read is nearly all read."""
        self._unread.discard(connection)

    def refused(self, status: HTTPStatus) -> None:
        """A connection was told that it is not served."""
        reasons: dict[HTTPStatus, Reason] = {HTTPStatus.SERVICE_UNAVAILABLE: "queue_full", HTTPStatus.REQUEST_TIMEOUT: "slow"}
        if status in reasons:
            self._metrics.rejected(reasons[status])

    def _make_room(self, client: str, connections: Collection["Connection"], limit: str) -> None:
        """Ends a connection of a client's, or with "" of all. Raises TryAgain where none may go, or none might just now."""
        now = time.monotonic()
        full = TryAgain("queue_full", f"{len(connections)} connections are in use, and {limit}")
        if client == self._full_of and now < self._full_until:
            raise full
        idle = [one for one in connections if one.idle]
        waiting = {one: silent_s for one in connections if not idle and (silent_s := one.silent_s()) >= PATIENCE_S}
        if idle:
            longest = min(idle, key=lambda one: one.active_s)
            self.leave(longest)
            longest.transport.abort()
        elif waiting:
            self.cut(max(waiting, key=lambda one: waiting[one]))
        else:
            self._full_of, self._full_until = client, now + LOOK_AGAIN_S
            raise full

    def _look_later(self) -> None:
        assert self._loop  # noqa: S101
        self._loop.call_later(min(1.0, self.stall_s / 4), self._look)

    def _look(self) -> None:
        for connection in list(self._all):
            connection.check()
        if self._all:
            self._look_later()
        else:
            self._loop = None


class Connection(Http11):
    """One connection: uvicorn's, with limits."""

    transport: "_Counting"

    def __init__(self, connections: Connections, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._connections = connections
        self.active_s = 0.0  # when bytes came last, or an answer ended
        self._head_since: float | None = None  # while one is waited for
        self._in_message = False  # between the end of a head and the end of its body
        self._head_bytes = self._headers = 0
        self._undigested = 0  # bytes that came since a head or a body ended, or there was anything of a body
        self._digested = False
        self._cycles: deque[RequestResponseCycle] = deque()  # of requests that are not answered
        self._wrong: HTTPStatus = HTTPStatus.BAD_REQUEST  # what the parser's error means
        self._read, self._read_since = 0, 0.0  # bytes of answers, as they were last counted, and since when
        self._window: tuple[float, int] | None = None  # while something is unread: when it began, and what was read by then

    @property
    def idle(self) -> bool:
        """Whether no request has come that is not answered, and there is little to read."""
        return self._answered and not self.flow.write_paused

    @property
    def _answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def silent_s(self) -> float:
        """For how long nothing has come of a body, or was read of an answer, that is waited for; else 0."""
        if self.flow.write_paused:
            return self.look()[1]
        return time.monotonic() - self.active_s if not self._answered and self.cycle.more_body else 0.0

    def look(self) -> tuple[int, float]:
        """The bytes of answers that are here, unread, and for how long none of them was read."""
        now, here = time.monotonic(), self.transport.get_write_buffer_size()
        read = self.transport.written - here - (self.transport.in_kernel() if here else 0)
        if read != self._read or not here:
            self._read, self._read_since = read, now
        return here, now - self._read_since

    def check(self) -> None:
        """Ends what takes too long."""
        now, stall_s = time.monotonic(), self._connections.stall_s
        if self.look()[0]:
            began, then = self._window = self._window or (now, self._read)
            if now - began < stall_s:
                pass
            elif self._read - then < self._connections.least_per_s * stall_s:
                self._connections.cut(self)
            else:
                self._window = now, self._read
            return
        self._window = None
        if self._head_since is not None and now - self._head_since > stall_s:
            if self._undigested:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the request's head did not come within stall_s={stall_s:g}")
            else:  # a browser that has opened it in case takes words for the answer to what it asks next
                self._connections.cut(self)
        elif self._in_message and self._answered and now - self.active_s > LINGER_S:
            self._connections.cut(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(_Counting(transport))
        self.active_s = self._head_since = self._read_since = time.monotonic()
        try:
            self._connections.enter(self)
        except TryAgain as error:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was sent away."""
        self._connections.leave(self)
        for cycle in self._cycles:  # uvicorn tells the last of several alone
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        if self.transport.is_closing():
            return
        self._digested = False
        if not self._in_message or not self._answered:
            self.active_s = time.monotonic()
        super().data_received(data)
        self._undigested = 0 if self._digested else self._undigested + len(data)
        if self._undigested > HEAD_BYTES:
            self._wrong = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.send_400_response("")
        elif self._head_since is None and not self._in_message and self._answered:
            self._head_since = time.monotonic()

    def send_400_response(self, msg: str) -> None:
        """Refuses what cannot be parsed, in the words that errors have here."""
        if self.cycle is not None and self.cycle.response_started and not self._answered:
            self.transport.close()  # words would come in the middle of an answer
        elif self._wrong == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            self._refuse(self._wrong, f"a head of more than {HEAD_BYTES} bytes or {HEADERS} headers")
        elif self._wrong == HTTPStatus.TOO_MANY_REQUESTS:
            self._refuse(self._wrong, f"more than {PIPELINED} requests were sent before the answer to the first was read")
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "what was sent is not HTTP/1.1")

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head_bytes = self._headers = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of a head's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer."""
        self._headers += 1
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is here."""
        if len(self.pipeline) >= PIPELINED:
            self._wrong = HTTPStatus.TOO_MANY_REQUESTS
            raise ValueError
        self._head_since, self._in_message, self._digested = None, True, True
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:  # which another protocol would take over
            self._cycles.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._digested = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is here."""
        self._in_message, self._digested = False, True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer was handed on to be sent."""
        self.active_s = time.monotonic()
        self._cycles.popleft()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """There is more to read than the socket takes."""
        super().pause_writing()
        self._connections.stalled(self)

    def resume_writing(self) -> None:
        """It was read."""
        super().resume_writing()
        self._connections.flowing(self)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES or self._headers > HEADERS:
            self._wrong = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answers before there is a request to answer, and closes."""
        self._connections.refused(status)
        answer = errors.answer(Problem(title=status.phrase, status=status, detail=detail))
        head = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode()), b"connection: close"]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            head.append(b"retry-after: %d" % errors.RETRY_AFTER_S)
        head += [name + b": " + value for name, value in answer.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"", bytes(answer.body)]))
        self.transport.close()


class _Counting(asyncio.Transport):
    """A transport that counts what is written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.written = 0
        for name in _AS_IT_IS:
            setattr(self, name, getattr(transport, name))

    def write(self, data: Any) -> None:
        self.written += len(data)
        self._transport.write(data)

    def in_kernel(self) -> int:
        """Bytes that the kernel has taken, and the client's has not."""
        try:
            return int.from_bytes(fcntl.ioctl(self.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return 0


def _client(address: tuple[str, int] | None) -> str:
    """Whose a connection is: its address, of which the first half is one client's in IPv6."""
    host = address[0] if address else ""
    if ":" not in host:
        return host
    number = IPv6Address(host.partition("%")[0])
    return str(number.ipv4_mapped or IPv6Network((number.packed, 64), strict=False))
