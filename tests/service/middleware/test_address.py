"""Where requests are addressed to: hosts that are this service's own, and a path that a proxy serves it below."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from service.app import create_app
from service.middleware.address import OwnHosts
from service.settings import ServiceSettings
from tests.service.asgi import Answer, exchange, unread
from tests.service.calls import PHOTO, assert_problem, send
from training.errors import BadValue

Serve = Callable[..., TestClient]
OWN = ("localhost", "127.0.0.1", "[::1]")
ANY = "0.0.0.0"  # noqa: S104
PORTS = ("", ":8000", ":1", ":")


@pytest.fixture
def serve(model: Path, index: Path) -> Iterator[Serve]:
    """Starts the service with these settings."""
    clients: list[TestClient] = []

    def started(base_url: str = "http://127.0.0.1:8000", **settings: Any) -> TestClient:
        app = create_app(ServiceSettings(model=model, index=index, **settings))
        client = TestClient(app, base_url=base_url, raise_server_exceptions=False)
        clients.append(client)
        return client.__enter__()

    yield started
    for client in clients:
        client.__exit__()


def status(client: TestClient, host: str, path: str = "/info") -> int:
    return int(client.get(path, headers={"Host": host}).status_code)


# Hosts


@pytest.mark.parametrize(
    "path", ["/", "/info", "/items/0", "/items/0/image", "/web/main.js", "/docs", "/nowhere", "/healthz", "/readyz"]
)
def test_on_a_loopback_address_no_name_of_another_site_is_answered(serve: Serve, path: str) -> None:
    client = serve()
    for host in (
        "attacker.example",
        "attacker.example:8000",
        "localhost.attacker.example",
        "127.0.0.1.attacker.example",
        "10.0.0.1",
    ):
        body = assert_problem(client.get(path, headers={"Host": host}), 421, "Host", "FC7_ALLOWED_HOSTS")
        assert body["title"] == "Misdirected Request"
    for host in OWN:
        assert status(client, host, path) in (200, 404), host


@pytest.mark.parametrize("listening", ["127.0.0.1", "127.0.0.5", "::1", "localhost", "::ffff:127.0.0.1", "LOCALHOST"])
def test_on_a_loopback_address_its_names_and_numbers_are_with_any_port(serve: Serve, listening: str) -> None:
    client = serve(host=listening)
    for host in (*OWN, "LocalHost", "localhost.", f"[{listening}]" if ":" in listening else listening, "[0:0:0:0:0:0:0:1]"):
        for port in PORTS:
            assert status(client, host + port) == 200, host + port
    for host in ("example.org", "128.0.0.1", "[::2]", "localhostx", "ip6-localhost"):
        assert status(client, host) == 421, host


@pytest.mark.parametrize(
    "host", ["", "a b", "localhost:8000:1", "http://localhost", "localhost/", "user@localhost", "[::1", "localhost:x", "*", ","]
)
def test_a_host_that_is_none_is_a_bad_request(serve: Serve, host: str) -> None:
    for listening in ("127.0.0.1", ANY):
        response = serve(host=listening).get("/info", headers={"Host": host})
        assert_problem(response, 400, "Host")


def test_two_hosts_are_a_bad_request(serve: Serve) -> None:
    client = serve()
    assert client.portal
    answer: Answer = client.portal.call(exchange, client.app, "GET", "/info", [("host", "localhost"), ("host", "localhost")])
    assert answer.status == 400


@pytest.mark.parametrize("listening", ["127.0.0.1", ANY])
def test_no_host_is_a_bad_request_but_of_the_protocol_that_had_none(listening: str) -> None:
    async def inside(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def status_of(version: str) -> int:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "http_version": version, "headers": [], "server": ("127.0.0.1", 8000)}
        await OwnHosts(inside, ServiceSettings(host=listening))(scope, unread, send)
        return int(sent[0]["status"])

    assert [asyncio.run(status_of(version)) for version in ("1.0", "1.1")] == [200, 400]


def test_on_other_addresses_any_host_is_answered_and_the_log_says_so(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        client = serve(host=ANY)
    assert "allowed_hosts" in caplog.text
    for host in ("attacker.example", "localhost", "192.0.2.1:80", "[2001:db8::1]"):
        assert status(client, host) == 200
    caplog.clear()
    with caplog.at_level(logging.INFO):
        serve()
        serve(host=ANY, allowed_hosts=["fc7.example"])
    assert "allowed_hosts" not in caplog.text


def test_where_hosts_are_set_those_are_answered_and_the_number_that_was_connected_to(serve: Serve) -> None:
    client = serve("http://192.0.2.7:8000", host=ANY, allowed_hosts=["fc7.example.org", "2001:db8::1"])
    for host in (
        "fc7.example.org",
        "FC7.Example.ORG:443",
        "fc7.example.org.",
        "[2001:DB8:0::1]:80",
        "192.0.2.7",
        "192.0.2.7:8000",
    ):
        assert status(client, host) == 200, host
    for host in ("attacker.example", "x.fc7.example.org", "localhost", "192.0.2.8", "fc7.example.org.evil.example"):
        assert status(client, host) == 421, host
    local = serve(allowed_hosts=["fc7.example.org"])
    for host in ("fc7.example.org", *OWN):
        assert status(local, host) == 200, host
    assert status(local, "attacker.example") == 421


def test_a_change_for_another_host_is_refused_before_the_body_is_read(serve: Serve) -> None:
    client = serve(api_key="key")
    assert client.portal
    headers = [("host", "attacker.example"), ("x-api-key", "key"), ("content-length", "1000")]
    for method, path in (("POST", "/items"), ("DELETE", "/items/0"), ("POST", "/reload"), ("POST", "/classify")):
        assert client.portal.call(exchange, client.app, method, path, headers).status == 421


def test_other_than_http_passes_untouched() -> None:
    passed = []

    async def inside(scope: Scope, _receive: Receive, _send: Send) -> None:
        passed.append(scope)

    async def nothing(*_: object) -> Any:
        raise AssertionError

    asyncio.run(OwnHosts(inside, ServiceSettings())({"type": "lifespan"}, nothing, nothing))
    assert passed == [{"type": "lifespan"}]


@pytest.mark.parametrize(
    "path",
    [
        "/items/0/",
        "/docs/",
        "/web/main.js/",
        "/healthz/",
        "//attacker.example/",
        "//attacker.example/items/0",
        "/%2f%2fattacker.example",
    ],
)
def test_nothing_is_redirected_to_another_host(serve: Serve, path: str) -> None:
    for settings in ({}, {"root_path": "/fc7"}):
        response = serve(host=ANY, **settings).request(
            "GET", f"http://127.0.0.1:8000{path}", headers={"Host": "attacker.example"}, follow_redirects=False
        )
        assert response.status_code == 404
        assert "location" not in response.headers


# Below a path


@pytest.mark.parametrize("strips", [True, False])
@pytest.mark.parametrize("root_path", ["/fc7", "/a/b"])
def test_below_a_path_everything_answers_as_without(serve: Serve, root_path: str, strips: bool) -> None:
    """Whether the proxy takes the path off itself or not."""
    client, plain = serve(root_path=root_path, api_key="key"), serve(api_key="key")
    before = "" if strips else root_path
    for path in ("/", "/docs", "/web/main.js", "/info", "/items/0/thumbnail", "/filters.png", "/healthz", "/readyz", "/metrics"):
        assert client.get(before + path).status_code == 200, path
        assert client.head(before + path).status_code == 200, path
    for path in ("/nowhere", f"{root_path}/items/0" if strips is False else "/fc8/items/0", "//items/0"):
        assert_problem(client.get(before + path), 404)
    for method, path in (("POST", "/items"), ("DELETE", "/items/0"), ("POST", "/reload")):
        assert client.request(method, before + path).status_code == 401, path
    one, other = client.get(f"{before}/items/0").json(), plain.get("/items/0").json()
    assert one == {**other, "image": f"{root_path}/items/0/image", "thumbnail": f"{root_path}/items/0/thumbnail"}
    found = client.post(f"{before}/neighbors?id=0&k=2").json()["results"][0]["neighbors"]
    assert [n["image"] for n in found] == [f"{root_path}/items/{n['id']}/image" for n in found]
    near = client.get(f"{before}/items/0/duplicates?max_distance=1e9").json()["neighbors"][0]
    assert client.get(near["thumbnail"]).status_code == 200
    assert send(client, f"{before}/classify", PHOTO).status_code == 200
    assert client.get(f"{before}/openapi.json").json()["servers"] == [{"url": root_path}]


def test_without_a_root_path_links_and_description_are_of_the_root(serve: Serve) -> None:
    client = serve()
    assert client.get("/items/0").json()["image"] == "/items/0/image"
    assert "servers" not in client.get("/openapi.json").json()
    assert_problem(client.get("/fc7/items/0"), 404)


def test_the_path_itself_leads_to_the_page(serve: Serve) -> None:
    response = serve(root_path="/fc7").get("/fc7", headers={"Host": "localhost"}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (308, "/fc7/")


@pytest.mark.parametrize("for_reads", [False, True])
def test_a_path_that_the_server_was_given_opens_nothing(serve: Serve, for_reads: bool) -> None:
    """As by `uvicorn --root-path`: the scope's path begins with it, and what needs the key needs it still."""
    client = serve(api_key="key", api_key_for_reads=for_reads)
    below = TestClient(client.app, base_url="http://127.0.0.1", root_path="/x", raise_server_exceptions=False)
    for method, path in (("POST", "/items"), ("DELETE", "/items/0"), ("POST", "/reload")):
        assert_problem(below.request(method, f"/x{path}"), 401)
    assert below.get("/x/items/0").status_code == (401 if for_reads else 200)
    assert below.get("/x/healthz").status_code == 200


@pytest.mark.parametrize("root_path", ["/items", "/web/x", "/docs", "/neighbors/a", "/openapi.json"])
def test_a_path_of_the_services_own_is_refused(root_path: str) -> None:
    with pytest.raises(BadValue, match="root_path must be another path than the service's own"):
        create_app(ServiceSettings(root_path=root_path))
