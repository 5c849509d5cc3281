"""How requests and the process end: told to stop, past the deadline, and with a client that has gone."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import service.engine
from service.app import create_app
from service.metrics import Metrics, Reason
from service.settings import ServiceSettings
from tests.service.calls import PHOTO, assert_problem
from tests.service.test_swaps import listening
from training.checkpoint import Model
from training.images.preprocess import decode

PATIENCE_S = 60  # far below the times set below that must not be waited for
NEVER_S = 3600
REPOSITORY = Path(__file__).parents[2]
FORM = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n' + PHOTO + b"\r\n--x--\r\n"


class Slow:
    """A POST /classify over a socket of its own, whose body is sent in two parts."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)

    def begin(self) -> None:
        """Sends the head and the first half of the body; returns when the service is reading the body."""
        head = "Host: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nExpect: 100-continue\r\n"
        head += f"Content-Length: {len(FORM)}"
        self._socket.sendall(f"POST /classify HTTP/1.1\r\n{head}\r\n\r\n".encode())
        assert self._socket.recv(1000).startswith(b"HTTP/1.1 100 ")
        self._socket.sendall(FORM[: len(FORM) // 2])

    def finish(self) -> None:
        """Sends the other half."""
        self._socket.sendall(FORM[len(FORM) // 2 :])

    def answer(self) -> httpx.Response:
        """What comes back."""
        response = http.client.HTTPResponse(self._socket)
        response.begin()
        return httpx.Response(response.status, headers=dict(response.headers), content=response.read())

    def close(self) -> None:
        """Leaves."""
        self._socket.close()


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[str]
    port: int
    log: Path

    def ask(self, path: str, **options: Any) -> httpx.Response:
        """A request on a new connection; a POST where it has a body."""
        method = "POST" if options else "GET"
        return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_S, trust_env=False, **options)

    def stop(self) -> None:
        """SIGTERM; returns when the service has noticed."""
        self.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + PATIENCE_S
        while self.ask("/readyz").status_code == 200:
            assert time.monotonic() < end

    def exit_status(self) -> int:
        return self.process.wait(timeout=PATIENCE_S)


Starts = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def start(model: Path, index: Path, tmp_path: Path) -> Starts:
    """A function that starts the service as a process of its own, with the settings that it is given."""

    @contextmanager
    def started(**settings: object) -> Iterator[Running]:
        given = {f"FC7_{name.upper()}": str(value) for name, value in settings.items()}
        environment = os.environ | {"FC7_MODEL": str(model), "FC7_INDEX": str(index)} | given
        log = tmp_path / "log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "service", "--port", "0"],
                cwd=REPOSITORY,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        try:
            assert process.stdout
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            assert found, line + log.read_text()
            yield Running(process, int(found[1]), log)
        finally:
            process.kill()
            process.communicate()

    return started


def assert_stopped(slow: Slow) -> None:
    """It was told that it was not done in time."""
    answer = slow.answer()
    assert_problem(answer, 503, "the service has stopped")
    assert int(answer.headers["retry-after"]) > 0
    slow.close()


@pytest.mark.slow
def test_what_has_begun_is_answered_and_what_comes_is_sent_away_until_the_process_ends(start: Starts) -> None:
    with start(stop_s=NEVER_S, deadline_ms=1000 * NEVER_S) as running:
        expected = running.ask("/classify", files={"image": ("a.jpg", PHOTO)})
        slow = Slow(running.port)
        slow.begin()
        running.stop()
        for response in (
            running.ask("/readyz"),
            running.ask("/neighbors?id=0", content=b""),
            running.ask("/classify", files={"image": PHOTO}),
        ):
            assert_problem(response, 503, "the service is stopping")
            assert int(response.headers["retry-after"]) > 0
        assert running.ask("/healthz").status_code == 200
        assert 'fc7_rejects_total{reason="stopping"} ' in running.ask("/metrics").text
        slow.finish()
        answer = slow.answer()
        assert (answer.status_code, answer.json()) == (200, expected.json())
        assert running.exit_status() == 0
        slow.close()
        with pytest.raises(httpx.ConnectError):
            running.ask("/healthz")
        assert "Traceback" not in running.log.read_text()


@pytest.mark.slow
def test_a_request_that_does_not_end_is_left_when_its_time_is_up(start: Starts) -> None:
    with start(stop_s=1, deadline_ms=1000 * NEVER_S) as running:
        slow = Slow(running.port)
        slow.begin()
        running.process.send_signal(signal.SIGTERM)
        assert_stopped(slow)
        assert running.exit_status() == 0
        assert "Traceback" not in running.log.read_text()


@pytest.mark.slow
def test_the_second_signal_ends_the_process_at_once(start: Starts) -> None:
    with start(stop_s=NEVER_S, deadline_ms=1000 * NEVER_S) as running:
        slow = Slow(running.port)
        slow.begin()
        running.stop()
        running.process.send_signal(signal.SIGTERM)
        assert_stopped(slow)
        assert running.exit_status() == 0
        assert "Traceback" not in running.log.read_text()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_a_body_that_never_comes_is_answered_by_the_deadline(model: Path, index: Path) -> None:
    settings = ServiceSettings(model=model, index=index, deadline_ms=200)
    with listening(create_app(settings)) as address, httpx.Client(base_url=address, timeout=PATIENCE_S) as client:
        slow = Slow(port_of(address))
        slow.begin()
        answer = slow.answer()
        assert_problem(answer, 503, "deadline_ms=200")
        assert int(answer.headers["retry-after"]) > 0
        assert 'fc7_rejects_total{reason="deadline"} 1.0' in client.get("/metrics").text
        slow.close()


def test_a_client_that_goes_while_its_request_waits_frees_its_place(
    model: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, release, gone = threading.Event(), threading.Event(), threading.Event()
    inside = threading.Semaphore(0)
    answers, rejected = Model.answers, Metrics.rejected

    def waits(self: Model, photographs: Any, views: Any) -> Any:
        began.set()
        assert release.wait(PATIENCE_S)
        return answers(self, photographs, views)

    def noted(self: Metrics, reason: Reason) -> None:
        rejected(self, reason)
        if reason == "closed":
            gone.set()

    def decoded(data: bytes, limits: Any) -> Any:
        inside.release()
        return decode(data, limits)

    monkeypatch.setattr(Model, "answers", waits)
    monkeypatch.setattr(Metrics, "rejected", noted)
    monkeypatch.setattr(service.engine, "decode", decoded)
    settings = ServiceSettings(model=model, index=index, deadline_ms=1000 * NEVER_S, max_concurrent_requests=1)
    with (
        listening(create_app(settings)) as address,
        httpx.Client(base_url=address, timeout=PATIENCE_S) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        leaving = Slow(port_of(address))
        leaving.begin()
        leaving.finish()
        assert inside.acquire(timeout=PATIENCE_S)
        assert began.wait(PATIENCE_S)
        assert_problem(client.post("/classify", files={"image": PHOTO}), 503, "max_concurrent_requests=1")
        leaving.close()
        assert gone.wait(PATIENCE_S)
        staying = pool.submit(client.post, "/classify", files={"image": PHOTO})
        assert inside.acquire(timeout=PATIENCE_S)  # it has its place while the work for the other still runs
        release.set()
        assert staying.result(PATIENCE_S).status_code == 200
        assert 'fc7_rejects_total{reason="closed"} 1.0' in client.get("/metrics").text
