"""Pairs of a model and an index, published by one rename while the service runs: each answer is wholly of one of them."""

import asyncio
import gc
import logging
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response

import service.engine
from indexer import build
from indexer.opening import open_store
from service import pair
from service.app import create_app
from service.batching import Batcher
from service.pair import CurrentPair
from service.settings import ServiceSettings
from tests.conftest import SmallConfig, encoded, photograph
from tests.service.calls import PHOTO, assert_problem, send
from training import checkpoint
from training.checkpoint import Model
from training.errors import TryAgain
from training.files import exclusively
from training.images.preprocess import ImageLimits, Photograph, decode
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise

KEY = {"X-API-Key": "key"}
NUMBERS = (1, 2, 3, 4)
CLASSES = {1: 3, 2: 5, 3: 2, 4: 7}
SWAPS = 100


@dataclass(frozen=True)
class Expected:
    """What a pair answers about PHOTO, worked out from its files without the service."""

    number: int
    fingerprint: str
    chances: dict[str, float]
    neighbours: list[tuple[str, float]]  # (path, Euclidean distance), nearest first
    labels: set[str]  # which no other pair's index has

    def check_classes(self, body: dict[str, Any]) -> None:
        [result] = body["results"]
        given = {found["class"]: found["probability"] for found in result["classes"]}
        assert given == pytest.approx(self.chances, abs=1e-4)

    def check_neighbours(self, body: dict[str, Any]) -> None:
        [result] = body["results"]
        assert body["index_version"] == self.number
        assert {found["label"] for found in result["neighbors"]} <= self.labels
        assert [found["path"] for found in result["neighbors"]] == [path for path, _ in self.neighbours]
        distances = [found["distance"] for found in result["neighbors"]]
        assert distances == pytest.approx([distance for _, distance in self.neighbours], abs=1e-3)


@dataclass(frozen=True)
class Pairs:
    versions: Path
    expected: dict[str, Expected]  # by fingerprint

    def __getitem__(self, number: int) -> Expected:
        [found] = [one for one in self.expected.values() if one.number == number]
        return found

    def check(self, body: dict[str, Any]) -> Expected:
        """The answer is that of the pair whose fingerprint it gives."""
        one = self.expected[body["model"]]
        if "index_version" in body:
            one.check_neighbours(body)
        else:
            one.check_classes(body)
        return one


def make_pair(folder: Path, number: int) -> Expected:
    """A pair of which nothing is in another: weights, classes, their number, labels, and the index's version."""
    net = AlexNet(SmallConfig(classes=CLASSES[number]))
    initialise(net, "fan-in", seed=number)
    classes = [f"class {i} of {number}" for i in range(CLASSES[number])]
    checkpoint.save(folder / "model", net, classes, torch.full((3, 256, 256), 100.0 + number))
    labels = {f"label {i} of {number}" for i in range(2)}
    for i, label in enumerate(sorted(labels)):
        (folder / "images" / label).mkdir(parents=True)
        for j in range(4):
            (folder / "images" / label / f"{j}.jpg").write_bytes(encoded(photograph(100 * number + 10 * i + j)))
    build.main(build.BuildSettings(model=folder / "model", data=folder / "images", index=folder / "index", bits=0))
    for item in range(number - 1):
        with exclusively(folder / "index"):
            open_store(folder / "index").remove([item])
    model, store = checkpoint.load(folder / "model"), open_store(folder / "index")
    pixels_BCHW = decode(PHOTO, ImageLimits()).pixels_CHW[None]
    chances = dict(zip(classes, model.probabilities(pixels_BCHW)[0].tolist(), strict=True))
    ids = store.ids().tolist()
    distances = np.linalg.norm(store.vectors(ids) - model.fc7(pixels_BCHW).numpy(), axis=1)
    nearest = sorted(zip((item.path for item in store.items(ids)), distances.tolist(), strict=True), key=lambda pair: pair[1])
    store.close()
    return Expected(number, model.fingerprint, chances, nearest, labels)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    versions = tmp_path_factory.mktemp("pairs") / "versions"
    expected = [make_pair(versions / str(number), number) for number in NUMBERS]
    return Pairs(versions, {one.fingerprint: one for one in expected})


@pytest.fixture
def root(made: Pairs, tmp_path: Path) -> Path:
    """A folder of its own with all pairs, the first of them current."""
    shutil.copytree(made.versions, tmp_path / "versions", symlinks=True)
    publish(tmp_path, 1)
    return tmp_path


def publish(root: Path, name: int | str) -> None:
    link = root / ".current"
    link.symlink_to(f"versions/{name}")
    link.replace(root / "current")


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def settings_for(root: Path, **others: Any) -> ServiceSettings:
    return ServiceSettings(model=root / "current/model", index=root / "current/index", api_key="key", **others)


def serving(app: FastAPI) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)


def ask(client: TestClient) -> list[dict[str, Any]]:
    answers = [send(client, path, PHOTO) for path in ("/classify?top=1000", "/neighbors?k=100")]
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    return [answer.json() for answer in answers]


def assert_all_of(made: Pairs, number: int, client: TestClient) -> None:
    """Classes, neighbours and /info are of this pair."""
    assert [made.check(body).number for body in ask(client)] == [number, number]
    info = client.get("/info").json()
    assert (info["model"]["fingerprint"], info["model"]["classes"]) == (made[number].fingerprint, list(made[number].chances))
    assert (info["index"]["version"], info["index"]["items"]) == (number, len(made[number].neighbours))


def reload(client: TestClient) -> dict[str, Any]:
    response = client.post("/reload", headers=KEY)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


@contextmanager
def held(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Lets no request that sends `data` past decoding: an event that one has come there, and one that lets it go on."""
    began, release = threading.Event(), threading.Event()

    def waits(sent: bytes, limits: ImageLimits) -> Photograph:
        if sent == data:
            began.set()
            assert release.wait(60)
        return decode(sent, limits)

    with monkeypatch.context() as patch:
        patch.setattr(service.engine, "decode", waits)
        try:
            yield began, release
        finally:
            release.set()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many models were in memory each time that another began to be loaded."""
    models: list[weakref.ref[Model]] = []
    alive: list[int] = []

    def load(folder: Path) -> Model:
        alive.append(sum(model() is not None for model in models))
        model = original(folder)
        models.append(weakref.ref(model))
        return model

    original = checkpoint.load
    monkeypatch.setattr(checkpoint, "load", load)
    return alive


def test_reload_goes_over_to_the_published_pair_and_says_what_it_is(made: Pairs, root: Path) -> None:
    with serving(create_app(settings_for(root))) as client:
        assert_all_of(made, 1, client)
        assert reload(client) == {"model": made[1].fingerprint, "index_version": 1, "changed": False}
        for number in (2, 3, 1):
            publish(root, number)
            assert reload(client) == {"model": made[number].fingerprint, "index_version": number, "changed": True}
            assert reload(client)["changed"] is False
            assert_all_of(made, number, client)
        assert 'fc7_swaps_total{outcome="swapped"} 3.0' in client.get("/metrics").text
        assert_problem(client.post("/reload"), 401, "FC7_API_KEY")


def test_a_published_pair_is_taken_up_without_being_asked_for(made: Pairs, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair, "LOOK_S", 0.0)
    with serving(create_app(settings_for(root))) as client:
        for number in (2, 3, 4, 1):
            publish(root, number)
            assert client.get("/readyz").status_code == 200
            client.app.state.engine.current.following.result(timeout=60)  # type: ignore[attr-defined]
            assert_all_of(made, number, client)


def test_a_model_and_an_index_of_two_pairs_are_refused_by_name_and_the_old_pair_answers(made: Pairs, root: Path) -> None:
    shutil.copytree(root / "versions/2/model", root / "versions/mixed/model")
    shutil.copytree(root / "versions/1/index", root / "versions/mixed/index", symlinks=True)
    with serving(create_app(settings_for(root))) as client:
        publish(root, "mixed")
        for _ in range(2):
            response = client.post("/reload", headers=KEY)
            assert_problem(response, 409, made[1].fingerprint[:12], made[2].fingerprint[:12], "FC7_INDEX")
            assert_all_of(made, 1, client)
        assert client.get("/readyz").status_code == 200
        assert 'fc7_swaps_total{outcome="refused"} 2.0' in client.get("/metrics").text
        publish(root, 1)
        assert reload(client)["changed"] is False
        publish(root, 2)
        assert reload(client)["changed"] is True
        assert_all_of(made, 2, client)


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.DESCRIPTION])
def test_a_damaged_model_is_refused_by_name_and_the_old_pair_answers(made: Pairs, root: Path, name: str) -> None:
    undamaged = (root / "versions/2/model" / name).read_bytes()
    flip_a_byte(root / "versions/2/model" / name)
    with serving(create_app(settings_for(root))) as client:
        publish(root, 2)
        assert_problem(client.post("/reload", headers=KEY), 409, f"FC7_MODEL/{name}")
        assert_all_of(made, 1, client)
        (root / "versions/2/model" / name).write_bytes(undamaged)
        assert reload(client)["changed"] is True
        assert_all_of(made, 2, client)


def test_overwriting_the_files_of_the_pair_that_answers_changes_no_answer(made: Pairs, root: Path) -> None:
    """What answers has left the model's files behind: also where they are cut short in place, as `cp` does."""
    with serving(create_app(settings_for(root))) as client:
        (root / "versions/1/model" / checkpoint.WEIGHTS).write_bytes(b"")
        assert_all_of(made, 1, client)


class _Server(uvicorn.Server):
    """Runs in a thread; says when it listens."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none"))
        self.listens = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The address of a server on loopback."""
    server = _Server(app)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.listens.wait(60)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_swaps_under_load_fail_no_request_and_keep_no_more_than_two_models(made: Pairs, root: Path, loads: list[int]) -> None:
    stop = threading.Event()

    def load(address: str, path: str) -> list[int]:
        numbers = []
        with httpx.Client(base_url=address, timeout=60) as client:
            while not stop.is_set():
                response = client.post(path, files={"image": PHOTO})
                assert response.status_code == 200, response.text
                numbers.append(made.check(response.json()).number)
        return numbers

    paths = ["/classify?top=1000", "/neighbors?k=100"] * 2
    with listening(create_app(settings_for(root))) as address, ThreadPoolExecutor(len(paths)) as pool:
        clients = [pool.submit(load, address, path) for path in paths]
        try:
            with httpx.Client(base_url=address, headers=KEY, timeout=60) as client:
                for swap in range(SWAPS):
                    number = NUMBERS[(swap + 1) % len(NUMBERS)]
                    publish(root, number)
                    response = client.post("/reload")
                    assert response.status_code == 200, response.text
                    assert response.json()["model"] == made[number].fingerprint
                    assert response.json()["index_version"] == number
        finally:
            stop.set()
        answered = [client.result() for client in clients]
    assert len(loads) == SWAPS + 1
    assert max(loads) == 1
    for numbers in answered:
        assert set(numbers) == set(NUMBERS)


def test_a_third_model_is_not_loaded_before_the_first_is_let_go(
    made: Pairs, root: Path, loads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = threading.Event()
    await_release = CurrentPair._await_release

    def noted(self: CurrentPair) -> None:
        if self._releases:
            waits.set()
        await_release(self)

    monkeypatch.setattr(CurrentPair, "_await_release", noted)
    app = create_app(settings_for(root, deadline_ms=60_000))
    with serving(app) as client, ThreadPoolExecutor(2) as pool, held(PHOTO, monkeypatch) as (began, release):
        old = pool.submit(send, client, "/classify?top=1000", PHOTO)
        assert began.wait(60)
        publish(root, 2)
        assert reload(client)["changed"] is True
        publish(root, 3)
        swap = pool.submit(reload, client)
        assert waits.wait(60)
        assert (len(loads), swap.done()) == (2, False)
        release.set()
        assert swap.result(60)["model"] == made[3].fingerprint
        assert made.check(old.result(60).json()).number == 1
        assert loads == [0, 1, 1]
        assert_all_of(made, 3, client)


def test_a_swap_that_waits_in_vain_says_why_and_is_tried_again(
    made: Pairs, root: Path, loads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "LOOK_S", 0.0)
    with serving(create_app(settings_for(root))) as client:
        engine = client.app.state.engine  # type: ignore[attr-defined]
        engine.current._patience_s = 0.0
        held = engine.pair  # as a request would that does not end
        publish(root, 2)
        reload(client)
        publish(root, 3)
        response = client.post("/reload", headers=KEY)
        assert_problem(response, 503, "a request still holds the model before the one that answers")
        assert int(response.headers["retry-after"]) > 0
        assert 'fc7_rejects_total{reason="swapping"} 1.0' in client.get("/metrics").text
        assert client.post("/neighbors?id=7").json()["model"] == made[2].fingerprint
        assert held.store.version_number == 1
        del held
        for _ in range(3):  # one may be waiting already; whoever looks then has the swap tried again
            client.get("/readyz")
            engine.current.following.result(timeout=60)
        assert_all_of(made, 3, client)
        assert max(loads) == 1


def test_what_was_sent_before_two_swaps_is_added_after_them(
    made: Pairs, root: Path, loads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change waits for nothing that it holds itself."""
    other = encoded(photograph(4711))
    app = create_app(settings_for(root, deadline_ms=5000))
    with serving(app) as client, ThreadPoolExecutor(1) as pool, held(other, monkeypatch) as (began, release):
        change = pool.submit(client.post, "/items", files={"image": other}, headers=KEY)
        assert began.wait(60)
        for number in (2, 3):
            publish(root, number)
            assert reload(client)["changed"] is True
        publish(root, 4)
        release.set()
        response = change.result(60)
        assert response.status_code == 200, response.text
        [item] = [result["id"] for result in response.json()["results"]]
        body = client.post(f"/neighbors?id={item}&k=1").json()
        assert body["model"] == made[4].fingerprint
        assert [found["id"] for found in body["results"][0]["neighbors"]] == [item]
        assert max(loads) == 1


FAILURES = {
    "an image is bad": 415,
    "one of two images is bad": 200,
    "a pass fails": 500,
    "a pass for two fails": 500,
    "a search fails": 500,
    "an item is not there": 404,
    "an item that is not there has no duplicates": 404,
    "an item that is not there has no thumbnail": 404,
    "the queue is full": 503,
    "the queue is full for the second of two": 503,
    "the deadline passes": 503,
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_an_answered_error_leaves_behind_holds_no_pair(
    made: Pairs, root: Path, loads: list[int], failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the garbage collector takes its time to find rings of errors, tracebacks and frames."""
    monkeypatch.setattr(logging.getLogger("fc7.service"), "disabled", True)  # pytest keeps records, and with them tracebacks

    def fails(*_: object) -> None:
        raise RuntimeError("out of luck")

    def fail(client: TestClient) -> Response:
        response: Response
        match failure:
            case "an image is bad":
                return send(client, "/neighbors", b"no")
            case "one of two images is bad":
                return send(client, "/neighbors", b"no", PHOTO)
            case "a pass fails":
                patch.setattr(Model, "answers", fails)
                return send(client, "/classify", PHOTO)
            case "a pass for two fails":
                patch.setattr(Model, "answers", fails)
                return send(client, "/classify", PHOTO, PHOTO)
            case "a search fails":
                patch.setattr("indexer.index.Index.search", fails)
                return send(client, "/neighbors", PHOTO)
            case "an item is not there":
                response = client.post("/neighbors?id=999")
            case "an item that is not there has no duplicates":
                response = client.get("/items/999/duplicates")
            case "an item that is not there has no thumbnail":
                response = client.get("/items/999/thumbnail")
            case "the deadline passes":
                with held(PHOTO, monkeypatch):
                    return send(client, "/classify", PHOTO)
            case _:
                patch.setattr(Batcher, "__call__", full)
                return send(client, "/classify", *[PHOTO] * (2 if "two" in failure else 1))
        return response

    async def full(*_: object) -> None:
        await asyncio.sleep(0)
        raise TryAgain("queue_full", "no room")

    deadline_ms = 200 if "deadline" in failure else 5000
    with serving(create_app(settings_for(root, deadline_ms=deadline_ms))) as client:
        gc.collect()
        gc.disable()
        try:
            for number in (2, 3, 4):
                with monkeypatch.context() as patch:
                    assert fail(client).status_code == FAILURES[failure]
                publish(root, number)
                assert reload(client)["changed"] is True
        finally:
            gc.enable()
    assert loads == [0, 1, 1, 1]
