"""Attacks on the whole service over sockets, in short: others are served meanwhile. The long ones are `make attack`."""

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from service.app import create_app
from service.connections import Connection, Connections
from service.settings import ServiceSettings
from tests.conftest import encoded, photograph
from tests.service.calls import PHOTO
from tests.service.test_connections import Client

PATIENCE_S = 60
Serve = Callable[..., "Service"]


class Service:
    """The service on a port of its own, and those who attack it."""

    def __init__(self, settings: ServiceSettings, stack: ExitStack) -> None:
        app = create_app(settings)
        http: Any = partial(Connection, Connections(settings, settings.max_connections, app.state.metrics))
        self._server = uvicorn.Server(uvicorn.Config(app, http=http, log_config=None, timeout_graceful_shutdown=1))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        self._port, self._stack = listener.getsockname()[1], stack
        thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        thread.start()
        stack.callback(thread.join, PATIENCE_S)
        stack.callback(setattr, self._server, "should_exit", True)

    def attack(self, number: int, sent: bytes) -> None:
        """So many connections that send this and read nothing."""
        for _ in range(number):
            client = Client(self._port)
            self._stack.callback(client.close)
            client.send(sent)

    def first_line(self, sent: bytes) -> bytes:
        """How the answer to this begins."""
        with socket.create_connection(("127.0.0.1", self._port), PATIENCE_S) as client, client.makefile("rb") as answer:
            client.sendall(sent)
            return answer.readline()

    def serves_others(self) -> None:
        """Twenty requests of others are answered."""
        for number in range(5):
            for method, path, options in (
                ("GET", "/healthz", {}),
                ("GET", f"/items/{number}/thumbnail", {}),
                ("POST", f"/neighbors?id={number}", {}),
                ("POST", "/classify", {"files": {"image": PHOTO}}),
            ):
                url = f"http://127.0.0.1:{self._port}{path}"
                response = httpx.request(method, url, timeout=PATIENCE_S, trust_env=False, **options)  # type: ignore[arg-type]
                assert response.status_code == 200, (path, response.text)


@pytest.fixture
def serve(model: Path, index: Path, tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def started(**settings: Any) -> Service:
            folder = Path(shutil.copytree(index, tmp_path / "index", symlinks=True))
            return Service(ServiceSettings(model=model, index=folder, **settings), stack)

        yield started


def request(method: str, path: str, body: bytes = b"", length: int | None = None) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    return head.encode() + b"%d\r\n\r\n" % (len(body) if length is None else length) + body


ATTACKS = {
    "answers that are not read": (40, request("POST", "/neighbors?k=24", b'{"inputs": [%s]}' % b",".join([b'{"id": 1}'] * 32))),
    "silence": (40, b""),
    "half a head": (40, b"GET / HTTP/1.1\r\nHost: "),
    "a head that does not end": (10, b"GET / HTTP/1.1\r\nA: " + bytes([97]) * 2**20),
    "requests far ahead of their answers": (10, request("GET", "/items/0/image") * 1000),
    "uploads that stall": (9, request("POST", "/classify", b" " * 99_999, length=100_000)),
    "wrong JSON": (10, request("POST", "/neighbors", b'{"inputs": [%s0]}' % (b"0," * 40_000))),
}


def test_attackers_are_not_turned_away_for_their_head(serve: Serve) -> None:
    """An attack that is refused at once attacks nothing."""
    assert serve().first_line(request("GET", "/healthz")) == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(("number", "sent"), ATTACKS.values(), ids=ATTACKS)
def test_others_are_served_during(serve: Serve, number: int, sent: bytes) -> None:
    service = serve(max_connections=30, max_concurrent_requests=8, max_request_bytes=100_000)
    service.attack(number, sent)
    service.serves_others()


def test_others_are_served_while_large_pictures_are_decoded(serve: Serve) -> None:
    service = serve(max_image_pixels=1_000_000)
    large = encoded(photograph(1, size=(1000, 1000)), "WEBP")
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + large + b"\r\n"
    body = part * 32 + b"--b--\r\n"
    sent = request("POST", "/classify", body).replace(b"application/json", b"multipart/form-data; boundary=b")
    service.attack(4, sent)
    service.serves_others()
