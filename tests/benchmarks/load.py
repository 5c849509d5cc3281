"""Requests over loopback as fast as they are answered, or as often as asked: a process that takes little of a shared machine.

`run` starts it on files that hold the requests and gives the summary; by hand:

    python tests/benchmarks/load.py --port 8000 --clients 32 --seconds 20 --json requests.bin

A closed loop (`--clients`): each connection sends its next request when the last is answered. An open loop (`--rate`): requests
arrive at their rate, whether or not earlier ones are answered, and go out over up to `--clients` connections; what arrives when
all are waiting is counted as not sent.

A file of requests is a row of lengths and bytes: 4 bytes, little-endian, and as many bytes of a whole HTTP/1.1 request.
"""

import argparse
import asyncio
import json
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

LIMIT: Final = 2**24  # bytes of an answer's head, and of one piece of its body
TIMEOUT_S: Final = 120.0


@dataclass
class Summary:
    """What came of a load. Seconds are from a request's sending to the last byte of its answer."""

    wall_s: float
    statuses: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)  # connections that broke, answers that did not come, by kind
    not_sent: int = 0
    per_s: float = 0.0  # of answers with status 200
    p50_s: float = 0.0  # of the same
    p95_s: float = 0.0
    p99_s: float = 0.0
    max_s: float = 0.0


def write_requests(path: Path, requests: Iterable[bytes]) -> None:
    """Writes whole requests, to be sent in this order again and again."""
    path.write_bytes(b"".join(struct.pack("<I", len(request)) + request for request in requests))


def read_requests(path: Path) -> list[bytes]:
    """The requests of a file."""
    data, requests, start = path.read_bytes(), [], 0
    while start < len(data):
        (length,) = struct.unpack_from("<I", data, start)
        requests.append(data[start + 4 : start + 4 + length])
        start += 4 + length
    return requests


def http(method: str, path: str, headers: Sequence[tuple[bytes, bytes]] = (), body: bytes = b"") -> bytes:
    """A whole request."""
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1"), b"Host: localhost", b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, *(name + b": " + value for name, value in headers), b"", body])


def quantile(sorted_values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed; 0 of none."""
    return sorted_values[max(0, -int(-share * len(sorted_values) // 1) - 1)] if sorted_values else 0.0


class Connection:
    """One connection that is opened when it is needed, and again after it broke."""

    def __init__(self, host: str, port: int, timeout_s: float = TIMEOUT_S, local: tuple[str, int] | None = None) -> None:
        self._where, self._timeout_s, self._local = (host, port), timeout_s, local
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. Raises OSError, EOFError (IncompleteReadError), TimeoutError or ValueError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._streams and self._streams[0].at_eof():  # closed while it was idle
                    self.close()
                if self._streams is None:
                    self._streams = await asyncio.open_connection(*self._where, limit=LIMIT, local_addr=self._local)
                reader, writer = self._streams
                writer.write(request)
                return await self._answer(reader, request.startswith(b"HEAD "))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the connection; what was asked is not waited for."""
        if self._streams:
            self._streams[1].transport.abort()
        self._streams = None

    async def _answer(self, reader: asyncio.StreamReader, without_body: bool) -> tuple[int, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status, body = int(head[9:12]), b""
        if without_body or status in (204, 304):
            pass
        elif (place := head.find(b"\r\ncontent-length:")) >= 0:
            body = await reader.readexactly(int(head[place + 17 : head.index(b"\r\n", place + 2)]))
        elif b"\r\ntransfer-encoding: chunked" in head:
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.read()
        if b"\r\nconnection: close" in head:
            self.close()
        return status, body


class Load:
    """The answers to a row of requests that is sent again and again."""

    def __init__(self, host: str, port: int, requests: Sequence[bytes]) -> None:
        self._requests, self._where, self._next = requests, (host, port), 0
        self.answers: list[tuple[float, float, int]] = []  # started, seconds, status
        self.failures: Counter[str] = Counter()
        self.not_sent = 0

    async def closed(self, clients: int, seconds: float, most: int | None) -> None:
        """Asks over `clients` connections until `seconds` have passed or `most` requests were sent."""
        end, left = time.perf_counter() + seconds, sys.maxsize if most is None else most

        async def client() -> None:
            nonlocal left
            connection = Connection(*self._where)
            while time.perf_counter() < end and left > 0:
                left -= 1
                await self._ask(connection)
            connection.close()

        await asyncio.gather(*(client() for _ in range(clients)))

    async def open(self, rate: float, clients: int, seconds: float) -> None:
        """`rate` requests a second over at most `clients` connections."""
        loop = asyncio.get_running_loop()
        idle = [Connection(*self._where) for _ in range(clients)]
        under_way: set[asyncio.Task[None]] = set()

        async def client(connection: Connection) -> None:
            await self._ask(connection)
            idle.append(connection)

        started = loop.time()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + number / rate - loop.time()))
            if idle:
                task = asyncio.create_task(client(idle.pop()))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            else:
                self.not_sent += 1
        await asyncio.gather(*under_way)
        for connection in idle:
            connection.close()

    async def every(self, pause_s: float, seconds: float) -> None:
        """One request at a time with a pause after each answer."""
        connection, end = Connection(*self._where), time.perf_counter() + seconds
        while time.perf_counter() < end:
            await self._ask(connection)
            await asyncio.sleep(pause_s)
        connection.close()

    def summary(self, wall_s: float) -> Summary:
        """Figures of all that was answered."""
        good = sorted(seconds for _, seconds, status in self.answers if status == 200)
        return Summary(
            wall_s,
            {str(status): count for status, count in sorted(Counter(status for _, _, status in self.answers).items())},
            dict(self.failures),
            self.not_sent,
            len(good) / wall_s,
            quantile(good, 0.5),
            quantile(good, 0.95),
            quantile(good, 0.99),
            quantile(good, 1.0),
        )

    async def _ask(self, connection: Connection) -> None:
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        started = time.perf_counter()
        try:
            status, _ = await connection.ask(request)
            self.answers.append((started, time.perf_counter() - started, status))
        except (OSError, EOFError, ValueError) as error:
            self.failures[type(error).__name__] += 1
            await asyncio.sleep(0.01)


async def _load(arguments: argparse.Namespace) -> dict[str, object]:
    load = Load(arguments.host, arguments.port, read_requests(arguments.requests))
    beside = Load(arguments.host, arguments.port, [http("GET", arguments.beside)])
    started = time.perf_counter()
    other = asyncio.create_task(beside.every(0.05, arguments.seconds)) if arguments.beside else None
    if arguments.rate:
        await load.open(arguments.rate, arguments.clients, arguments.seconds)
    else:
        await load.closed(arguments.clients, arguments.seconds, arguments.number)
    wall_s = time.perf_counter() - started
    if other and arguments.number is not None:
        other.cancel()
    elif other:
        await other
    return {"load": asdict(load.summary(wall_s)), "beside": asdict(beside.summary(wall_s))}


def start(port: int, requests: Path, clients: int, seconds: float, *options: str) -> "subprocess.Popen[str]":
    """This file as a process of its own; `finish` gives what it found."""
    command = [sys.executable, __file__, "--port", str(port), "--clients", str(clients), "--seconds", str(seconds), "--json"]
    return subprocess.Popen([*command, *options, str(requests)], stdout=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> tuple[Summary, Summary]:
    """The load, and what was asked beside it."""
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"load: {process.args!r} failed")
    found = json.loads(output)
    return Summary(**found["load"]), Summary(**found["beside"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requests", type=Path, help="file of requests")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, default=32, help="connections")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--number", type=int, help="stop after so many requests; closed loop only")
    parser.add_argument("--rate", type=float, help="requests a second; makes it an open loop")
    parser.add_argument("--beside", help="a path that one more connection asks for, 50 ms after each answer")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    found = asyncio.run(_load(arguments))
    print(json.dumps(found, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
