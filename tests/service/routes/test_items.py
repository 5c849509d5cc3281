"""The index over HTTP: who may change it, what an added photograph becomes, and that a removed one never comes back."""

import io
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from PIL import Image

from indexer.opening import open_store
from service.app import create_app
from service.settings import ServiceSettings
from tests.conftest import COLOURS, encoded, photograph
from tests.service.calls import PHOTO, assert_problem
from training.files import exclusively

KEY = "tröpfchen"
BEARER = {"Authorization": b"Bearer " + KEY.encode()}
MODES = ("mode=exact", "mode=code", "mode=two-stage", "mode=ball&radius=128")


@pytest.fixture
def growing(index: Path, tmp_path: Path) -> Path:
    """An index of 24 items that may be changed."""
    return Path(shutil.copytree(index, tmp_path / "index", symlinks=True))


@pytest.fixture
def client(model: Path, growing: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(model=model, index=growing, api_key=KEY, max_images=4)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def add(client: TestClient, *images: bytes, headers: Any = BEARER, **fields: str) -> Response:
    files = [("image", (f"{i}.jpg", data)) for i, data in enumerate(images)]
    response: Response = client.post("/items", files=files, data=fields, headers=headers)
    return response


def added(client: TestClient, *images: bytes, **fields: str) -> list[tuple[int, bool]]:
    response = add(client, *images, **fields)
    assert response.status_code == 200, response.text
    return [(result["id"], result["known"]) for result in response.json()["results"]]


def found(client: TestClient, query: str) -> list[int]:
    response = client.post(f"/neighbors?k=100&{query}")
    assert response.status_code == 200, response.text
    return [neighbor["id"] for neighbor in response.json()["results"][0]["neighbors"]]


def test_an_added_photograph_is_found_at_once_in_every_mode(client: TestClient, growing: Path) -> None:
    body = add(client, PHOTO, label="apple").json()
    assert body == {
        "index_version": body["index_version"],
        "results": [{"name": "0.jpg", "id": 24, "known": False, "error": None}],
    }
    for mode in MODES:
        assert found(client, f"id=24&{mode}&max_distance=0") == [24]
        assert found(client, f"id=0&{mode}&label=apple") == [24]
    item = client.get("/items/24").json()
    assert (item["label"], item["size"], item["format"]) == ("apple", len(PHOTO), "JPEG")
    assert client.get(item["image"]).content == PHOTO
    assert Image.open(io.BytesIO(client.get(item["thumbnail"]).content)).size == (160, 160)
    assert [path.name for path in (growing / "uploads").iterdir()] == [f"{item['sha256']}.jpeg"]
    assert client.get("/info").json()["index"]["items"] == 25


def test_what_was_added_is_there_when_the_service_starts_again(client: TestClient, model: Path, growing: Path) -> None:
    [(item, _)] = added(client, PHOTO)
    with TestClient(create_app(ServiceSettings(model=model, index=growing))) as again:
        assert again.get(f"/items/{item}/image").content == PHOTO
        assert item in found(again, "id=0")


def test_adding_twice_is_harmless(client: TestClient, images: Path) -> None:
    other = encoded(photograph(5, COLOURS["blue"]), "PNG")
    assert added(client, PHOTO, other, PHOTO) == [(24, False), (25, False), (24, True)]
    assert added(client, other, PHOTO, label="another") == [(25, True), (24, True)]
    indexed = (images / client.get("/items/3").json()["path"]).read_bytes()
    assert added(client, indexed) == [(3, True)]
    assert len(found(client, "id=0")) == 26
    assert client.get("/items/24").json()["label"] == ""


def test_one_bad_photograph_among_good_ones_is_an_error_of_its_own(client: TestClient, growing: Path) -> None:
    results = add(client, b"not an image", PHOTO, PHOTO[:400]).json()["results"]
    assert [result["error"] and result["error"]["status"] for result in results] == [415, None, 422]
    assert [result["id"] for result in results] == [None, 24, None]
    assert_problem(add(client, b"not an image"), 415, "not an image")
    assert [result["id"] for result in add(client, b"not", b"nor").json()["results"]] == [None, None]
    assert_problem(add(client, *[PHOTO] * 5), 422, "at most 4 files")
    assert_problem(add(client, PHOTO, label="two\nlines"), 422, "label", "printable")
    assert_problem(add(client, PHOTO, label="x" * 201), 422, "label")
    assert_problem(client.post("/items", headers=BEARER), 422, "image is missing")
    assert len(list((growing / "uploads").iterdir())) == 1


def test_a_removed_item_never_comes_back(client: TestClient, growing: Path, images: Path) -> None:
    [(item, _)] = added(client, PHOTO, label="red")
    original = images / client.get("/items/5").json()["path"]
    before = client.get(f"/items/{item}/thumbnail").headers["etag"]
    for gone in (item, 5):
        response = client.delete(f"/items/{gone}", headers=BEARER)
        assert (response.status_code, response.content) == (204, b"")
        assert_problem(client.delete(f"/items/{gone}", headers=BEARER), 404, str(gone))
        for path in ("", "/image", "/thumbnail", "/duplicates"):
            assert_problem(client.get(f"/items/{gone}{path}", headers={"if-none-match": before}), 404, str(gone))
        assert_problem(client.post(f"/neighbors?id={gone}"), 404, str(gone))
        for mode in MODES:
            assert gone not in found(client, f"id=0&{mode}")
            assert gone not in found(client, f"id=0&{mode}&label=red")
    assert list((growing / "uploads").iterdir()) == []
    assert original.exists()
    assert added(client, PHOTO) == [(item + 1, False)]
    assert_problem(client.delete("/items/999", headers=BEARER), 404, "999")
    assert_problem(client.delete("/items/-1", headers=BEARER), 422, "id")


def test_every_item_can_be_removed_and_the_index_grows_again(client: TestClient) -> None:
    for item in range(24):
        assert client.delete(f"/items/{item}", headers=BEARER).status_code == 204
    assert client.get("/info").json()["index"]["items"] == 0
    assert added(client, PHOTO) == [(24, False)]
    for mode in MODES:
        assert found(client, f"id=24&{mode}") == [24]


@pytest.mark.parametrize("headers", [BEARER, {"X-API-Key": KEY.encode()}, {"Authorization": b"bearer " + KEY.encode()}])
def test_the_key_opens_the_index_to_changes(client: TestClient, headers: dict[str, bytes]) -> None:
    assert add(client, PHOTO, headers=headers).status_code == 200
    assert client.delete("/items/24", headers=headers).status_code == 204


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": b"Bearer"},
        {"Authorization": b"Bearer " + KEY.encode() + b"x"},
        {"Authorization": b"Basic " + KEY.encode()},
        {"X-API-Key": b""},
        {"X-API-Key": KEY[:-1].encode()},
    ],
)
def test_without_the_key_nothing_changes(client: TestClient, growing: Path, headers: dict[str, bytes]) -> None:
    for response in (add(client, PHOTO, headers=headers), client.delete("/items/0", headers=headers)):
        assert_problem(response, 401, "X-API-Key")
        assert response.headers["www-authenticate"] == "Bearer"
        assert KEY not in response.text
    assert (len(open_store(growing)), (growing / "uploads").exists()) == (24, False)


def test_where_no_key_is_set_nobody_changes_the_index(model: Path, index: Path) -> None:
    with TestClient(create_app(ServiceSettings(model=model, index=index))) as client:
        for response in (add(client, PHOTO), client.delete("/items/0", headers=BEARER)):
            assert_problem(response, 403, "FC7_API_KEY")
    with pytest.raises(ValueError, match="api_key"):
        ServiceSettings(model=model, index=index, api_key="")


def test_the_key_is_never_shown(client: TestClient) -> None:
    assert KEY not in repr(client.app.state.settings)  # type: ignore[attr-defined]
    for path in ("/info", "/openapi.json"):
        assert KEY not in client.get(path).text
    assert "api_key" not in client.get("/info").json()["settings"]


def test_keys_are_part_of_the_description(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    schemes = description["components"]["securitySchemes"]
    assert {(scheme["type"], scheme.get("scheme", scheme.get("name"))) for scheme in schemes.values()} == {
        ("http", "bearer"),
        ("apiKey", "X-API-Key"),
    }
    for path, method in (("/items", "post"), ("/items/{id}", "delete")):
        operation = description["paths"][path][method]
        assert len(operation["security"]) == 2
        for status in ("401", "403", "422", "503"):
            assert list(operation["responses"][status]["content"]) == ["application/problem+json"]


def test_a_command_that_is_writing_makes_the_service_answer_busy(client: TestClient, growing: Path) -> None:
    with exclusively(growing):
        for response in (add(client, PHOTO), client.delete("/items/0", headers=BEARER)):
            assert_problem(response, 503, "another process is writing")
            assert int(response.headers["retry-after"]) > 0
        assert len(found(client, "id=0")) == 24
    assert added(client, PHOTO) == [(24, False)]


def test_a_disk_that_takes_nothing_is_named(client: TestClient, growing: Path) -> None:
    (growing / "uploads").write_bytes(b"")
    assert_problem(add(client, PHOTO), 503, "uploads", "cannot be written")
    assert len(found(client, "id=0")) == 24


def test_many_at_once_all_get_in(client: TestClient) -> None:
    photos = [encoded(photograph(seed, size=(32, 32))) for seed in range(200, 208)]
    with ThreadPoolExecutor(8) as pool:
        ids = [item for answer in pool.map(lambda photo: added(client, photo), photos) for item, _ in answer]
    assert sorted(ids) == list(range(24, 32))
    assert set(ids) <= set(found(client, "id=0"))


def test_pages_go_on_after_what_was_added_and_removed_between_them(client: TestClient) -> None:
    """None of the items that were there throughout is skipped or comes twice."""
    shown: list[int] = []
    cursor: str | None = ""
    step = 0
    while cursor is not None:
        page = client.post("/neighbors?id=0&k=4" + (f"&cursor={cursor}" if cursor else "")).json()["results"][0]
        shown += [neighbor["id"] for neighbor in page["neighbors"]]
        cursor, step = page["next"], step + 1
        if step == 1:
            client.delete(f"/items/{shown[-1]}", headers=BEARER)  # the very item that the cursor stands at
            added(client, PHOTO)
    assert len(shown) == len(set(shown))
    assert set(range(24)) <= set(shown)
