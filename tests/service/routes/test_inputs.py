"""What a request may hold: photographs, ids and vectors, as a form or as JSON; each answered in place, or told what is wrong."""

import base64
import codecs
import gzip
import json
import shutil
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from httpx import Response
from torch import Tensor

from indexer.opening import open_store
from indexer.store import Store
from service import engine
from service.app import create_app
from service.settings import ServiceSettings
from tests.conftest import COLOURS, encoded, photograph
from tests.service.calls import PHOTO, assert_problem, send
from training import checkpoint
from training.checkpoint import Model
from training.images.preprocess import ImageLimits, decode

MAX_IMAGES = 8
JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=b"}
OTHER = encoded(photograph(78, COLOURS["blue"]), "PNG")
WIDTH = 32  # of the small model's FC7


@pytest.fixture(scope="module")
def client(model: Path, index: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(model=model, index=index, max_images=MAX_IMAGES, max_neighbors=50)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def store(index: Path) -> Store:
    return open_store(index)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def ask(client: TestClient, path: str, *inputs: object) -> Response:
    """POSTs the inputs as JSON."""
    response: Response = client.post(path, content=json.dumps({"inputs": inputs}), headers=JSON)
    return response


def raw(client: TestClient, body: bytes, headers: dict[str, str] = JSON, path: str = "/neighbors") -> Response:
    response: Response = client.post(path, content=body, headers=headers)
    return response


def part(data: bytes, disposition: str = 'name="image"; filename="a.jpg"') -> bytes:
    return f"--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + data + b"\r\n"


def hits(result: dict[str, Any]) -> tuple[list[int], list[float]]:
    return [n["id"] for n in result["neighbors"]], [n["distance"] for n in result["neighbors"]]


def fields(response: Response) -> list[str]:
    return [error["field"] for error in response.json()["errors"]]


# Forms and JSON


@pytest.mark.parametrize("query", ["/classify?views=1", "/classify?views=10&per_view=true&top=2"])
def test_json_and_a_form_classify_alike(client: TestClient, query: str) -> None:
    form = send(client, query, PHOTO, OTHER).json()
    other = ask(client, query, {"image": text(PHOTO), "name": "0.jpg"}, {"image": text(OTHER), "name": "1.jpg"}).json()
    assert [result["name"] for result in other["results"]] == [result["name"] for result in form["results"]]

    def named(result: dict[str, Any]) -> list[Any]:
        views = [(v["corner"], v["mirrored"], v["classes"]) for v in result["views"] or ()]
        return [result["classes"], *(classes for *_, classes in views)]

    for one, two in zip(form["results"], other["results"], strict=True):
        for classes, same in zip(named(one), named(two), strict=True):
            assert [c["class"] for c in classes] == [c["class"] for c in same]
            np.testing.assert_allclose([c["probability"] for c in classes], [c["probability"] for c in same], rtol=1e-5)


@pytest.mark.parametrize("query", ["k=24", "k=5&mode=code", "k=24&mode=two-stage&label=red", "mode=ball&radius=128"])
def test_json_and_a_form_find_the_same_neighbours(client: TestClient, query: str) -> None:
    form = send(client, f"/neighbors?{query}", PHOTO, OTHER).json()
    other = ask(client, f"/neighbors?{query}", {"image": text(PHOTO)}, {"image": text(OTHER)}).json()
    assert {**form, "results": None} == {**other, "results": None}
    for one, two in zip(form["results"], other["results"], strict=True):
        (ids, distances), (same_ids, same_distances) = hits(one), hits(two)
        assert ids == same_ids
        np.testing.assert_allclose(distances, same_distances, rtol=1e-5)


def test_an_id_is_the_same_in_json_and_in_the_query(client: TestClient) -> None:
    assert ask(client, "/neighbors?k=24", {"id": 7}).json() == client.post("/neighbors?k=24&id=7").json()


def test_a_vector_is_compared_with_every_item(client: TestClient, store: Store) -> None:
    rng = np.random.default_rng(1)
    vector_D = rng.uniform(0, 3, WIDTH).astype(np.float32)
    stored_ND = store.vectors(store.ids().tolist()).astype(np.float64)
    distances = np.sqrt(np.square(stored_ND - vector_D).sum(1))
    [result] = ask(client, "/neighbors?k=24", {"vector": vector_D.tolist()}).json()["results"]
    ids, found = hits(result)
    assert ids == np.argsort(distances, kind="stable").tolist()
    np.testing.assert_allclose(found, np.sort(distances), rtol=1e-6)
    [own] = ask(client, "/neighbors?k=24", {"vector": store.vectors([5])[0].tolist()}).json()["results"]
    assert hits(own) == hits(ask(client, "/neighbors?k=24", {"id": 5}).json()["results"][0])
    assert own["neighbors"][0]["distance"] == 0


def test_a_mixture_is_answered_in_the_order_sent_with_names_and_errors_in_place(client: TestClient) -> None:
    zeros = [0.0] * WIDTH
    inputs: list[tuple[dict[str, Any], str, int | None]] = [
        ({"id": 3}, "3", None),
        ({"image": text(PHOTO), "name": "mine"}, "mine", None),
        ({"vector": zeros}, "input 2", None),
        ({"image": text(b"no picture")}, "input 3", 415),
        ({"id": 24, "name": "gone"}, "gone", 404),
        ({"image": text(OTHER)}, "input 5", None),
        ({"image": "*"}, "input 6", 422),
        ({"id": 3, "name": "again"}, "again", None),
    ]
    response = ask(client, "/neighbors?k=4", *(sent for sent, _, _ in inputs))
    assert response.status_code == 200
    results = response.json()["results"]
    assert [result["name"] for result in results] == [name for _, name, _ in inputs]
    assert [result["error"] and result["error"]["status"] for result in results] == [status for _, _, status in inputs]
    for result, (sent, _, status) in zip(results, inputs, strict=True):
        if status:
            assert (result["neighbors"], result["next"]) == (None, None)
        else:
            [alone] = ask(client, "/neighbors?k=4", sent).json()["results"]
            assert hits(result)[0] == hits(alone)[0]
            np.testing.assert_allclose(hits(result)[1], hits(alone)[1], rtol=1e-5, atol=1e-6)


def body_of(*values: str, width: int = WIDTH) -> str:
    numbers = [*values, *["0"] * (width - len(values))]
    return '{"vector": [' + ",".join(numbers) + "]}"


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (json.dumps({"image": "*"}), 422, ["inputs.{position}.image", "base64", "'*'"]),
        (json.dumps({"image": "ü"}), 422, ["inputs.{position}.image", "base64"]),
        (json.dumps({"image": text(PHOTO)[:-1]}), 422, ["inputs.{position}.image", "base64"]),
        (json.dumps({"image": text(PHOTO) + "\n"}), 422, ["inputs.{position}.image", "base64"]),
        (json.dumps({"image": "data:image/jpeg;base64," + text(PHOTO)}), 422, ["inputs.{position}.image", "base64"]),
        (json.dumps({"image": ""}), 415, ["0 bytes"]),
        (json.dumps({"image": text(b"no picture")}), 415, ["JPEG, PNG"]),
        (json.dumps({"image": text(PHOTO[:500])}), 422, ["truncated"]),
        (json.dumps({"id": 24}), 404, ["24"]),
        (json.dumps({"id": 2**63 - 1}), 404, [str(2**63 - 1)]),
        (body_of(width=WIDTH - 1), 422, ["vector", "32", "31"]),
        (body_of(width=WIDTH + 1), 422, ["vector", "32", "33"]),
        ('{"vector": []}', 422, ["vector", "32", "0"]),
        (body_of("NaN"), 422, ["vector", "nan"]),
        (body_of("0", "Infinity"), 422, ["vector", "inf"]),
        (body_of("0", "-Infinity"), 422, ["vector", "-inf"]),
        (body_of("1e39"), 422, ["vector", "1e+39"]),
        (body_of("1" + "0" * 400), 422, ["vector", "inf"]),
        (body_of("-1e7"), 422, ["vector", "-1"]),
        ("{}", 422, ["inputs.{position}", "one of image, id, vector and like", "none of them"]),
        ('{"name": "x"}', 422, ["inputs.{position}", "none of them"]),
        ('{"id": 1, "image": "AAAA"}', 422, ["inputs.{position}", "image and id"]),
        ('{"id": 1, "vector": [1]}', 422, ["inputs.{position}", "id and vector"]),
    ],
)
def test_what_is_wrong_with_one_input_is_its_own_error_and_alone_the_answers(
    client: TestClient, sent: str, status: int, words: list[str]
) -> None:
    alone = raw(client, b'{"inputs": [' + sent.encode() + b"]}")
    assert_problem(alone, status, *(word.format(position=0) for word in words))
    response = raw(client, b'{"inputs": [{"id": 1}, ' + sent.encode() + b"]}")
    assert response.status_code == 200, response.text
    good, bad = response.json()["results"]
    assert (good["error"], good["neighbors"][0]["id"]) == (None, 1)
    assert (bad["error"]["status"], bad["neighbors"]) == (status, None)
    for word in words:
        assert word.format(position=1) in bad["error"]["detail"]
    assert {**bad["error"], "detail": "", "errors": []} == {**alone.json(), "detail": "", "errors": []}


def test_ids_and_vectors_are_not_classified(client: TestClient) -> None:
    for sent in ({"id": 1}, {"vector": [0.0] * WIDTH}):
        assert_problem(ask(client, "/classify", sent), 422, "image must be a photograph", "/neighbors")
    results = ask(client, "/classify", {"id": 1}, {"image": text(PHOTO)}, {"vector": [0.0] * WIDTH}).json()["results"]
    assert [result["error"] and result["error"]["status"] for result in results] == [422, None, 422]


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (b"", "image", "image"),  # a request without a body
        (b"{", "body", "JSON"),
        (b"x", "body", "JSON"),
        (b"\xff\xfe", "body", "JSON"),
        ('{"inputs": [{"id": 1}]}'.encode("utf-16"), "body", "JSON"),
        (b'{"inputs": [{"id": 1}]} {}', "body", "JSON"),
        (b'{"inputs": [{"name": "\\ud800", "id": 1}]}', "body", "JSON"),
        (b'{"inputs": [{"id": 1' + b"0" * 5000 + b"}]}", "body", "JSON"),
        (b"[" * 100_000, "body", "JSON"),
        (b"null", "body", "an object"),
        (b"[]", "body", "an object"),
        (b"{}", "inputs", "missing"),
        (b'{"inputs": null}', "inputs", "array"),
        (b'{"inputs": {}}', "inputs", "array"),
        (b'{"inputs": []}', "inputs", "at least 1"),
        (b'{"inputs": [7]}', "inputs.0", "an object"),
        (b'{"inputs": [{"id": 1}, null]}', "inputs.1", "an object"),
        (b'{"inputs": [{"id": 1}], "k": 3}', "k", "left out"),
        (b'{"inputs": [{"id": 1}, {"id": 1, "k": 3}]}', "inputs.1.k", "left out"),
        (b'{"inputs": [{"id": "1"}]}', "inputs.0.id", "integer"),
        (b'{"inputs": [{"id": true}]}', "inputs.0.id", "integer"),
        (b'{"inputs": [{"id": 1.5}]}', "inputs.0.id", "integer"),
        (b'{"inputs": [{"id": -1}]}', "inputs.0.id", "0"),
        (b'{"inputs": [{"id": 9223372036854775808}]}', "inputs.0.id", "9223372036854775807"),
        (b'{"inputs": [{"image": 5}]}', "inputs.0.image", "string"),
        (b'{"inputs": [{"id": 1, "name": 5}]}', "inputs.0.name", "string"),
        (b'{"inputs": [{"id": 1, "name": "' + b"x" * 1001 + b'"}]}', "inputs.0.name", "1000"),
        (b'{"inputs": [{"vector": 5}]}', "inputs.0.vector", "array"),
        (b'{"inputs": [{"vector": [1, "2"]}]}', "inputs.0.vector.1", "number"),
        (b'{"inputs": [{"vector": [[1]]}]}', "inputs.0.vector.0", "number"),
        (b'{"inputs": [' + b'{"id": 1},' * MAX_IMAGES + b'{"id": 1}]}', "inputs", f"at most {MAX_IMAGES}"),
    ],
)
def test_wrong_json_is_refused_by_the_name_of_the_field(client: TestClient, body: bytes, field: str, words: str) -> None:
    response = raw(client, body)
    assert_problem(response, 422, words)
    assert fields(response) == [field]
    assert len(response.content) < 10_000


@pytest.mark.parametrize(
    "bomb",
    [
        b'{"inputs": [{"vector": [' + b"0," * 5_000_000 + b"0]}]}",
        b'{"inputs": [' + b"{}," * 3_000_000 + b"{}]}",
        b'{"inputs": [' + b"[]," * 3_000_000 + b"[]]}",
        b'{"inputs": [{' + b'"":0,' * 2_000_000 + b'"":0}]}',
        b"[" * 10_000_000,
    ],
    ids=["numbers", "objects", "lists", "fields", "depth"],
)
def test_json_of_millions_of_values_is_refused_before_it_is_parsed(client: TestClient, bomb: bytes) -> None:
    tracemalloc.start()
    try:
        assert_problem(raw(client, bomb), 422, "body", "values", str(MAX_IMAGES * 5000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(bomb)  # parsed, it would take far more


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [' + b"1," * 30_000 + b"1]}",
        b'{"inputs": [{"vector": [' + b'"x",' * 30_000 + b'"x"]}]}',
        b'{"inputs": [{' + b",".join(b'"%d": 1' % i for i in range(30_000)) + b"}]}",
        b'{"inputs": [{"' + b"x" * 500_000 + b'": 1}]}',
        b'{"inputs": [{"image": "' + b"*" * 500_000 + b'"}]}',
        b'{"inputs": ' + b"\0" * 500_000,
    ],
    ids=["inputs", "numbers", "fields", "a field's name", "no base64", "no JSON"],
)
def test_what_was_wrong_is_not_sent_back_at_length(client: TestClient, body: bytes) -> None:
    response = raw(client, body)
    assert_problem(response, 422)
    assert len(response.content) < 10_000


@pytest.mark.parametrize(
    "wrong",
    [
        b"0",
        b'{"id": "x"}',
        b'{"vector": [%s]}' % b",".join([b'"x"'] * 3000),
        b'{"id": 1, %s}' % b",".join(b'"%d": 0' % i for i in range(3000)),
        b'{"id": {%s}}' % b",".join(b'"%d": 0' % i for i in range(3000)),
    ],
    ids=["numbers", "ids", "vectors", "fields", "objects"],
)
def test_wrong_inputs_are_counted_before_they_are_checked_and_ten_errors_are_enough(client: TestClient, wrong: bytes) -> None:
    number = 15_000 if len(wrong) < 20 else 9
    response = raw(client, b'{"inputs": [%s]}' % b",".join([wrong] * number))
    assert_problem(response, 422, f"at most {MAX_IMAGES}", str(number))
    assert fields(response) == ["inputs"]
    response = raw(client, b'{"inputs": [%s]}' % b",".join([wrong] * MAX_IMAGES))
    assert response.status_code == 422
    assert len(fields(response)) == (10 if b'"id": 1' in wrong else MAX_IMAGES)
    assert len(response.content) < 10_000


def test_the_number_of_inputs_is_limited_in_forms_and_in_json(client: TestClient) -> None:
    assert len(ask(client, "/neighbors?k=1", *[{"id": 1}] * MAX_IMAGES).json()["results"]) == MAX_IMAGES
    assert_problem(ask(client, "/classify", *[{"image": text(PHOTO)}] * (MAX_IMAGES + 1)), 422, f"at most {MAX_IMAGES}", "9")
    assert_problem(send(client, "/neighbors", *[PHOTO] * (MAX_IMAGES + 1)), 422, f"at most {MAX_IMAGES}", "9")
    assert_problem(send(client, "/neighbors", *[b"x"] * 2000), 422)


@pytest.mark.parametrize("name", ["a.jpg", "ü 😀.png", "a\tb\u2028", "<script>", "x" * 1000, "../../etc/passwd", "a;b=c, \\"])
def test_names_come_back_as_they_were_given(client: TestClient, name: str) -> None:
    body = ask(client, "/classify", {"image": text(PHOTO), "name": name}, {"image": text(b"?"), "name": name}).json()
    assert [result["name"] for result in body["results"]] == [name, name]
    assert ask(client, "/neighbors?k=1", {"id": 1, "name": name}).json()["results"][0]["name"] == name
    assert ask(client, "/neighbors?k=1", {"id": 1, "name": ""}).json()["results"][0]["name"] == "1"


# Bodies that are not what they should be


@pytest.mark.parametrize("path", ["/classify", "/neighbors", "/items"])
@pytest.mark.parametrize(
    "kind", ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", "multipart/mixed; boundary=b", "x"]
)
def test_a_body_of_another_kind_is_told_what_to_send(model: Path, index: Path, client: TestClient, path: str, kind: str) -> None:
    if path == "/items":
        with TestClient(create_app(ServiceSettings(model=model, index=index, api_key="k"))) as keyed:
            response = keyed.post(path, content=PHOTO, headers={"content-type": kind, "X-API-Key": "k"})
    else:
        response = raw(client, PHOTO, {"content-type": kind}, path)
        assert "application/json" in response.json()["detail"]
    assert_problem(response, 415, kind.split(";")[0], "multipart/form-data", "image")


def test_a_body_of_no_stated_kind_is_told_what_to_send(client: TestClient) -> None:
    assert_problem(client.post("/classify", content=PHOTO), 415, "of no stated type", "multipart/form-data", "application/json")


@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP", "gzip, identity", "x" * 5000])
def test_a_body_that_is_compressed_as_a_whole_is_told_so(client: TestClient, coding: str) -> None:
    for kind in (JSON, FORM):
        response = raw(client, gzip.compress(b'{"inputs": [{"id": 1}]}'), {**kind, "content-encoding": coding})
        assert_problem(response, 415, "Content-Encoding", coding[:4], "without")
        assert len(response.content) < 500
    assert raw(client, b'{"inputs": [{"id": 1}]}', {**JSON, "content-encoding": "Identity"}).status_code == 200


def test_json_may_begin_with_a_byte_order_mark(client: TestClient) -> None:
    """As Windows writes it."""
    body = '{"inputs": [{"id": 1}]}'
    assert raw(client, body.encode("utf-8-sig")).json() == raw(client, body.encode()).json()
    response = raw(client, 2 * codecs.BOM_UTF8 + body.encode())
    assert_problem(response, 422, "body", "JSON")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("Application/JSON", 200),
        ("application/json; charset=utf-8", 200),
        ("application/json;charset=x", 200),
        ("text/json", 415),
    ],
)
def test_a_media_type_is_read_without_its_parameters(client: TestClient, kind: str, status: int) -> None:
    assert raw(client, b'{"inputs": [{"id": 1}]}', {"content-type": kind}).status_code == status


def test_form_fields_that_are_not_photographs_are_named(client: TestClient) -> None:
    def sent(*parts: bytes) -> Response:
        return raw(client, b"".join(parts) + b"--b--\r\n", FORM, "/classify")

    assert sent(part(PHOTO)).status_code == 200
    for response, field, words in (
        (sent(part(b"5", 'name="views"'), part(PHOTO)), "views", "in the query string"),
        (sent(part(PHOTO), part(b"red", 'name="label"')), "label", "in the query string"),
        (sent(part(PHOTO, 'name="file"; filename="a.jpg"')), "image", "'file'"),
        (sent(part(PHOTO), part(PHOTO, 'name="images"; filename="a.jpg"')), "image", "'images'"),
        (sent(part(b"y" * 500_000, 'name="x"')), "x", "in the query string"),
        (sent(part(b"y", f'name="{"x" * 3000}"')), "x" * 100 + "...", "x"),
    ):
        assert_problem(response, 422, words)
        assert fields(response) == [field]
        assert len(response.content) < 10_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        b"--b\r\n",
        b"--b--",
        part(PHOTO),
        part(PHOTO) + part(PHOTO),
        part(PHOTO) + part(PHOTO)[:-100],
        part(PHOTO) + b"--b",
        part(PHOTO) + b"--b\r\n",
        part(PHOTO).replace(b"--b", b"--c") + b"--c--",
        b"junk\r\n" + part(PHOTO) + b"--b--",
        part(PHOTO).replace(b"\r\n", b"\n") + b"--b--",
        b"--b\r\n\r\n" + PHOTO + b"\r\n--b--",
        b"--b\r\nContent-Disposition: form-data\r\n\r\n" + PHOTO + b"\r\n--b--",
        b"--b\r\nno colon\r\n\r\n" + PHOTO + b"\r\n--b--",
        b"--b\r\nX: " + b"y" * 100_000 + b"\r\n\r\n\r\n--b--",
        b"--b\r\n" + b"X: y\r\n" * 5000 + b"\r\n\r\n--b--",
        part(b"", 'name="x"') * 2000 + b"--b--",
        part(b"y" * 2_000_000, 'name="x"') + b"--b--",
    ],
)
def test_a_form_that_is_not_well_made_is_refused_as_a_whole(client: TestClient, body: bytes) -> None:
    """A part that was cut off is not left out without a word: the photographs before it would pass for all that was sent."""
    assert_problem(raw(client, body, FORM, "/classify"), 422)


@pytest.mark.parametrize("parameters", ["", "; boundary=", '; boundary=""', "; boundary=" + "x" * 300, '; boundary="b', "; a=b"])
def test_a_boundary_that_is_none_is_refused(client: TestClient, parameters: str) -> None:
    headers = {"content-type": "multipart/form-data" + parameters}
    assert_problem(raw(client, part(PHOTO) + b"--b--\r\n", headers, "/classify"), 422, "form")


@pytest.mark.parametrize("boundary", ["'()+_,-./:=?", "b" * 200, "-", "x--x", "a b"])
def test_any_boundary_that_is_one_is_taken(client: TestClient, boundary: str) -> None:
    body = (part(PHOTO) + b"--b--\r\n").replace(b"--b", b"--" + boundary.encode())
    assert raw(client, body, {"content-type": f'multipart/form-data; boundary="{boundary}"'}, "/classify").status_code == 200


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "punycode", "idna", "undefined", "utf-16", "hex", "nonsense"])
def test_a_forms_charset_does_nothing(client: TestClient, charset: str) -> None:
    """It would name any codec of Python's, some of which make what cannot be sent back, or fail in ways of their own."""
    body = part(PHOTO, 'name="image"; filename="+2AA- \\ud800 ü"') + b"--b--\r\n"
    for parameters in (f"boundary=b; charset={charset}", f'charset={charset}; boundary=b; x="'):
        response = raw(client, body, {"content-type": f"multipart/form-data; {parameters}"}, "/classify")
        assert response.status_code == 200, response.text
        assert response.json()["results"][0]["name"] == "+2AA- \\ud800 ü"


# Views and timings


@pytest.fixture(scope="module")
def loaded(model: Path) -> Model:
    return checkpoint.load(model)


def view_by_hand(loaded: Model, pixels_CHW: Tensor, top: int, left: int, mirrored: bool) -> list[float]:
    """The classes' probabilities of one crop, cut out with NumPy."""
    size = loaded.net.config.input_size
    x_CHW = pixels_CHW.numpy().astype(np.float32) - loaded.mean_CHW.numpy()
    x_CHW = x_CHW[:, top : top + size, left : left + size]
    x_CHW = x_CHW[:, :, ::-1] if mirrored else x_CHW
    with torch.inference_mode():
        logits = loaded.net(torch.from_numpy(x_CHW.copy())[None])[0].double().numpy()
    chances = np.exp(logits - logits.max())
    return [float(chance) for chance in chances / chances.sum()]


def test_each_of_ten_views_is_its_crop_and_their_mean_is_the_answer(client: TestClient, loaded: Model) -> None:
    rng = np.random.default_rng(3)
    photo = encoded(photograph(3, size=(256, 256)), "PNG")
    noisy = encoded(photograph(int(rng.integers(100)), size=(300, 400)), "PNG")
    results = send(client, "/classify?views=10&per_view=true&top=3", photo, noisy).json()["results"]
    end = 256 - loaded.net.config.input_size
    corners = {
        "top left": (0, 0),
        "top right": (0, end),
        "bottom left": (end, 0),
        "bottom right": (end, end),
        "centre": (end // 2, end // 2),
    }
    order = [(corner, mirrored) for corner in corners for mirrored in (False, True)]
    for data, result in zip((photo, noisy), results, strict=True):
        pixels_CHW = decode(data, ImageLimits()).pixels_CHW
        assert [(view["corner"], view["mirrored"]) for view in result["views"]] == order
        by_class = []
        for view, (corner, mirrored) in zip(result["views"], order, strict=True):
            expected = dict(zip(loaded.classes, view_by_hand(loaded, pixels_CHW, *corners[corner], mirrored), strict=True))
            assert [c["class"] for c in view["classes"]] == sorted(expected, key=lambda name: -expected[name])
            for c in view["classes"]:
                assert c["probability"] == pytest.approx(expected[c["class"]], rel=1e-4)
            by_class.append({c["class"]: c["probability"] for c in view["classes"]})
        mean = {name: np.mean([view[name] for view in by_class]) for name in loaded.classes}
        averaged = loaded.probabilities(pixels_CHW[None], 10)[0].tolist()
        for c in result["classes"]:
            assert c["probability"] == pytest.approx(mean[c["class"]], rel=1e-5)
            assert c["probability"] == pytest.approx(averaged[loaded.classes.index(c["class"])], rel=1e-4)
        assert sum(c["probability"] for c in result["classes"]) == pytest.approx(1, rel=1e-5)


def test_views_are_shown_only_where_they_were_asked_for(client: TestClient) -> None:
    assert send(client, "/classify?views=10", PHOTO).json()["results"][0]["views"] is None
    good, bad = send(client, "/classify?views=10&per_view=true&top=1", PHOTO, b"?").json()["results"]
    assert [len(view["classes"]) for view in good["views"]] == [1] * 10
    assert (bad["views"], bad["error"]["status"]) == (None, 415)
    for query in ("per_view=true", "per_view=true&views=1"):
        response = send(client, f"/classify?{query}", PHOTO)
        assert_problem(response, 422, "per_view", "views=10")
        assert fields(response) == ["per_view"]
    assert send(client, "/classify?per_view=false&views=1", PHOTO).status_code == 200


@pytest.mark.parametrize(
    ("path", "sent", "stages"),
    [
        ("/classify", {"image": text(PHOTO)}, {"queue", "decode", "forward"}),
        ("/classify?views=10", {"image": text(PHOTO)}, {"queue", "decode", "forward"}),
        ("/neighbors", {"image": text(PHOTO)}, {"queue", "decode", "forward", "search"}),
        ("/neighbors", {"id": 1}, {"queue", "search"}),
        ("/neighbors", {"vector": [0.0] * WIDTH}, {"queue", "search"}),
    ],
)
def test_timings_are_of_the_stages_that_took_part(client: TestClient, path: str, sent: object, stages: set[str]) -> None:
    joined = path + ("&" if "?" in path else "?")
    timings = ask(client, f"{joined}timings=true", sent, sent).json()["timings_ms"]
    assert {stage for stage, value in timings.items() if value is not None} == stages
    assert set(timings) == {"queue", "decode", "forward", "search"}
    assert all(value >= 0 for value in timings.values() if value is not None)
    for query in ("", "timings=false"):
        assert ask(client, f"{joined}{query}", sent).json()["timings_ms"] is None


# Pages of uploads, whose features' last bits depend on what else is in the batch


def with_comment(number: int, seed: int = 77, colour: str = "red") -> bytes:
    """A file like PHOTO in every pixel and like no other in its bytes."""
    return encoded(photograph(seed, COLOURS[colour]), comment=f"copy {number}")


@pytest.fixture(scope="module")
def copies(model: Path, index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service whose index has 24 items and five copies of each of two photographs, added one by one and so with one feature.

    Every pass of the network gives features that are off by as much as float32 sums in another order may be.
    """
    rng, honest = np.random.default_rng(5), engine.predict

    def perturbed(model: Model, asked: list[engine.NetworkQuery]) -> list[engine.Prediction]:
        seen = honest(model, asked)
        factors = [rng.uniform(1 - 3e-7, 1 + 3e-7, one.feature_D.shape).astype(np.float32) for one in seen]
        return [replace(one, feature_D=one.feature_D * factor_D) for one, factor_D in zip(seen, factors, strict=True)]

    growing = shutil.copytree(index, tmp_path_factory.mktemp("copies") / "index", symlinks=True)
    settings = ServiceSettings(model=model, index=growing, api_key="k", max_wait_ms=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "predict", perturbed)
        with TestClient(create_app(settings), raise_server_exceptions=False) as client:
            for number in range(5):
                for seed, colour in ((77, "red"), (78, "blue")):
                    data = with_comment(number, seed, colour)
                    response = client.post("/items", files=[("image", ("a", data))], headers={"X-API-Key": "k"})
                    assert response.json()["results"][0]["known"] is False
            yield client


def pages(client: TestClient, photo: bytes, k: int, query: str = "") -> list[int]:
    """The ids on all pages of an upload's neighbours."""
    found: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        path = f"/neighbors?k={k}{query}" + (f"&cursor={cursor}" if cursor else "")
        response = send(client, path, photo)
        assert response.status_code == 200, response.text
        [result] = response.json()["results"]
        assert len(result["neighbors"]) == k or result["next"] is None
        found += hits(result)[0]
        cursor = result["next"]
    return found


@pytest.mark.parametrize("query", ["", "&mode=two-stage", "&label=red"])
def test_pages_of_uploads_have_no_gap_and_no_repeat_when_last_bits_differ(copies: TestClient, query: str) -> None:
    photos = [encoded(photograph(seed, COLOURS["green"])) for seed in (301, 302)]
    jobs = [(photo, k) for photo in photos for k in (1, 3, 7)]
    whole = {photo: pages(copies, photo, 50, query) for photo in photos}
    with ThreadPoolExecutor(6) as pool:
        company = [pool.submit(send, copies, "/classify?views=10", PHOTO, OTHER) for _ in range(10)]
        found = list(pool.map(lambda job: pages(copies, job[0], job[1], query), jobs))
    assert all(answer.result().status_code == 200 for answer in company)
    for (photo, _), ids in zip(jobs, found, strict=True):
        assert ids == whole[photo]


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_photographs_of_the_same_feature_are_paged_in_order_of_id(copies: TestClient, k: int) -> None:
    """Also where the page ends between them, and where the upload is one of them."""
    for photo in (PHOTO, encoded(photograph(301, COLOURS["green"]))):
        ids = pages(copies, photo, k)
        assert sorted(ids) == list(range(34))
        for same in (range(24, 34, 2), range(25, 34, 2)):
            positions = [ids.index(item) for item in same]
            assert positions == list(range(positions[0], positions[0] + 5))


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_no_copy_of_the_upload_is_lost_between_pages_where_last_bits_differ(
    model: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, k: int
) -> None:
    """Copies that were added in batches of other sizes are at distances from the upload that are nothing but rounding."""
    honest, passes = engine.predict, 0

    def in_company(model: Model, asked: list[engine.NetworkQuery]) -> list[engine.Prediction]:
        nonlocal passes
        passes += 1
        return honest(model, asked + [asked[0]] * (0 if passes % 2 else 2))[: len(asked)]

    monkeypatch.setattr(engine, "predict", in_company)
    growing = shutil.copytree(index, tmp_path / "index", symlinks=True)
    with TestClient(create_app(ServiceSettings(model=model, index=growing, api_key="k"))) as client:
        for numbers in ([0], [1, 2, 3]):
            files = [("image", ("a", with_comment(number))) for number in numbers]
            assert client.post("/items", files=files, headers={"X-API-Key": "k"}).status_code == 200
        assert sorted(pages(client, PHOTO, k)) == list(range(28))
