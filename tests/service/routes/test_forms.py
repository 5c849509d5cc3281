"""Parts of a form: what a field holds is told by its name, whatever else its headers say, and is never sent back."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from service.app import create_app
from service.routes import forms
from service.settings import ServiceSettings
from tests.conftest import COLOURS, encoded, photograph
from tests.service.asgi import Sending, exchange
from tests.service.calls import PHOTO, assert_problem

FORM = {"content-type": "multipart/form-data; boundary=b", "X-API-Key": "key"}
LARGE = encoded(photograph(3, COLOURS["red"], size=(1100, 1000)), "BMP")  # 3.3 MB
NAMES = (
    ('name="image"', "image"),
    ("name=image", "image"),
    ('name="image"; filename=""', "image"),
    ('name="image"; filename="a.jpg"', "a.jpg"),
    ('name="image"; filename="ü.jpg"', "ü.jpg"),
    ("name=\"image\"; filename*=UTF-8''%C3%BC%20b.jpg", "ü b.jpg"),
    ("name=\"image\"; filename*=utf-8'de'%C3%BC.jpg", "ü.jpg"),
    ("name=\"image\"; filename*=ISO-8859-1''%FC.jpg", "ü.jpg"),
    ("name=\"image\"; FileName*=UTF-8''a.jpg", "a.jpg"),
    ("filename*=UTF-8''a.jpg; name=\"image\"", "a.jpg"),
    ('name="image"; filename="a.jpg"; filename*=UTF-8\'\'b.jpg', "a.jpg"),
    ("name=\"image\"; filename*=nonsense''a.jpg", "image"),
    ('name="image"; filename*=a.jpg', "image"),
    ('name="image"; filename*0="a"; filename*1=".jpg"', "image"),
    ("name*=UTF-8''image; filename=\"a.jpg\"", "a.jpg"),
)


@pytest.fixture(scope="module")
def client(model: Path, index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    growing = shutil.copytree(index, tmp_path_factory.mktemp("forms") / "index", symlinks=True)
    settings = ServiceSettings(model=model, index=growing, api_key="key", max_images=3)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def part(data: bytes, disposition: str, *headers: str) -> bytes:
    lines = [f"Content-Disposition: form-data; {disposition}", *headers]
    return b"--b\r\n" + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + data + b"\r\n"


def post(client: TestClient, path: str, *parts: bytes) -> Response:
    response: Response = client.post(path, content=b"".join(parts) + b"--b--\r\n", headers=FORM)
    return response


@pytest.mark.parametrize(("disposition", "name"), NAMES)
@pytest.mark.parametrize(
    "headers", [(), ("Content-Type: text/plain; charset=utf-8",), ("Content-Type: application/json", "X-Odd: 1")]
)
def test_a_field_named_image_is_a_photograph(client: TestClient, disposition: str, name: str, headers: tuple[str, ...]) -> None:
    [result] = post(client, "/classify", part(PHOTO, disposition, *headers)).json()["results"]
    assert (result["name"], result["error"]) == (name, None)
    assert len(result["classes"]) == 3


@pytest.mark.parametrize(("disposition", "name"), NAMES)
def test_no_limit_is_on_it_but_those_of_photographs(client: TestClient, disposition: str, name: str) -> None:
    assert len(LARGE) > 2**20
    [result] = post(client, "/neighbors?k=1", part(LARGE, disposition)).json()["results"]
    assert (result["name"], len(result["neighbors"])) == (name, 1)


def test_a_photograph_without_a_file_name_is_added_like_any_other(client: TestClient) -> None:
    added = post(client, "/items", part(PHOTO, 'name="image"'), part(b"red", 'name="label"')).json()["results"]
    assert added[0]["name"] == "image"
    item = client.get(f"/items/{added[0]['id']}").json()
    assert (item["label"], item["size"]) == ("red", len(PHOTO))


@pytest.mark.parametrize("disposition", ['name="label"', "name=\"label\"; filename*=UTF-8''x"])
def test_a_label_is_text_whatever_its_headers(client: TestClient, disposition: str) -> None:
    data = encoded(photograph(len(disposition), size=(20, 20)))
    sent = part("grün".encode(), disposition.replace("filename*", "other*"), "Content-Type: application/octet-stream")
    [added] = post(client, "/items", sent, part(data, 'name="image"')).json()["results"]
    assert client.get(f"/items/{added['id']}").json()["label"] == "grün"


def test_a_field_of_another_name_is_named_and_what_it_holds_is_not_sent_back(client: TestClient) -> None:
    secret = b"secret \xff\xd8\xff " * 1000
    for path in ("/classify", "/neighbors", "/items"):
        for disposition, words in (
            ('name="picture"', "picture"),
            ('name="picture"; filename="a.jpg"', "'picture'"),
            ('name="Image"', "Image"),
        ):
            response = post(client, path, part(PHOTO, 'name="image"'), part(secret, disposition))
            assert_problem(response, 422, words)
            assert "secret" not in response.text
            assert len(response.content) < 1000


@pytest.mark.parametrize(
    ("label", "words"),
    [(b"\xff", "UTF-8"), (b"a\nb", "control characters"), (b"x" * 5_000_000, "at most 200"), (b"secret" * 100, "at most 200")],
)
def test_a_label_that_is_none_is_refused_in_few_words(client: TestClient, label: bytes, words: str) -> None:
    response = post(client, "/items", part(PHOTO, 'name="image"'), part(label, 'name="label"'))
    assert_problem(response, 422, "label", words)
    assert len(response.content) < 1000


def test_two_labels_are_refused(client: TestClient) -> None:
    parts = [part(PHOTO, 'name="image"'), part(b"a", 'name="label"'), part(b"b", 'name="label"')]
    assert_problem(post(client, "/items", *parts), 422, "label", "given once")


def test_a_photograph_that_is_none_is_told_so_in_few_words(client: TestClient) -> None:
    for data, status in ((b"secret" * 1000, 415), (PHOTO[:400], 422), (b"", 415)):
        response = post(client, "/classify", part(data, 'name="image"'))
        assert_problem(response, status)
        assert "secret" not in response.text
        assert len(response.content) < 500


@pytest.mark.parametrize("size", [1, 7, 1000, 65_536])
def test_however_the_body_is_cut_up_it_is_the_same(client: TestClient, size: int) -> None:
    body = (
        part(PHOTO, "name=\"image\"; filename*=UTF-8''%C3%BC.jpg") + part(LARGE[:300] + b"\r\n--c", 'name="image"') + b"--b--\r\n"
    )

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    results: list[dict[str, Any]] = client.post("/classify", content=pieces(), headers=FORM).json()["results"]
    assert [result["name"] for result in results] == ["ü.jpg", "image"]
    assert results[0]["error"] is None
    assert results[1]["error"]["status"] == 422


def test_a_large_form_is_put_together_beside_the_event_loop(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stand for as long as 64 MB take to be copied; one copy that a thread makes at a stroke would hold it up too."""
    threads, put_together = [], forms.Parts.form

    def recorded(parts: forms.Parts) -> forms.Form:
        threads.append(threading.current_thread().name)
        assert all(len(piece) < 2**20 for part in parts._parts for piece in [*part.pieces, part.latest])
        form = put_together(parts)
        assert form.images == [("image", LARGE), ("image", PHOTO)]
        return form

    monkeypatch.setattr(forms.Parts, "form", recorded)
    body = part(LARGE, 'name="image"') + part(PHOTO, 'name="image"') + b"--b--\r\n"
    pieces = Sending(*(body[start : start + 2**16] for start in range(0, len(body), 2**16)))
    headers = (*FORM.items(), ("transfer-encoding", "chunked"), ("host", "localhost"))
    assert client.portal
    assert client.portal.call(exchange, client.app, "POST", "/classify", headers, pieces).status == 200
    assert [name.split("_")[0] for name in threads] == ["read"]


@pytest.mark.parametrize("disposition", ["", 'filename="a"', "name*=UTF-8'image", "x=image"])
def test_a_part_without_a_name_is_refused(client: TestClient, disposition: str) -> None:
    assert_problem(post(client, "/classify", part(PHOTO, disposition)), 422, "without a name")


def test_wrong_json_is_not_sent_back(client: TestClient) -> None:
    json = {"content-type": "application/json"}
    for body in (b"secret" * 100, b'{"inputs": [{"image": "secret' + b"x" * 500, b"{" + b'"secret": 1,' * 50):
        response = client.post("/classify", content=body, headers=json)
        assert_problem(response, 422, "body", "JSON")
        assert "secret" not in response.text
    response = client.post("/classify", content=b'{"inputs": [{"image": "%s"}]}' % (b"?" * 1000), headers=json)
    assert_problem(response, 422, "inputs.0.image", "base64")
    assert len(response.content) < 500
