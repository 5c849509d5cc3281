"""GET /labels and GET /items tell what the index holds, by pages, each item once whatever changes meanwhile."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import ServiceSettings
from tests.conftest import COLOURS, encoded, photograph
from tests.service.calls import assert_problem

KEY = {"X-API-Key": "a key"}


@pytest.fixture
def client(model: Path, index: Path, tmp_path: Path) -> Iterator[TestClient]:
    growing = shutil.copytree(index, tmp_path / "index", symlinks=True)
    settings = ServiceSettings(model=model, index=growing, api_key=KEY["X-API-Key"], max_neighbors=30)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def test_labels_are_counted_and_follow_what_is_added_and_removed(client: TestClient) -> None:
    body = client.get("/labels").json()

    assert (body["items"], body["of"], body["next"]) == (24, 3, None)
    assert body["labels"] == [{"label": name, "items": 8} for name in sorted(COLOURS)]
    files = [("image", ("a.jpg", encoded(photograph(900)), "image/jpeg"))]
    assert client.post("/items", files=files, data={"label": "grey"}, headers=KEY).status_code == 200
    assert client.delete("/items/0", headers=KEY).status_code == 204
    body = client.get("/labels").json()
    assert body["index_version"] == 3
    assert {one["label"]: one["items"] for one in body["labels"]} == {"blue": 7, "green": 8, "grey": 1, "red": 8}


def test_labels_come_by_pages(client: TestClient) -> None:
    body = client.get("/labels?k=2").json()
    assert [one["label"] for one in body["labels"]] == ["blue", "green"]
    body = client.get(f"/labels?k=2&cursor={body['next']}").json()
    assert [one["label"] for one in body["labels"]] == ["red"]
    assert body["next"] is None


def test_items_come_once_each_though_some_are_removed_between_the_pages(client: TestClient) -> None:
    body = client.get("/items?k=10").json()
    assert [one["id"] for one in body["items"]] == list(range(10))
    assert body["items"][3] == client.get("/items/3").json()
    assert body["of"] == 24
    assert "note" not in body
    for id in (2, 9, 12):
        assert client.delete(f"/items/{id}", headers=KEY).status_code == 204
    found = []
    while body["next"]:
        body = client.get(f"/items?k=10&cursor={body['next']}").json()
        found += [one["id"] for one in body["items"]]
    assert found == [id for id in range(10, 24) if id != 12]


def test_items_are_filtered_by_label_and_path(client: TestClient) -> None:
    body = client.get("/items", params={"label": ["red", "blue"], "path_prefix": "train/red/00"}).json()
    assert [one["path"] for one in body["items"]] == [f"train/red/{i:03d}.jpg" for i in range(8)]
    assert body["of"] == 8
    body = client.get("/items", params={"label": "none"}).json()
    assert (body["items"], body["of"]) == ([], 0)
    assert "'none'" in body["note"]


def test_what_cannot_be_asked_is_refused(client: TestClient) -> None:
    assert_problem(client.get("/items?k=31"), 422, "31", "at most 30")
    assert_problem(client.get("/labels?k=31"), 422, "31", "at most 30")
    cursor = client.get("/items?k=1").json()["next"]
    for path in (f"/items?label=red&cursor={cursor}", f"/labels?cursor={cursor}", "/items?cursor=AAAA"):
        assert_problem(client.get(path), 422, "cursor")
    assert_problem(client.get("/items?colour=red"), 422, "colour")


def test_without_an_index_both_say_what_makes_one(model: Path, tmp_path: Path) -> None:
    with TestClient(create_app(ServiceSettings(model=model, index=tmp_path / "none"))) as client:
        for path in ("/labels", "/items"):
            assert_problem(client.get(path), 503, "indexer.build")
