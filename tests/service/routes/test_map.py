"""GET /map and its points: what the build made, without what has been removed, and 404 where it made none."""

import shutil
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from fastapi.testclient import TestClient

from indexer import build
from indexer.index import open_index
from indexer.storage import layout
from indexer.storage.artifact import WithManifest
from indexer.storage.layout import Layout
from service.app import create_app
from service.pair import Pair
from service.routes import map as route
from service.settings import ServiceSettings
from tests.conftest import encoded, photograph
from tests.service.calls import assert_problem

KEY = {"X-API-Key": "a key"}
BINARY = {"Accept-Encoding": "identity"}


@pytest.fixture(scope="module")
def built(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mapped") / "index"
    build.main(build.BuildSettings(model=model, data=images, index=folder, part="train", bits=0, map=True))
    return folder


@pytest.fixture
def mapped(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "index", symlinks=True))


@pytest.fixture
def client(model: Path, mapped: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(model=model, index=mapped, api_key=KEY["X-API-Key"], root_path="/photos")
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def decoded(data: bytes) -> list[tuple[int, int, int, int]]:
    """(id, x, y, number of the label) of each point, read as the description says."""
    magic, count = struct.unpack_from("<4sI", data)
    assert magic == b"FC7P"
    assert len(data) == 8 + 10 * count
    steps = struct.unpack_from(f"<{count}I", data, 8)
    x, y, numbers = (struct.unpack_from(f"<{count}H", data, 8 + 4 * count + 2 * count * i) for i in range(3))
    ids = [sum(steps[: i + 1]) for i in range(count)]
    return list(zip(ids, x, y, numbers, strict=True))


def test_the_points_are_those_of_the_file(client: TestClient, mapped: Path) -> None:
    store = open_index(mapped)
    assert client.get("/info").json()["index"]["mapped"]
    body = client.get("/map").json()
    assert (body["model"], body["layer"], body["index_version"]) == (store.fingerprint, "fc7", 1)
    assert (body["items"], body["shown"], body["since"], body["removed"], body["more_labels"]) == (24, 24, 0, 0, 0)
    assert body["method"] == "principal components"
    assert body["points"].startswith("/photos/map/points?state=")
    answer = client.get(body["points"], headers=BINARY)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert int(answer.headers["Content-Length"]) == body["bytes"]
    expected = layout.read(store)
    points = decoded(answer.content)
    assert [id for id, *_ in points] == store.ids().tolist()
    assert [[x, y] for _, x, y, _ in points] == expected.places_N2.tolist()
    names = [body["labels"][number]["label"] for *_, number in points]
    assert names == [item.label for item in store.items(store.ids().tolist())]
    assert [label["count"] for label in body["labels"]] == [names.count(label["label"]) for label in body["labels"]]
    store.close()


def test_the_points_are_gzipped_kept_for_ever_and_not_sent_twice(client: TestClient) -> None:
    address = client.get("/map").json()["points"]
    plain, packed = (client.get(address, headers={"Accept-Encoding": name}) for name in ("identity", "gzip, br"))
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.content == plain.content  # the client unpacks
    assert plain.headers["ETag"] != packed.headers["ETag"]
    for answer in (plain, packed):
        assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        assert answer.headers["Vary"] == "Accept-Encoding"
    again = client.get(address, headers={"Accept-Encoding": "gzip", "If-None-Match": packed.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    newest = client.get("/map/points")
    assert newest.headers["Cache-Control"] == "no-cache"
    assert newest.content == plain.content
    assert_problem(client.get("/map/points?state=another"), 404, "GET /map says which it has")


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip ; q=0", False),
        ("br, gzip;q=0.000", False),
        ("x-gzipped", False),
        ("", False),
    ],
)
def test_points_are_gzipped_for_those_who_take_that_alone(client: TestClient, accepted: str, packed: bool) -> None:
    assert ("Content-Encoding" in client.get("/map/points", headers={"Accept-Encoding": accepted}).headers) is packed


def test_what_was_removed_is_left_out_and_what_was_added_is_told(client: TestClient) -> None:
    before = client.get("/map").json()
    points = decoded(client.get(before["points"], headers=BINARY).content)
    client.delete("/items/5", headers=KEY)
    client.post("/items", files={"image": encoded(photograph(99))}, headers=KEY)
    after = client.get("/map").json()
    assert (after["items"], after["shown"], after["since"], after["removed"]) == (24, 23, 1, 1)
    assert after["index_version"] == 3
    assert after["points"] != before["points"]
    assert decoded(client.get(after["points"], headers=BINARY).content) == [point for point in points if point[0] != 5]
    assert sum(label["count"] for label in after["labels"]) == 23
    assert_problem(client.get(before["points"]), 404, "any more")


def test_points_that_two_ask_for_first_are_formed_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    current, meeting, formed = client.app.state.engine.current, Barrier(2, timeout=30), list[WithManifest]()  # type: ignore[attr-defined]
    newest, read = current.newest, layout.read

    def together() -> Pair:
        pair: Pair = newest()
        meeting.wait()
        return pair

    def counted(store: WithManifest) -> Layout:
        formed.append(store)
        return read(store)

    monkeypatch.setattr(current, "newest", together)
    monkeypatch.setattr(layout, "read", counted)
    with ThreadPoolExecutor(2) as threads:
        for version in (1, 2):
            answers = list(threads.map(client.get, ["/map/points"] * 2))
            assert [answer.status_code for answer in answers] == [200, 200]
            assert answers[0].content == answers[1].content
            assert len(formed) == version
            client.delete("/items/5", headers=KEY)


def test_an_index_without_a_map_says_what_makes_one(model: Path, index: Path) -> None:
    with TestClient(create_app(ServiceSettings(model=model, index=index)), raise_server_exceptions=False) as client:
        assert client.get("/info").json()["index"]["mapped"] is False
        for path in ("/map", "/map/points"):
            assert_problem(client.get(path), 404, "this index has no map; `python -m indexer.build --map` makes one")


def test_more_labels_than_are_named_are_counted(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "MOST_LABELS", 2)
    body = client.get("/map").json()
    assert (len(body["labels"]), body["more_labels"]) == (2, 1)
