"""The index that a service has open, while other processes change it on disk."""

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from indexer.opening import open_store
from service import pair
from service.app import create_app
from service.engine import Engine
from service.settings import ServiceSettings
from tests.service.calls import PHOTO, assert_problem
from training.files import exclusively

KEY = {"X-API-Key": "key"}


@pytest.fixture
def growing(index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index, tmp_path / "index", symlinks=True))


@pytest.fixture
def client(model: Path, growing: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(pair, "LOOK_S", 0.0)
    settings = ServiceSettings(model=model, index=growing, api_key="key")
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def remove(index: Path, item: int) -> int:
    """What `python -m indexer.remove` does; returns the version."""
    with exclusively(index):
        return open_store(index).remove([item]).version_number


def engine_of(client: TestClient) -> Engine:
    engine: Engine = client.app.state.engine  # type: ignore[attr-defined]
    return engine


def followed(client: TestClient) -> None:
    """Lets the service see what is on disk, and waits until it has."""
    assert client.get("/readyz").status_code == 200
    following = engine_of(client).current.following
    assert following is not None
    following.result(timeout=60)


def test_searches_pick_up_what_another_process_published(client: TestClient, growing: Path) -> None:
    version = remove(growing, 7)
    followed(client)
    body = client.post("/neighbors?id=0&k=100").json()
    assert body["index_version"] == version
    assert 7 not in [neighbor["id"] for neighbor in body["results"][0]["neighbors"]]
    assert_problem(client.get("/items/7/thumbnail"), 404, "7")


@pytest.mark.parametrize("look_s", [0.0, 3600.0], ids=["idle", "busy"])
def test_an_item_that_another_process_removed_is_gone_at_once(
    client: TestClient, growing: Path, monkeypatch: pytest.MonkeyPatch, look_s: float
) -> None:
    monkeypatch.setattr(pair, "LOOK_S", look_s)
    for item, path in enumerate(("", "/image", "/thumbnail")):
        assert client.get(f"/items/{item}{path}").status_code == 200
        remove(growing, item)
        assert_problem(client.get(f"/items/{item}{path}"), 404, str(item))


def test_a_search_at_a_service_that_was_idle_finds_nothing_that_another_process_removed(
    client: TestClient, growing: Path
) -> None:
    for item in (3, 4):
        version = remove(growing, item)
        body = client.post("/neighbors?id=0&k=100").json()
        assert body["index_version"] == version
        assert item not in [neighbor["id"] for neighbor in body["results"][0]["neighbors"]]
    remove(growing, 5)
    assert_problem(client.get("/items/5/duplicates"), 404, "5")


def test_where_following_takes_too_long_an_item_is_not_answered_for(
    client: TestClient, growing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, release = engine_of(client).current, threading.Event()
    held = current._thread.submit(release.wait, 60)
    try:
        assert client.get("/items/7").status_code == 200  # nothing is to be followed
        remove(growing, 7)
        monkeypatch.setattr(current, "_patience_s", 0.0)
        assert_problem(client.get("/items/7"), 503, "taken up")
    finally:
        release.set()
    assert held.result(60)
    monkeypatch.setattr(current, "_patience_s", 60.0)
    assert_problem(client.get("/items/7"), 404, "7")


def test_a_change_begins_with_what_another_process_published(client: TestClient, growing: Path) -> None:
    remove(growing, 7)
    assert_problem(client.delete("/items/7", headers=KEY), 404, "7")
    assert client.delete("/items/8", headers=KEY).status_code == 204
    assert set(open_store(growing).ids().tolist()) == set(range(24)) - {7, 8}
    assert client.get("/info").json()["index"]["items"] == 22


def test_a_version_that_does_not_verify_is_refused_and_the_old_one_stays(
    client: TestClient, growing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = client.get("/info").json()["index"]["version"]
    remove(growing, 7)
    manifest = (growing / "current" / "manifest.json").read_text()
    (growing / "current" / "manifest.json").write_text(manifest.replace('"kept": 23', '"kept": 22'))
    with caplog.at_level(logging.WARNING):
        followed(client)
    assert "manifest.json" in caplog.text
    assert f"version {before} of the index goes on answering" in caplog.text
    body = client.post("/neighbors?id=7&k=1").json()
    assert (body["index_version"], body["results"][0]["neighbors"][0]["id"]) == (before, 7)
    assert_problem(client.delete("/items/0", headers=KEY), 503, "manifest.json")
    (growing / "current" / "manifest.json").write_text(manifest)
    assert client.delete("/items/0", headers=KEY).status_code == 204
    assert set(open_store(growing).ids().tolist()) == set(range(1, 24)) - {7}


def test_an_emptied_index_is_one_that_answers_and_a_bad_one_does_not_take_its_turn(
    client: TestClient, growing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with exclusively(growing):
        open_store(growing).remove(list(range(24)))
    followed(client)
    emptied = client.get("/info").json()["index"]
    assert emptied["items"] == 0
    assert client.post("/reload", headers=KEY).json()["changed"] is False
    manifest = growing / "current" / "manifest.json"
    honest = manifest.read_text()
    manifest.write_text(honest.replace('"kept": 0', '"kept": 1'))
    assert manifest.read_text() != honest
    with caplog.at_level(logging.WARNING):
        followed(client)
    assert f"version {emptied['version']} of the index goes on answering" in caplog.text
    assert_problem(client.post("/reload", headers=KEY), 409, "manifest.json")
    assert client.get("/readyz").status_code == 200
    assert client.get("/info").json()["index"]["items"] == 0
    assert_problem(client.get("/items/0"), 404, "0")
    manifest.write_text(honest)
    assert client.post("/reload", headers=KEY).status_code == 200
    assert client.post("/items", files=[("image", ("a.jpg", PHOTO))], headers=KEY).json()["results"][0]["id"] == 24


def test_an_index_that_is_built_later_is_opened_without_a_new_start(
    model: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "LOOK_S", 0.0)
    with TestClient(create_app(ServiceSettings(model=model, index=tmp_path / "index"))) as client:
        assert_problem(client.post("/neighbors?id=0"), 503, "python -m indexer.build")
        shutil.copytree(index, tmp_path / "index", symlinks=True)
        client.get("/readyz")
        following = engine_of(client).current.following
        assert following is not None
        following.result(timeout=60)
        assert client.get("/readyz").status_code == 200


def test_a_search_finishes_on_the_index_that_it_began_with(client: TestClient) -> None:
    old = engine_of(client).pair.store
    for item in range(3):
        assert client.delete(f"/items/{item}", headers=KEY).status_code == 204
    assert [item.id for item in old.items([0, 1, 2])] == [0, 1, 2]
    assert old.thumbnail(old.items([1])[0])[:2] == b"\xff\xd8"
    assert len(engine_of(client).pair.store) == 21


def test_searches_answer_while_the_index_changes(client: TestClient) -> None:
    """Each answer is of one state: before or after."""
    stop, answers = threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            response = client.post("/neighbors?id=23&k=100")
            answers.append((response.status_code, [n["id"] for n in response.json()["results"][0]["neighbors"]]))

    thread = threading.Thread(target=search)
    thread.start()
    for item in range(6):
        assert client.delete(f"/items/{item}", headers=KEY).status_code == 204
    stop.set()
    thread.join()
    assert answers
    for status, ids in answers:
        assert status == 200
        assert sorted(ids) == list(range(24 - len(ids), 24))


def test_a_change_that_fails_leaves_the_index_as_it_was(
    client: TestClient, growing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28), str(growing / "uploads" / "x"))

    with monkeypatch.context() as patch:
        patch.setattr("service.engine.write_bytes", full)
        response = client.post("/items", files=[("image", ("a.jpg", PHOTO))], headers=KEY)
    assert_problem(response, 503, "uploads", "No space left on device")
    assert len(open_store(growing)) == 24
    assert client.post("/items", files=[("image", ("a.jpg", PHOTO))], headers=KEY).json()["results"][0]["id"] == 24
