"""Too much at once: who may not wait is told so at once, who has gone or waited too long frees a place, and all are answered."""

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message

from service import engine
from service.app import create_app
from service.engine import Engine
from service.settings import ServiceSettings
from tests.conftest import COLOURS, encoded, photograph
from tests.service.asgi import Answer, Sending, exchange, unread
from tests.service.calls import PHOTO, assert_problem, send
from training.checkpoint import Model
from training.images.preprocess import ImageLimits, decode

KEY = {"X-API-Key": "key"}
ALWAYS = ("/healthz", "/readyz", "/metrics", "/info")
PHOTOS = [encoded(photograph(seed, COLOURS["blue"]), "PNG") for seed in range(40, 46)]
Serve = Callable[..., TestClient]


class Network:
    """The network, whose passes wait until `release` is set, and of which one photograph makes every pass fail."""

    def __init__(self) -> None:
        self.release, self.began = threading.Event(), threading.Event()
        self.arrived = threading.Semaphore(0)  # once for each photograph that has come to its queue
        self.batches: list[list[bytes]] = []
        self.poison: bytes | None = None
        self._honest = engine.predict

    def __call__(self, model: Model, asked: list[engine.NetworkQuery]) -> list[engine.Prediction]:
        self.batches.append([bytes(one.pixels_CHW.numpy().tobytes()) for one in asked])
        self.began.set()
        assert self.release.wait(60)
        if self.poison in self.batches[-1]:
            raise RuntimeError("a photograph that no network can take")
        return self._honest(model, asked)

    def await_arrivals(self, number: int) -> None:
        for _ in range(number):
            assert self.arrived.acquire(timeout=60)


class Clock:
    """Deadlines that pass when the test says so."""

    def __init__(self) -> None:
        self.deadlines: list[tuple[float | None, asyncio.Timeout]] = []
        self._timeout = asyncio.timeout

    def __call__(self, delay: float | None) -> asyncio.Timeout:
        deadline = self._timeout(None)
        self.deadlines.append((delay, deadline))
        return deadline

    async def strike(self) -> None:
        """All deadlines that there are pass."""
        await strike([deadline for delay, deadline in self.deadlines if delay is not None])


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    network = Network()
    queued = Engine.classify

    async def noted(self: Engine, *arguments: Any) -> list[engine.Best]:
        network.arrived.release()  # and is in the queue before the event loop does anything else
        return await queued(self, *arguments)

    monkeypatch.setattr(engine, "predict", network)
    monkeypatch.setattr(Engine, "classify", noted)
    yield network
    network.release.set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio, "timeout", clock)
    return clock


@pytest.fixture
def serve(model: Path, index: Path, network: Network) -> Iterator[Serve]:
    """Starts the service with these settings; at the end the network goes on and everything is finished."""
    clients: list[TestClient] = []

    def started(**settings: Any) -> TestClient:
        app = create_app(ServiceSettings(model=model, index=index, api_key="key", **({"max_wait_ms": 0} | settings)))
        client = TestClient(app, raise_server_exceptions=False)
        clients.append(client)
        return client.__enter__()

    yield started
    network.release.set()
    for client in clients:
        client.__exit__()


def body_of(*photos: bytes) -> bytes:
    return json.dumps({"inputs": [{"image": base64.b64encode(photo).decode()} for photo in photos]}).encode()


def begin(client: TestClient, receive: Any, method: str = "POST", path: str = "/classify", **headers: str) -> "Future[Answer]":
    """Starts a request with a JSON body of unstated length."""
    assert client.portal
    sent = [("content-type", "application/json"), ("transfer-encoding", "chunked"), *headers.items()]
    return client.portal.start_task_soon(exchange, client.app, method, path, sent, receive)


def classify(client: TestClient, *photos: bytes) -> "Future[Answer]":
    return begin(client, Sending(body_of(*photos)))


def status(future: "Future[Answer]") -> int:
    return future.result(60).status


def call(client: TestClient, what: Callable[[], Any]) -> Any:
    """Runs it in the service's event loop."""
    assert client.portal
    return client.portal.call(what)


def turned_away(answer: Answer, *words: str) -> None:
    """A 503 that says when to come again."""
    assert answer.status == 503, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    for word in words:
        assert word in json.loads(answer.body)["detail"]


def rejects(client: TestClient) -> dict[str, float]:
    """What was turned away so far, by reason."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    [family] = [family for family in families if family.name == "fc7_rejects"]
    return {
        sample.labels["reason"]: sample.value for sample in family.samples if sample.name == "fc7_rejects_total" and sample.value
    }


def has_room(client: TestClient) -> bool:
    """Whether the network's queue takes one more."""
    try:
        call(client, client.app.state.engine.check_room)  # type: ignore[attr-defined]
    except Exception:
        return False
    return True


def test_beyond_the_most_at_once_all_are_turned_away_unread_but_for_those_who_watch(serve: Serve, network: Network) -> None:
    client = serve(max_concurrent_requests=3)
    inside = [classify(client, photo) for photo in PHOTOS[:3]]
    network.await_arrivals(3)
    for method, path in (("POST", "/classify"), ("POST", "/neighbors"), ("GET", "/"), ("GET", "/items/0"), ("GET", "/nowhere")):
        turned_away(begin(client, unread, method, path).result(60), "max_concurrent_requests=3")
    turned_away(begin(client, unread, "POST", "/items", **KEY).result(60), "max_concurrent_requests=3")
    for path in ALWAYS:
        assert client.get(path).status_code == 200, path
    assert rejects(client) == {"queue_full": 6}
    network.release.set()
    assert [status(future) for future in inside] == [200] * 3
    assert send(client, "/classify", PHOTO).status_code == 200


def test_who_sends_slowly_takes_no_place_and_finds_none_where_all_are_taken(serve: Serve, network: Network) -> None:
    client = serve(max_concurrent_requests=1)
    slow = [Sending(body_of(PHOTO)[:100], whole=False) for _ in range(5)]
    waiting = [begin(client, sending) for sending in slow]
    assert all(sending.waits.wait(60) for sending in slow)
    network.release.set()
    assert status(classify(client, PHOTO)) == 200
    for sending in slow:
        call(client, sending.leave)
    assert [status(future) for future in waiting] == [0] * 5
    assert rejects(client) == {"closed": 5}


def test_who_reads_slowly_takes_no_place(serve: Serve) -> None:
    client = serve(max_concurrent_requests=1)
    reading, read = threading.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def slowly(message: Message) -> None:
            reading.set()
            await read.wait()
            await send(message)

        await client.app(scope, receive, slowly)

    assert client.portal
    slow = client.portal.start_task_soon(exchange, app, "GET", "/items/0/image", (), Sending())
    assert reading.wait(60)
    assert client.get("/items/1").status_code == 200
    call(client, read.set)
    assert slow.result(60).status == 200


def test_a_full_queue_says_so_at_once(serve: Serve, network: Network) -> None:
    client = serve(max_queue=2)
    first = classify(client, PHOTOS[0])
    assert network.began.wait(60)
    waiting = [classify(client, photo) for photo in PHOTOS[1:3]]
    network.await_arrivals(3)
    assert not has_room(client)
    turned_away(classify(client, PHOTOS[3]).result(60), "max_queue=2")
    turned_away(classify(client, *PHOTOS[3:5]).result(60), "max_queue=2")  # of several, not one by one
    assert rejects(client) == {"queue_full": 2}
    network.release.set()
    assert [status(future) for future in (first, *waiting)] == [200] * 3
    assert status(classify(client, *PHOTOS[3:5])) == 200


def test_a_deadline_that_passes_in_the_queue_frees_the_place(serve: Serve, network: Network, clock: Clock) -> None:
    client = serve(max_queue=1, deadline_ms=1234)
    first = classify(client, PHOTOS[0])
    network.await_arrivals(1)
    assert network.began.wait(60)
    second = classify(client, PHOTOS[1])
    network.await_arrivals(1)
    assert not has_room(client)
    assert [delay for delay, _ in clock.deadlines[-2:]] == [1.234] * 2
    call(client, clock.strike)
    for future in (first, second):
        turned_away(future.result(60), "deadline_ms=1234")
    assert has_room(client)
    assert rejects(client) == {"deadline": 2}
    third = classify(client, PHOTOS[2])
    network.release.set()
    assert status(third) == 200
    assert [pixels(photo) for photo in PHOTOS[:3:2]] == [photo for batch in network.batches for photo in batch]


def pixels(photo: bytes) -> bytes:
    return bytes(decode(photo, ImageLimits()).pixels_CHW.numpy().tobytes())


def test_a_body_that_does_not_come_in_time_is_not_waited_for(serve: Serve, clock: Clock) -> None:
    client = serve()
    sending = Sending(body_of(PHOTO)[:100], whole=False)
    future = begin(client, sending)
    assert sending.waits.wait(60)
    call(client, clock.strike)
    turned_away(future.result(60), "deadline_ms=10000")


def test_changes_have_no_deadline_and_reads_have(serve: Serve, clock: Clock) -> None:
    client = serve(deadline_ms=5000)
    clock.deadlines.clear()
    assert client.delete("/items/99", headers=KEY).status_code == 404
    assert client.post("/reload", headers=KEY).status_code == 200
    assert client.get("/items/0").status_code == 200
    assert [delay for delay, _ in clock.deadlines] == [None, None, 5.0]


def test_a_client_that_leaves_frees_its_place(serve: Serve, network: Network) -> None:
    client = serve(max_queue=1, max_concurrent_requests=2)
    senders = [Sending(body_of(photo)) for photo in PHOTOS[:2]]
    first = begin(client, senders[0])
    network.await_arrivals(1)
    assert network.began.wait(60)
    second = begin(client, senders[1])
    network.await_arrivals(1)
    assert not has_room(client)
    turned_away(begin(client, unread).result(60), "max_concurrent_requests=2")
    call(client, senders[1].leave)
    assert status(second) == 0
    assert has_room(client)
    call(client, senders[0].leave)  # though the network is at it
    assert status(first) == 0
    third = classify(client, PHOTOS[2])
    network.await_arrivals(1)
    network.release.set()
    assert status(third) == 200
    assert pixels(PHOTOS[1]) not in [photo for batch in network.batches for photo in batch]
    assert rejects(client) == {"closed": 2, "queue_full": 1}
    assert client.app.state.gate._inside == 0  # type: ignore[attr-defined]


def test_of_a_batch_that_one_photograph_makes_fail_the_others_are_answered(serve: Serve, network: Network) -> None:
    client = serve()
    network.poison = pixels(PHOTOS[2])
    first = classify(client, PHOTOS[0])
    network.await_arrivals(1)
    assert network.began.wait(60)
    batch = [classify(client, photo) for photo in PHOTOS[1:5]]
    network.await_arrivals(4)
    network.release.set()
    assert [status(future) for future in (first, *batch)] == [200, 200, 500, 200, 200]
    assert max(map(len, network.batches)) == 4
    body = json.loads(batch[1].result().body)
    assert "network" not in body["detail"]
    expected = send(client, "/classify", PHOTOS[3]).json()["results"][0]["classes"]
    found = json.loads(batch[2].result().body)["results"][0]["classes"]
    assert [c["class"] for c in found] == [c["class"] for c in expected]
    assert [c["probability"] for c in found] == pytest.approx([c["probability"] for c in expected], rel=1e-5)


def test_bodies_of_all_requests_together_are_bounded_and_the_one_that_stalls_with_most_makes_room(
    serve: Serve, network: Network
) -> None:
    network.release.set()
    client = serve(max_request_bytes=10_000)
    slow = [Sending(b"x" * size, whole=False) for size in (9_000, 9_900, 9_000, 9_000)]
    waiting = [begin(client, sending) for sending in slow]
    assert all(sending.waits.wait(60) for sending in slow)
    small = encoded(photograph(1, size=(16, 16)))
    assert status(classify(client, small)) == 200  # there is room for it
    assert not any(future.done() for future in waiting)
    assert begin(client, Sending(b"x" * 9_000)).result(60).status == 422
    [dropped] = wait(waiting, 60, FIRST_COMPLETED).done
    turned_away(dropped.result(), "nothing came of this for longest")
    for sending in slow:
        call(client, sending.leave)
    assert sorted(status(future) for future in waiting) == [0, 0, 0, 503]
    assert begin(client, Sending(b"x" * 9_000)).result(60).status == 422
    assert rejects(client) == {"queue_full": 1, "closed": 3, "bad_value": 2}


def test_where_all_bodies_are_here_the_one_that_comes_is_turned_away(serve: Serve, network: Network) -> None:
    client = serve(max_request_bytes=200_000, max_concurrent_requests=9)
    photo = encoded(photograph(1, size=(16, 16)))
    large = body_of(photo) + b" " * 190_000
    inside = [begin(client, Sending(large)) for _ in range(4)]
    network.await_arrivals(4)
    turned_away(begin(client, Sending(large)).result(60), "bodies of")
    network.release.set()
    assert [status(future) for future in inside] == [200] * 4
    assert status(begin(client, Sending(large))) == 200


def test_a_body_that_stalls_is_ended_and_one_that_comes_fast_enough_is_not(
    serve: Serve, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.release.set()
    windows: list[asyncio.Timeout] = []
    real = asyncio.timeout_at

    def noted(when: float) -> asyncio.Timeout:
        windows.append(real(when))
        return windows[-1]

    client = serve(stall_s=1000, min_bytes_per_s=1)
    monkeypatch.setattr(asyncio, "timeout_at", noted)
    body = body_of(PHOTO)
    stalling, fast = Sending(body[:999], whole=False), Sending(body[:1000], whole=False)
    futures = [begin(client, sending) for sending in (stalling, fast)]
    assert stalling.waits.wait(60)
    assert fast.waits.wait(60)
    for _ in range(2):
        ends = list(windows)
        call(client, partial(strike, ends))
        if not futures[0].done():
            answer = futures[0].result(60)
            assert answer.status == 408
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["connection"] == "close"
            assert "stall_s=1000" in json.loads(answer.body)["detail"]
            assert not futures[1].done()
    assert futures[1].result(60).status == 408  # nothing has come since
    assert rejects(client) == {"slow": 2}


async def strike(timeouts: list[asyncio.Timeout]) -> None:
    """Those that are running pass."""
    for timeout in timeouts:
        with suppress(RuntimeError):  # of one that is over
            timeout.reschedule(asyncio.get_running_loop().time())


def test_a_body_that_is_too_long_is_refused_when_it_says_so_or_becomes_so(serve: Serve) -> None:
    client = serve(max_request_bytes=10_000)
    for path in ("/classify", "/neighbors", "/items", "/nowhere"):
        refused = begin(client, unread, "POST", path, **KEY, **{"content-length": "10001"}).result(60)
        assert (refused.status, b"max_request_bytes=10000" in refused.body) == (413, True)
        sending = Sending(*[b"x" * 1000] * 100, whole=False)
        refused = begin(client, sending, "POST", path, **KEY).result(60)
        assert (refused.status, b"max_request_bytes=10000" in refused.body) == (413, True)
        assert not sending.waits.is_set()  # the rest was not read
    assert rejects(client) == {"too_large": 8}


def test_a_service_that_is_stopping_lets_nobody_in(serve: Serve) -> None:
    client = serve()
    client.app.state.gate.close()  # type: ignore[attr-defined]
    turned_away(begin(client, unread).result(60), "stopping")
    assert_problem(client.get("/readyz"), 503, "stopping")
    for path in ("/healthz", "/metrics", "/info"):
        assert client.get(path).status_code == 200
    assert rejects(client)["stopping"] >= 1


def test_everything_that_is_turned_away_is_counted_once_under_its_reason(serve: Serve, network: Network) -> None:
    network.release.set()
    client = serve(max_images=3, max_image_bytes=20_000)
    cases: list[tuple[Callable[[], Any], str | None, int]] = [
        (lambda: send(client, "/classify", PHOTO), None, 0),
        (lambda: send(client, "/classify", b"x"), "not_an_image", 1),
        (lambda: send(client, "/classify", b"x", PHOTO, b"y"), "not_an_image", 2),
        (lambda: send(client, "/classify", PHOTO[:300]), "bad_image", 1),
        (lambda: send(client, "/neighbors", PHOTO, PHOTO[:300]), "bad_image", 1),
        (lambda: send(client, "/classify", bytes(20_001)), "too_large", 1),
        (lambda: send(client, "/classify", PHOTO, bytes(20_001)), "too_large", 1),
        (lambda: send(client, "/classify", *[PHOTO] * 4), "bad_value", 1),
        (lambda: send(client, "/classify?top=0", PHOTO), "bad_value", 1),
        (lambda: client.post("/neighbors?k=5000&id=1"), "bad_value", 1),
        (lambda: client.post("/neighbors", json={"inputs": [{"id": "x"}]}), "bad_value", 1),
        (lambda: client.post("/neighbors", json={"inputs": [{"id": 1}, {"image": "*"}]}), "bad_value", 1),
        (lambda: client.post("/classify", content=b"x"), "not_an_image", 1),
        (lambda: client.post("/items", headers=KEY, files=[("image", ("a", b"x"))]), "not_an_image", 1),
        (lambda: client.post("/items", headers=KEY, files=[("image", ("a", b"x"))] * 2), "not_an_image", 2),
        (lambda: client.delete("/items/0"), "key", 1),
        (lambda: client.get("/items/99"), None, 0),
        (lambda: client.get("/nowhere"), None, 0),
    ]
    before = rejects(client)
    for number, (act, reason, times) in enumerate(cases):
        act()
        after = rejects(client)
        more = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
        assert more == ({reason: times} if reason else {}), number
        before = after
