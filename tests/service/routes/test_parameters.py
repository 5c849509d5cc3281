"""Query strings and ids: every parameter is known and given once, but for lists, and a number is written in one way."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import ServiceSettings
from tests.service.calls import PHOTO, assert_problem, send

KEY = {"X-API-Key": "key"}
OPERATIONS = [
    (method.upper(), path, [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"])
    for path, methods in create_app(ServiceSettings()).openapi()["paths"].items()
    for method, operation in methods.items()
]
LISTS = {"label", "exclude_label"}
# an integer's other spellings, all of which Python's or pydantic's int() takes, or some client may mean as one
ODD = (
    "1_0",
    "+1",
    " 1",
    "1 ",
    "\t1",
    "1\n",
    "1.0",
    "\uff11",
    "\u0663",
    "1e1",
    "0x1",
    "01",
    "-0",
    "--1",
    "1,0",
    "",
    "true",
    "\u00a01",
    "²",
)


def test_every_operation_says_that_it_names_wrong_parameters() -> None:
    described = create_app(ServiceSettings()).openapi()["paths"]
    assert [path for path, methods in described.items() for one in methods.values() if "422" not in one["responses"]] == []


@pytest.fixture(scope="module")
def client(model: Path, index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    growing = shutil.copytree(index, tmp_path_factory.mktemp("parameters") / "index", symlinks=True)
    settings = ServiceSettings(model=model, index=growing, api_key="key")
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def fields(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(error["field"], error["value"]) for error in body["errors"]]


def ask(client: TestClient, method: str, path: str, query: str) -> Any:
    files = [("image", ("a.jpg", PHOTO))] if path in ("/classify", "/items") else None
    return client.request(method, path.replace("{id}", "0") + query, headers=KEY, files=files)


def test_operations_are_all_that_there_are() -> None:
    assert {path for _, path, _ in OPERATIONS} >= {
        "/classify",
        "/neighbors",
        "/items",
        "/items/{id}/duplicates",
        "/info",
        "/healthz",
    }
    assert {path: " ".join(names) for _, path, names in OPERATIONS}[
        "/items/{id}/duplicates"
    ] == "label exclude_label path_prefix added_after added_before k max_distance cursor mode"


@pytest.mark.parametrize(("method", "path", "names"), OPERATIONS)
def test_a_parameter_that_an_operation_has_not_is_named(client: TestClient, method: str, path: str, names: list[str]) -> None:
    for name in ("K", "k ", "k[]", "\uff4b", "_", "x" * 50):
        body = assert_problem(ask(client, method, path, f"?{quote(name)}=3"), 422, name, "left out", "'3'")
        assert fields(body) == [(name, "3")]
    body = assert_problem(ask(client, method, path, "?a&b=&=c&" + "&".join(f"d{i}=1" for i in range(50))), 422)
    assert fields(body)[:3] == [("a", ""), ("b", ""), ("", "c")]
    assert len(body["errors"]) == 10


@pytest.mark.parametrize(("method", "path", "names"), [operation for operation in OPERATIONS if operation[2]])
def test_a_parameter_that_is_given_twice_is_named(client: TestClient, method: str, path: str, names: list[str]) -> None:
    for name in set(names) - LISTS:
        body = assert_problem(ask(client, method, path, f"?{name}=1&{name}=2"), 422, name, "given once")
        assert fields(body) == [(name, "2")]


def test_a_parameter_in_bytes_that_are_no_text_is_named(client: TestClient) -> None:
    body = assert_problem(client.post("/neighbors?id=0&label=%ff%fe"), 422, "label", "UTF-8")
    assert [error["field"] for error in body["errors"]] == ["label"]
    assert_problem(client.post("/neighbors?id=0&%ff=1"), 422, "left out")


def test_pages_take_any_query(client: TestClient) -> None:
    for path in ("/?utm_source=x", "/docs?x", "/web/main.js?v=3"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("path", ["/items/{}", "/items/{}/image", "/items/{}/thumbnail", "/items/{}/duplicates"])
def test_an_id_in_a_path_is_written_in_one_way(client: TestClient, path: str, odd: str) -> None:
    response = client.get(path.format(quote(odd)))
    assert_problem(response, 422 if odd else 404)
    if odd:
        assert fields(response.json()) == [("id", odd)]


@pytest.mark.parametrize("odd", ODD)
def test_an_id_that_is_removed_is_written_in_one_way(client: TestClient, odd: str) -> None:
    assert client.delete(f"/items/{quote(odd)}", headers=KEY).status_code == (422 if odd else 404)
    assert client.get("/info").json()["index"]["items"] == 24


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    ("query", "name"),
    [("id={}", "id"), ("id=1&k={}", "k"), ("id=1&mode=ball&radius={}", "radius"), ("id=1&max_distance={}", "max_distance")],
)
def test_a_number_in_a_query_is_written_in_one_way(client: TestClient, query: str, name: str, odd: str) -> None:
    if name == "max_distance" and odd in ("1.0", "1e1", "-0"):
        assert client.post("/neighbors?" + query.format(odd)).status_code == 200
        return
    body = assert_problem(client.post("/neighbors?" + query.format(quote(odd))), 422, name)
    assert fields(body) == [(name, odd)]
    assert_problem(send(client, f"/classify?top={quote(odd)}", PHOTO), 422, "top")
    assert_problem(client.get(f"/items/1/duplicates?k={quote(odd)}"), 422, "k")


@pytest.mark.parametrize("text", ["0", "0.5", "12.25", "1e3", "1E-3", "1e%2B3", "1e-07"])
def test_a_distance_is_any_number_of_json(client: TestClient, text: str) -> None:
    assert client.post(f"/neighbors?id=1&max_distance={text}").status_code == 200


@pytest.mark.parametrize("text", [".5", "5.", "1_0.5", "inf", "nan", "Infinity", "1e400", "0x1p3", "1e", " 0.5", "-1"])
def test_a_distance_is_nothing_else(client: TestClient, text: str) -> None:
    assert_problem(client.post(f"/neighbors?id=1&max_distance={quote(text)}"), 422, "max_distance")


def test_a_cursor_is_written_in_one_way(client: TestClient) -> None:
    cursor = client.post("/neighbors?id=0&k=3").json()["results"][0]["next"]
    assert client.post("/neighbors?id=0&k=3", params={"cursor": cursor}).status_code in (200, 422)
    assert client.post(f"/neighbors?id=0&k=3&cursor={cursor}").status_code == 200
    data = base64.urlsafe_b64decode(cursor)
    others = {cursor + "=", cursor + "====", cursor + "\n", " " + cursor, cursor[:20] + "\n" + cursor[20:], cursor.lower()}
    others.add(base64.b64encode(data).decode() + ("" if base64.b64encode(data).decode() != cursor else "A"))
    for other in others:
        assert_problem(client.post(f"/neighbors?id=0&k=3&cursor={quote(other, safe='')}"), 422, "cursor")
