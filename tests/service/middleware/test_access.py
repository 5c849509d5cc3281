"""Who may ask what, with which key; what browsers of other sites may; and what no answer, log or figure ever gives away."""

import base64
import hmac
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from indexer.opening import open_store
from service import logs
from service.app import create_app
from service.engine import Engine
from service.middleware import access
from service.settings import ServiceSettings
from tests.service.asgi import Answer, exchange
from tests.service.calls import PHOTO, assert_problem, send

KEY = "schlüssel-9f3a"
BYTES = KEY.encode()
PAGE = "https://page.example"
OPEN = ("/healthz", "/readyz")
READS = (
    ("GET", "/"),
    ("GET", "/web/main.js"),
    ("GET", "/info"),
    ("GET", "/metrics"),
    ("GET", "/filters"),
    ("GET", "/filters.png"),
    ("GET", "/items/0"),
    ("GET", "/items/0/image"),
    ("GET", "/items/0/thumbnail"),
    ("GET", "/items/0/duplicates"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
    ("HEAD", "/info"),
    ("POST", "/classify"),
    ("POST", "/neighbors"),
    ("POST", "/invariance"),
    ("GET", "/reports/invariance"),
    ("GET", "/reports/calibration"),
    ("GET", "/reports/claims"),
    ("POST", "/compare"),
    ("POST", "/explain"),
    ("POST", "/occlusion"),
    ("POST", "/views"),
    ("POST", "/views.png"),
    ("POST", "/activations"),
    ("POST", "/activations.png"),
    ("GET", "/units"),
    ("GET", "/units/fc7/0/0/crops.jpg"),
    ("GET", "/map"),
    ("GET", "/map/points"),
    ("GET", "/labels"),
    ("GET", "/items"),
)
CHANGES = (("POST", "/items"), ("POST", "/reload"), ("DELETE", "/items/0"))
SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
}


def basic(password: bytes, user: bytes = b"anyone") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(user + b":" + password).decode()}


RIGHT: list[dict[str, Any]] = [
    {"Authorization": b"Bearer " + BYTES},
    {"Authorization": b"bearer  " + BYTES},
    {"X-API-Key": BYTES},
    {"X-API-Key": BYTES, "Authorization": b"Digest x"},
    {"Authorization": b"Bearer " + KEY.encode("latin-1")},
    {"X-API-Key": KEY.encode("latin-1")},
]
WRONG: list[dict[str, Any]] = [
    {},
    {"Authorization": b"Bearer"},
    {"Authorization": b"Bearer " + BYTES + b"x"},
    {"Authorization": b"Bearer " + BYTES[:-1]},
    {"Authorization": b"Bearer \xff"},
    {"Authorization": BYTES},
    {"Authorization": b"Basic " + BYTES},
    {"Authorization": b"Basic \xff\xff"},
    {"X-API-Key": b""},
    {"X-API-Key": BYTES.upper()},
    {"Cookie": b"X-API-Key=" + BYTES},
    basic(BYTES + b"x"),
    basic(b"", BYTES),
]


@pytest.fixture
def growing(index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index, tmp_path / "index", symlinks=True))


@pytest.fixture
def serve(model: Path, growing: Path) -> Iterator[Callable[..., TestClient]]:
    """Starts the service with these settings."""
    clients: list[TestClient] = []

    def started(**settings: Any) -> TestClient:
        app = create_app(ServiceSettings(model=model, index=growing, **settings))
        client = TestClient(app, raise_server_exceptions=False)
        clients.append(client)
        return client.__enter__()

    yield started
    for client in clients:
        client.__exit__()


Serve = Callable[..., TestClient]


def unread(client: TestClient, method: str, path: str, headers: dict[str, Any]) -> Answer:
    """The answer to a request that declares a large body and sends none of it, and fails where it is read."""
    sent = [(name, value.decode("latin-1") if isinstance(value, bytes) else value) for name, value in headers.items()]
    sent += [("content-type", "multipart/form-data; boundary=b"), ("content-length", "50000000")]
    assert client.portal
    answer: Answer = client.portal.call(exchange, client.app, method, path, sent)
    return answer


# Keys


@pytest.mark.parametrize("for_reads", [False, True])
def test_changes_take_the_key_and_it_is_asked_for_before_the_body_is_read(serve: Serve, growing: Path, for_reads: bool) -> None:
    client = serve(api_key=KEY, api_key_for_reads=for_reads)
    for method, path in CHANGES:
        for headers in [
            *WRONG,
            basic(BYTES),
            basic(KEY.encode("latin-1")),
        ]:  # a browser sends a password with other sites' forms too
            answer = unread(client, method, path, headers)
            assert answer.status == 401, (method, path, headers)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
            assert "X-API-Key" in json.loads(answer.body)["detail"]
            assert BYTES not in answer.body
    assert len(open_store(growing)) == 24
    assert not (growing / "uploads").exists()


def test_without_a_key_set_nobody_changes_anything_whatever_they_send(serve: Serve, growing: Path) -> None:
    client = serve()
    for method, path in CHANGES:
        for headers in [*RIGHT, *WRONG]:
            answer = unread(client, method, path, headers)
            assert answer.status == 403
            assert "FC7_API_KEY" in json.loads(answer.body)["detail"]
            assert "www-authenticate" not in answer.headers
    assert len(open_store(growing)) == 24
    for method, path in READS:
        response = client.request(method, path)
        assert response.status_code in (200, 404, 422), path


@pytest.mark.parametrize("headers", RIGHT)
def test_the_key_opens_every_change(serve: Serve, headers: dict[str, Any]) -> None:
    client = serve(api_key=KEY)
    added = client.post("/items", files=[("image", ("a.jpg", PHOTO))], headers=headers)
    assert added.json()["results"][0]["id"] == 24
    assert client.post("/reload", headers=headers).status_code == 200
    assert client.delete("/items/24", headers=headers).status_code == 204


@pytest.mark.parametrize("method", ["DELETE", "POST"])
@pytest.mark.parametrize("path", ["/items", "/items/", "/items//", "/Items", "/reload/", "/items/0/", "//items", "/./items"])
def test_no_other_spelling_of_a_path_changes_anything(serve: Serve, growing: Path, method: str, path: str) -> None:
    client = serve(api_key=KEY)
    body = {"files": [("image", ("a.jpg", PHOTO))]} if method == "POST" else {}
    response = client.request(method, path, follow_redirects=True, **body)  # type: ignore[arg-type]
    assert response.status_code in (401, 404, 405), response.text
    assert len(open_store(growing)) == 24


def test_keys_are_compared_in_constant_time_as_the_bytes_that_were_sent(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    class Watched:
        @staticmethod
        def compare_digest(one: bytes, two: bytes) -> bool:
            compared.append((one, two))
            return hmac.compare_digest(one, two)

    monkeypatch.setattr(access, "hmac", Watched)
    client = serve(api_key=KEY, api_key_for_reads=True)
    for headers, sent, status in (
        ({"X-API-Key": BYTES}, BYTES, 200),
        ({"Authorization": b"Bearer " + BYTES}, BYTES, 200),
        (basic(BYTES), BYTES, 200),
        ({"X-API-Key": b"\xff\xfe"}, b"\xff\xfe", 401),
        ({"X-API-Key": b"x" * 5000}, b"x" * 5000, 401),
    ):
        compared.clear()
        assert unread(client, "GET", "/info", headers).status == status
        assert compared == [(sent, BYTES), (sent, KEY.encode("latin-1"))]


def test_where_reads_take_the_key_only_health_and_readiness_do_not(serve: Serve) -> None:
    client = serve(api_key=KEY, api_key_for_reads=True)
    for path in OPEN:
        assert client.get(path).status_code == 200
        assert client.head(path).status_code == 200
    for method, path in READS:
        for headers in WRONG:
            answer = unread(client, method, path, headers)
            assert answer.status == 401, (path, headers)
            assert answer.headers["www-authenticate"].startswith("Bearer, Basic realm=")
        for headers in [*RIGHT, basic(BYTES), basic(KEY.encode("latin-1"))]:
            assert client.request(method, path, headers=headers).status_code in (200, 404, 422), (path, headers)
    for path in ("/healthz/", "/healthz/x", "/readyz/../info", "/HEALTHZ", "/favicon.ico"):
        assert unread(client, "GET", path, {}).status == 401


def test_the_description_says_which_operations_take_the_key(serve: Serve) -> None:
    paths = serve(api_key=KEY).get("/openapi.json").json()["paths"]
    taking = {(method.upper(), path) for path, methods in paths.items() for method in methods if "security" in methods[method]}
    assert taking == {("POST", "/items"), ("POST", "/reload"), ("DELETE", "/items/{id}")}
    for method, path in taking:
        assert {"401", "403"} <= set(paths[path][method.lower()]["responses"])


# Other sites


def preflight(client: TestClient, origin: str, method: str = "POST", path: str = "/items", names: str = "") -> Response:
    headers = {"Origin": origin, "Access-Control-Request-Method": method}
    response: Response = client.options(path, headers=headers | ({"Access-Control-Request-Headers": names} if names else {}))
    return response


def crossing(response: Response) -> set[str]:
    return {name for name in response.headers if name.startswith("access-control-")}


def test_without_the_setting_no_other_site_may_read(serve: Serve) -> None:
    client = serve(api_key=KEY)
    for origin in (PAGE, "null", "http://127.0.0.1:8000"):
        assert crossing(client.get("/info", headers={"Origin": origin})) == set()
        refused = preflight(client, origin)
        assert (refused.status_code, crossing(refused)) == (405, set())
    for path in ("/items/0/thumbnail", "/map/points", "/nowhere"):  # nor show it as a picture of its own
        assert client.get(path).headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("for_reads", [False, True])
def test_a_site_that_is_allowed_may_ask_everything_with_the_key(serve: Serve, for_reads: bool) -> None:
    client = serve(api_key=KEY, api_key_for_reads=for_reads, cors_origins=[PAGE, "http://127.0.0.1:3000"])
    for method in ("GET", "POST", "DELETE"):
        names = "authorization, content-type, x-api-key, x-request-id"
        allowed = preflight(client, PAGE, method, names=names)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert method in allowed.headers["access-control-allow-methods"]
        for name in names.split(", "):
            assert name in allowed.headers["access-control-allow-headers"].lower()
    key = {"X-API-Key": BYTES}
    for response in (
        client.get("/info", headers={"Origin": PAGE, **key}),
        client.get("/items/99", headers={"Origin": PAGE, **key}),
        client.delete("/items/0", headers={"Origin": PAGE}),
        client.post("/classify", content=b"x", headers={"Origin": PAGE, **key}),
    ):
        assert response.headers["access-control-allow-origin"] == PAGE, response.status_code
        assert "X-Request-ID" in response.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in response.headers
        assert "cross-origin-resource-policy" not in response.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "http://page.example", PAGE + ".evil.example", "null", PAGE + ":444"])
def test_a_site_that_is_not_allowed_may_not(serve: Serve, origin: str) -> None:
    client = serve(api_key=KEY, cors_origins=[PAGE])
    assert "access-control-allow-origin" not in client.get("/info", headers={"Origin": origin}).headers
    refused = preflight(client, origin)
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


# What every answer has, and what none gives away


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("something odd about hunter2")

    monkeypatch.setattr(Engine, "mode", fail)


def answers(client: TestClient) -> dict[str, Response]:
    """One answer of every kind."""
    declared = {"content-type": "multipart/form-data; boundary=b", "content-length": "99999999999"}
    return {
        "page 200": client.get("/"),
        "script 200": client.get("/web/main.js"),
        "script 304": client.get("/web/main.js", headers={"If-None-Match": client.get("/web/main.js").headers["etag"]}),
        "json 200": client.get("/items/0"),
        "picture 200": client.get("/items/0/image"),
        "thumbnail 200": client.get("/items/0/thumbnail"),
        "filters 200": client.get("/filters.png"),
        "metrics 200": client.get("/metrics"),
        "classes 200": send(client, "/classify", PHOTO),
        "head 200": client.head("/items/0"),
        "missing 404": client.get("/items/99"),
        "nowhere 404": client.get("/nowhere"),
        "asset 404": client.get("/web/none.js"),
        "method 405": client.get("/classify"),
        "declared 413": client.post("/classify", content=b"", headers=declared),
        "kind 415": client.post("/classify", content=b"x"),
        "value 422": client.get("/items/x"),
        "key 401": client.delete("/items/0"),
        "failed 500": client.post("/neighbors?id=0"),
        "not ready 503": client.get("/readyz"),
    }


def test_every_answer_has_the_headers_that_keep_browsers_from_harm(
    serve: Serve, failing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = serve(api_key=KEY)
    stopping.app.state.gate.close()  # type: ignore[attr-defined]
    found = {**answers(serve(api_key=KEY)), "not ready 503": stopping.get("/items/0")}
    for kind, response in found.items():
        assert response.status_code == int(kind.split()[-1]), (kind, response.text)
        for name, value in SECURITY.items():
            assert response.headers[name] == value, kind
        assert "default-src 'self'" in response.headers["content-security-policy"], kind
        assert "unsafe" not in response.headers["content-security-policy"], kind
        assert response.headers["x-request-id"], kind
        assert "server" not in response.headers
        assert "x-powered-by" not in response.headers


@pytest.mark.parametrize("key", ["voilà", "ключ", "k€y", "Ã¼", "a b", "x" * 5000])
def test_a_key_in_any_script_is_taken_in_every_way_that_it_can_be_sent(serve: Serve, key: str) -> None:
    client = serve(api_key=key, api_key_for_reads=True)
    latin = all(character <= "\xff" for character in key)
    for sent in [key.encode(), *([key.encode("latin-1")] if latin else [])]:
        for headers in ({"Authorization": b"Bearer " + sent}, {"X-API-Key": sent}, basic(sent)):
            assert client.get("/info", headers=headers).status_code == 200, headers
    for wrong in (key.encode("latin-1", errors="replace") + b"?", key.encode("utf-16"), b"?" * len(key)):
        assert client.get("/info", headers={"X-API-Key": wrong}).status_code == 401


def test_a_refusal_of_another_site_is_a_problem(serve: Serve) -> None:
    client = serve(api_key=KEY, cors_origins=[PAGE])
    assert_problem(preflight(client, "https://evil.example"), 400, "origin")
    assert_problem(preflight(client, PAGE, names="x-odd"), 400, "headers")
    assert_problem(preflight(client, PAGE, method="BREW"), 400, "method")


def test_an_error_inside_is_logged_and_not_shown(serve: Serve, failing: None, caplog: pytest.LogCaptureFixture) -> None:
    response = serve().post("/neighbors?id=0")
    body = assert_problem(response, 500)
    assert set(body) == {"type", "title", "status", "detail"}
    for word in ("hunter2", "RuntimeError", "odd", ".py"):
        assert word not in response.text
    [record] = [record for record in caplog.records if record.exc_info]
    assert "hunter2" in str(record.exc_info)


@pytest.mark.parametrize("for_reads", [False, True])
def test_no_answer_figure_or_log_line_shows_a_key(serve: Serve, caplog: pytest.LogCaptureFixture, for_reads: bool) -> None:
    wrong = "falsch-77c1"
    with caplog.at_level(logging.DEBUG):
        client = serve(api_key=KEY, api_key_for_reads=for_reads)
        texts = []
        for key in (KEY, wrong):
            for headers in (
                {"X-API-Key": key.encode()},
                {"Authorization": b"Bearer " + key.encode()},
                basic(key.encode()),
            ):
                for method, path in [*READS, *CHANGES, ("GET", "/readyz")]:
                    texts.append(client.request(method, path, headers=headers).text)
        texts += [repr(client.app.state.settings), str(client.app.state.settings)]  # type: ignore[attr-defined]
    assert caplog.records
    lines = logs._Lines()
    texts += [lines.format(record) for record in caplog.records if record.name.startswith("fc7")]
    shown = "\n".join(texts)
    for key in (KEY, wrong):
        for hidden in (key, key.encode().decode("latin-1"), json.dumps(key)[1:-1], basic(key.encode())["Authorization"][6:]):
            assert hidden not in shown
    info = client.get("/info", headers={"X-API-Key": BYTES}).json()
    assert "api_key" not in info["settings"]


def test_refusals_are_counted(serve: Serve) -> None:
    client = serve(api_key=KEY)
    for _ in range(3):
        client.delete("/items/0")
    assert 'fc7_rejects_total{reason="key"} 3.0' in client.get("/metrics").text


def test_every_operation_that_is_described_with_the_key_needs_it_and_no_other(serve: Serve) -> None:
    paths = serve(api_key=KEY).get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            scope = {"method": method.upper(), "path": path.replace("{id}", "1")}
            assert access.is_change(scope) == ("security" in operation), f"{method} {path}"
