"""Attacks on a running service, over loopback: `make attack`, or this file with --rows.

Each row starts a service with its default settings, which may open 1024 files, and a process that attacks it for --seconds.
Meanwhile one client asks for /healthz twenty times a second, and another one, over a new connection each time, for a thumbnail,
for neighbours and for classes of a photograph. Memory is what the service allocated (RssAnon) beyond what it had before, sampled
every 20 ms; its bound is of the settings, as service/README.md has it. Ends with 1 where a row fails: memory over its bound,
/healthz slower than --health-ms, fewer than 19 of 20 of the other client's requests answered by 200.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from indexer import build  # noqa: E402
from service.decoding import AT_ONCE  # noqa: E402
from service.middleware.limits import BODIES  # noqa: E402
from service.settings import ServiceSettings  # noqa: E402
from tests.benchmarks.load import Connection, http  # noqa: E402
from tests.benchmarks.machine import heading  # noqa: E402
from tests.conftest import COLOURS, SmallConfig, encoded, photograph, write_photographs  # noqa: E402
from training import checkpoint  # noqa: E402
from training.images.preprocess import PIXEL_BYTES  # noqa: E402
from training.network.alexnet import AlexNet  # noqa: E402
from training.network.initialisation import initialise  # noqa: E402

HOST: Final = "127.0.0.1"
OTHER_HOST: Final = "127.0.0.2"  # where Linux has no more to set up
KEY: Final = "key"
FILES: Final = 1024
MB: Final = 2**20
JSON: Final = [(b"Content-Type", b"application/json")]
FORM: Final = [(b"Content-Type", b"multipart/form-data; boundary=b")]
SERVED: Final = 0.95
SETTINGS: Final = ServiceSettings.model_construct()
# The terms of the bound, as service/README.md has them.
BODY: Final = 3 * BODIES * SETTINGS.max_request_bytes
DECODING: Final = PIXEL_BYTES * AT_ONCE * SETTINGS.max_image_pixels
UNREAD: Final = SETTINGS.max_unread_bytes + 8 * MB
CONNECTIONS: Final = SETTINGS.max_connections * MB // 2
HITS: Final = 2048 * SETTINGS.max_queue * SETTINGS.max_neighbors


def form(*images: bytes) -> bytes:
    parts = [b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + data + b"\r\n" for data in images]
    return b"".join(parts) + b"--b--\r\n"


def post(path: str, body: bytes, headers: Sequence[tuple[bytes, bytes]] = JSON) -> bytes:
    return http("POST", path, headers, body)


# The attackers: each in a process of its own, until it is ended.


def connected(port: int) -> socket.socket:
    """A connection that takes little of what is sent to it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(60)
    client.connect((HOST, port))
    return client


def keep(port: int, number: int, sent: bytes) -> None:
    """So many connections that send this and read nothing, opened again when they are ended."""
    clients: list[socket.socket] = []
    while True:
        for client in clients[:]:
            with suppress(BlockingIOError, InterruptedError):
                try:
                    if client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) and b"HTTP" not in sent:
                        continue
                    ended = not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                except ConnectionError:
                    ended = True
                if ended:
                    clients.remove(client)
                    client.close()
        while len(clients) < number:
            with suppress(OSError):
                client = connected(port)
                clients.append(client)
                client.sendall(sent)
        time.sleep(0.1)


def asked(port: int, clients: int, requests: Sequence[bytes]) -> None:
    """So many clients that ask again and again, and read what they are told."""

    async def client(request: bytes) -> None:
        connection = Connection(HOST, port)
        while True:
            try:
                await connection.ask(request)
            except (OSError, EOFError, ValueError):
                await asyncio.sleep(0.01)

    async def all_of_them() -> None:
        await asyncio.gather(*(client(requests[number % len(requests)]) for number in range(clients)))

    asyncio.run(all_of_them())


def unread_images(port: int) -> None:
    """128 connections that ask for a photograph of 3 MB and do not read it."""
    keep(port, 128, http("GET", "/items/0/image"))


def unread_answers(port: int) -> None:
    """128 connections that ask for 32 x 1000 neighbours and do not read them."""
    keep(port, 128, post("/neighbors?k=1000", json.dumps({"inputs": [{"id": item} for item in range(32)]}).encode()))


def unread_pages(port: int) -> None:
    """Twice as many connections as one client may have."""
    keep(port, 2 * SETTINGS.max_connections_per_client, http("GET", "/items/0/image"))


def endless_heads(port: int) -> None:
    """8 connections with a header that never ends."""

    def endless() -> None:
        while True:
            with suppress(OSError), connected(port) as client:
                client.sendall(b"GET / HTTP/1.1\r\nA: ")
                while True:
                    client.sendall(b"a" * MB)

    threads = [threading.Thread(target=endless, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def silent(port: int) -> None:
    """1100 connections that send nothing."""
    keep(port, 1100, b"")


def slow_heads(port: int) -> None:
    """500 connections that send half a head."""
    keep(port, 500, b"GET /healthz HTTP/1.1\r\nHost: ")


def pipelined(port: int) -> None:
    """64 connections that send 20 000 requests at once."""
    keep(port, 64, http("GET", "/items/0/image") * 20_000)


def wrong_json(port: int) -> None:
    """32 clients with JSON of 0.3 MB and up to 159 000 wrong inputs, fields or numbers."""
    inputs = b'{"inputs": [' + b",".join([b"0"] * 159_000) + b"]}"
    fields = b'{"inputs": [{' + b",".join(b'"%d":0' % number for number in range(40_000)) + b"}]}"
    numbers = b'{"inputs": [{"vector": [' + b",".join([b'""'] * 100_000) + b"]}]}"
    asked(port, 32, [post("/neighbors", body) for body in (inputs, fields, numbers)])


def large_pictures(port: int) -> None:
    """4 clients with 32 x a lossless WebP of 34 bytes and 7071 x 7070 pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (7071, 7070)).save(buffer, "WEBP", lossless=True)
    asked(port, 4, [post("/classify", form(*[buffer.getvalue()] * SETTINGS.max_images), FORM)])


def stalled_uploads(port: int) -> None:
    """4 uploads of as much as may be, less a byte, that then stall."""
    size = SETTINGS.max_request_bytes
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
    keep(port, 4, head + bytes(size - 1))


def dripped_uploads(port: int) -> None:
    """200 uploads that send a byte now and then."""
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n"
    clients: list[socket.socket] = []
    while True:
        for client in clients[:]:
            try:
                client.sendall(b" ")
            except OSError:
                clients.remove(client)
        while len(clients) < 200:
            with suppress(OSError):
                clients.append(connected(port))
                clients[-1].sendall(head)
        time.sleep(0.5)


def uploads(port: int) -> None:
    """8 clients that send as much JSON as may be, as fast as they can."""
    image = base64.b64encode(bytes(SETTINGS.max_request_bytes * 3 // 4 - 3000))
    asked(port, 8, [post("/classify", b'{"inputs": [{"image": "%s"}]}' % image)])


Attack = Callable[[int], None]
ROWS: Final[dict[Attack, int]] = {
    unread_images: CONNECTIONS + UNREAD,
    unread_pages: CONNECTIONS + UNREAD,
    unread_answers: CONNECTIONS + UNREAD + HITS,
    endless_heads: CONNECTIONS,
    silent: CONNECTIONS,
    slow_heads: CONNECTIONS,
    pipelined: CONNECTIONS + UNREAD,
    wrong_json: CONNECTIONS + BODY,
    large_pictures: CONNECTIONS + DECODING,
    stalled_uploads: BODY,
    dripped_uploads: CONNECTIONS + BODY,
    uploads: BODY + UNREAD,
}
BY_NAME: Final = {attack.__name__: attack for attack in ROWS}


# What is attacked, and who watches.


def make(folder: Path) -> tuple[Path, Path]:
    """A small model and an index of 1000 photographs, the first of 3 MB, and where they are."""
    write_photographs(folder / "images" / "train", 334)
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    first = sorted((folder / "images" / "train").iterdir())[0] / "0.png"
    Image.fromarray(noise).save(first)
    net = AlexNet(SmallConfig(classes=len(COLOURS)))
    initialise(net, "fan-in", seed=1)
    checkpoint.save(folder / "model", net, sorted(COLOURS), torch.full((3, 256, 256), 110.0))
    build.main(build.BuildSettings(model=folder / "model", data=folder / "images", index=folder / "index", part="train", bits=0))
    return folder / "model", folder / "index"


@contextmanager
def service(model: Path, index: Path, log: Path) -> Iterator[tuple[int, int]]:
    """A service that may open FILES files: its process and its port."""
    command = [sys.executable, "-m", "service", "--port", "0", "--model", str(model), "--index", str(index)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FC7_")} | {"FC7_API_KEY": KEY}
    limited = ["prlimit", f"--nofile={FILES}:{FILES}", *command]
    with (
        log.open("ab") as errors,
        subprocess.Popen(limited, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout
            address = next((m for line in process.stdout if (m := re.search(rf"http://{HOST}:(\d+)", line))), None)
            if not address:
                sys.exit(f"the service did not start: {log.read_text()[-1000:]}")
            yield process.pid, int(address[1])
        finally:
            process.kill()


def allocated(process: int) -> int:
    """Bytes of memory that a process allocated and has resident."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon:")).split()[1]) * 1024


@dataclass
class Watch:
    """What was seen of a service during an attack."""

    memory: int = 0  # bytes
    slowest_s: float = 0.0  # of /healthz
    answers: Counter[str] = field(default_factory=Counter)  # of the other client, by status or failure


async def ask(port: int, request: bytes) -> str:
    """The status of the answer over a new connection from another address than the attacker's, or how it failed."""
    connection = Connection(HOST, port, 20, local=(OTHER_HOST, 0))
    try:
        return str((await connection.ask(request))[0])
    except (OSError, EOFError, ValueError) as error:
        return type(error).__name__
    finally:
        connection.close()


async def watched(process: int, port: int, seconds: float) -> Watch:
    """Watches for so long."""
    watch, end = Watch(), time.perf_counter() + seconds

    async def memory() -> None:
        while time.perf_counter() < end:
            watch.memory = max(watch.memory, allocated(process))
            await asyncio.sleep(0.02)

    async def health() -> None:
        while time.perf_counter() < end:
            started = time.perf_counter()
            status = await ask(port, http("GET", "/healthz"))
            watch.slowest_s = max(watch.slowest_s, time.perf_counter() - started if status == "200" else float("inf"))
            await asyncio.sleep(0.05)

    async def other() -> None:
        photo = encoded(photograph(7, size=(1024, 768)))
        requests = [http("GET", "/items/5/thumbnail"), post("/neighbors?id=5&k=10", b""), post("/classify", form(photo), FORM)]
        while time.perf_counter() < end:
            for request in requests:
                watch.answers[await ask(port, request)] += 1
            await asyncio.sleep(0.05)

    await asyncio.gather(memory(), health(), other())
    return watch


def attacked(attack: Attack, model: Path, index: Path, log: Path, arguments: argparse.Namespace) -> bool:
    """Whether the service held out; prints the row."""
    with service(model, index, log) as (process, port):
        asyncio.run(watched(process, port, 1.0))
        before = allocated(process)
        command = [sys.executable, __file__, "--attacker", attack.__name__, "--port", str(port)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as attacker:
            try:
                asyncio.run(asyncio.sleep(1.5))  # until it has begun
                watch = asyncio.run(watched(process, port, arguments.seconds))
                if attacker.poll() is not None:
                    sys.exit(f"attack_service: {attack.__name__} has ended")
            finally:
                attacker.kill()
    more, bound, served = watch.memory - before, ROWS[attack], watch.answers["200"]
    wrong = [
        *(["memory"] if more > bound else []),
        *(["/healthz"] if watch.slowest_s > arguments.health_ms / 1e3 else []),
        *(["others"] if served < SERVED * watch.answers.total() else []),
    ]
    rest = {status: number for status, number in watch.answers.items() if status != "200"}
    columns = [
        str(attack.__doc__).rstrip("."),
        f"{more / MB:.0f} of {bound / MB:.0f} MB",
        f"{1e3 * watch.slowest_s:.0f} ms",
        f"{served} of {watch.answers.total()}{f', {rest}' if rest else ''}",
        ", ".join(wrong) or "held",
    ]
    print(f"| {' | '.join(columns)} |", flush=True)
    return not wrong


def removed_elsewhere(model: Path, index: Path, log: Path) -> bool:
    """Whether an item removed at one service is gone at another at once; prints the row."""
    with service(model, index, log) as (_, changed), service(model, index, log) as (_, idle):
        found: Counter[str] = Counter()
        for item in range(10, 30):
            removed = asyncio.run(ask(changed, http("DELETE", f"/items/{item}", [(b"X-API-Key", KEY.encode())])))
            found[f"{removed} {asyncio.run(ask(idle, http('GET', f'/items/{item}/thumbnail')))}"] += 1
    good = found == {"204 404": 20}
    print(
        f"| 20 items removed at one service, asked for at another | | | {dict(found)} | {'held' if good else 'others'} |",
        flush=True,
    )
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", nargs="+", choices=[*BY_NAME, removed_elsewhere.__name__], default=[*BY_NAME, removed_elsewhere.__name__]
    )
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--health-ms", type=float, default=250)
    parser.add_argument("--attacker", choices=BY_NAME, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    if arguments.attacker:
        BY_NAME[arguments.attacker](arguments.port)
    print(heading((), f"PyTorch {torch.__version__}"), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, index = make(folder)
        print("\n| attack | memory | slowest /healthz | others answered | |\n|---|---|---|---|---|")
        good = [
            removed_elsewhere(model, index, folder / "log")
            if row == removed_elsewhere.__name__
            else attacked(BY_NAME[row], model, index, folder / "log", arguments)
            for row in arguments.rows
        ]
        log = (folder / "log").read_text()
        if "Traceback" in log:
            sys.exit(f"attack_service: the log has a traceback:\n{log[log.index('Traceback') - 500 :][:3000]}")
        if not all(good):
            sys.exit(f"attack_service: {good.count(False)} of {len(good)} rows failed")


if __name__ == "__main__":
    main()
