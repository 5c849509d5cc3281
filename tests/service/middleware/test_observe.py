"""What a request leaves behind: a header, a line, counts; whatever happens to it."""

import asyncio
import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from service import logs
from service.metrics import CONTENT_TYPE, Metrics
from service.middleware.limits import AnswerHead
from service.middleware.observe import Observe
from tests.service.calls import assert_problem

HIDDEN = "s3cret"


def application(metrics: Metrics) -> FastAPI:
    """A small application with an endpoint for everything that can happen to a request."""
    app = FastAPI()

    @app.get("/items/{id}")
    async def item(id: int) -> dict[str, int]:
        logging.getLogger("fc7.inside").info("looking for %d", id)
        return {"id": id}

    @app.post("/fails")
    async def fails() -> None:
        raise RuntimeError("something odd")

    @app.get("/breaks")
    async def breaks() -> StreamingResponse:
        async def half() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("the other half")

        return StreamingResponse(half())

    @app.get("/in-flight")
    def in_flight() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/healthz")
    @app.get("/readyz")
    @app.get("/metrics")
    async def healthz(status: int = 200) -> Response:
        return Response(status_code=status)

    app.add_middleware(AnswerHead)
    app.add_middleware(Observe, metrics=metrics)
    return app


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def client(metrics: Metrics) -> Iterator[TestClient]:
    with TestClient(application(metrics), client=("198.51.100.7", 50000)) as client:
        yield client


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "fc7")
    return caplog


def requests_counted(text: bytes) -> dict[tuple[str, str, str], float]:
    return {
        (sample.labels["method"], sample.labels["path"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == "fc7_requests_total"
    }


def in_flight(text: bytes) -> float:
    [family] = [f for f in text_string_to_metric_families(text.decode()) if f.name == "fc7_requests_in_flight"]
    return family.samples[0].value


def access_lines(log: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in log.records if record.name == "fc7.access"]


@pytest.mark.parametrize("own", ["a", "A-b_c.9", "x" * 64])
def test_a_well_formed_id_of_the_client_comes_back(client: TestClient, own: str) -> None:
    for path in ("/items/1", "/items/x", "/nowhere"):
        assert client.get(path, headers={"X-Request-ID": own}).headers["x-request-id"] == own


@pytest.mark.parametrize("own", [None, "", "a b", "x" * 65, "a\tb", "é", "a/b"])
def test_any_other_request_gets_a_new_id(client: TestClient, own: str | None) -> None:
    headers = {} if own is None else {"X-Request-ID": own.encode("latin-1")}
    first, second = (client.get("/items/1", headers=headers).headers.get_list("x-request-id") for _ in range(2))
    assert [len(first), len(second)] == [1, 1]
    assert first != second
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in first + second)


def test_an_answer_leaves_one_line_and_one_count(client: TestClient, metrics: Metrics, log: pytest.LogCaptureFixture) -> None:
    body = client.get("/items/17").content
    client.get("/items/18")
    client.get("/items/x")
    client.delete("/items/1")
    lines = access_lines(log)
    assert [line.getMessage() for line in lines] == [
        "GET /items/{id} 200",
        "GET /items/{id} 200",
        "GET /items/{id} 422",
        "DELETE /items/{id} 405",
    ]
    first = vars(lines[0])
    assert (first["method"], first["path"], first["status"], first["bytes"]) == ("GET", "/items/{id}", 200, len(body))
    assert (first["levelname"], first["client"]) == ("INFO", "198.51.100.7")
    assert first["ms"] >= 0
    assert requests_counted(metrics.text()) == {
        ("GET", "/items/{id}", "200"): 2,
        ("GET", "/items/{id}", "422"): 1,
        ("DELETE", "/items/{id}", "405"): 1,
    }


def test_what_clients_make_up_gets_no_labels(client: TestClient, metrics: Metrics, log: pytest.LogCaptureFixture) -> None:
    for i in range(5):
        client.get(f"/made/up/{i}")
        client.request(f"BREW{i}", "/" + "x" * 300)
    assert requests_counted(metrics.text()) == {("GET", "unknown", "404"): 5, ("other", "unknown", "404"): 5}
    assert {len(vars(line)["path"]) for line in access_lines(log)} == {len("/made/up/0"), 200}


def test_head_is_logged_and_counted_as_the_route_that_it_asks(
    client: TestClient, metrics: Metrics, log: pytest.LogCaptureFixture
) -> None:
    answer = client.head("/items/3")
    assert (answer.status_code, answer.content) == (200, b"")
    assert requests_counted(metrics.text()) == {("HEAD", "/items/{id}", "200"): 1}
    assert vars(access_lines(log)[0])["bytes"] == 0


def test_an_unexpected_error_is_a_problem_and_its_traceback_is_logged_once(
    client: TestClient, metrics: Metrics, log: pytest.LogCaptureFixture
) -> None:
    answer = client.post("/fails", headers={"X-Request-ID": "mine"})
    body = assert_problem(answer, 500, "its log says more")
    assert "odd" not in str(body)
    assert answer.headers["x-request-id"] == "mine"
    [failed] = [record for record in log.records if record.exc_info]
    assert (failed.levelname, failed.getMessage()) == ("ERROR", "POST /fails failed")
    assert "something odd" in str(failed.exc_info)
    assert access_lines(log)[0].getMessage() == "POST /fails 500"
    assert requests_counted(metrics.text()) == {("POST", "/fails", "500"): 1}
    assert in_flight(metrics.text()) == 0


def test_an_error_after_the_answer_began_is_left_to_the_server(
    client: TestClient, metrics: Metrics, log: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeError, match="the other half"):
        client.get("/breaks")
    line = access_lines(log)[0]
    assert (line.getMessage(), vars(line)["bytes"]) == ("GET /breaks 200", 4)
    assert in_flight(metrics.text()) == 0


def test_a_request_is_in_flight_until_it_is_answered(client: TestClient, metrics: Metrics) -> None:
    answer = client.get("/in-flight")
    assert answer.headers["content-type"] == CONTENT_TYPE
    assert in_flight(answer.content) == 1
    assert in_flight(metrics.text()) == 0


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_health_is_logged_for_the_curious_only_but_that_it_fails_for_all(
    client: TestClient, metrics: Metrics, log: pytest.LogCaptureFixture, path: str
) -> None:
    for status in (200, 503, 500, 404):
        client.get(path, params={"status": status})
    client.head(path)
    assert [line.levelname for line in access_lines(log)] == ["DEBUG", "INFO", "INFO", "INFO", "DEBUG"]
    assert requests_counted(metrics.text())["GET", path, "200"] == 1


def scope_of(method: str, path: str) -> Scope:
    return {"type": "http", "method": method, "path": path, "headers": [], "client": None}


async def _nothing() -> Message:
    raise AssertionError("nobody reads here")


async def _lost(message: Message) -> None:
    raise AssertionError(f"nobody is there for {message}")


def test_a_cancelled_request_is_cancelled_still_and_counted(metrics: Metrics, log: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        begun = asyncio.Event()

        async def waits(_scope: Scope, _receive: Receive, _send: Send) -> None:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(Observe(waits, metrics)(scope_of("GET", "/a\nb"), _nothing, _lost))
        await begun.wait()
        assert in_flight(metrics.text()) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert requests_counted(metrics.text()) == {("GET", "unknown", "499"): 1}
    assert in_flight(metrics.text()) == 0
    assert (vars(access_lines(log)[0])["status"], vars(access_lines(log)[0])["client"]) == (499, None)


def test_a_client_that_left_while_sending_is_no_error_of_ours(metrics: Metrics, log: pytest.LogCaptureFixture) -> None:
    async def reads(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ClientDisconnect

    asyncio.run(Observe(reads, metrics)(scope_of("POST", "/items"), _nothing, _lost))
    assert requests_counted(metrics.text()) == {("POST", "unknown", "499"): 1}
    assert [record.levelname for record in log.records] == ["INFO"]


def test_other_than_http_passes_untouched(metrics: Metrics) -> None:
    passed = []

    async def inside(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append((scope, receive, send))

    scope: Scope = {"type": "lifespan"}
    asyncio.run(Observe(inside, metrics)(scope, _nothing, _lost))
    assert passed == [(scope, _nothing, _lost)]
    assert requests_counted(metrics.text()) == {}


SERVER = """
import socket, sys, uvicorn
from service import logs
logs.configure()
from service.metrics import Metrics
from tests.service.middleware.test_observe import application
config = uvicorn.Config(application(Metrics()), log_config=None, access_log=False)
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""


@pytest.mark.slow
def test_behind_a_real_server_every_line_is_json_and_no_secret_is_in_any() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", SERVER, str(listener.fileno())]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, pass_fds=[listener.fileno()], text=True)
        headers = {"Authorization": f"Bearer {HIDDEN}", "X-API-Key": HIDDEN, "X-Request-ID": "mine"}
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", headers=headers, timeout=60) as client:
                client.get(f"/items/5?key={HIDDEN}")
                client.get(f"/a%0A%7B%22b%22?key={HIDDEN}")
                client.post(f"/fails?key={HIDDEN}", content=HIDDEN)
                with pytest.raises(httpx.RemoteProtocolError):
                    client.get(f"/breaks?key={HIDDEN}")
        finally:
            server.terminate()
            _, err = server.communicate(timeout=60)
    assert HIDDEN not in err
    lines = [json.loads(line) for line in err.splitlines()]
    ours = [line for line in lines if line["logger"].startswith("fc7.")]
    assert [line["message"] for line in ours] == [
        "looking for 5",
        "GET /items/{id} 200",
        'GET /a\n{"b" 404',
        "POST /fails failed",
        "POST /fails 500",
        "GET /breaks 200",
    ]
    assert {line["request_id"] for line in ours} == {"mine"}
    broken = [line for line in lines if "exception" in line and line["logger"] == "uvicorn.error"]
    assert [line["request_id"] for line in broken] == ["mine"]
    assert "the other half" in broken[0]["exception"]
    assert logs.request_id.get() is None
