"""Hostile requests one after the other: every answer is a result or a problem, never a 500, and afterwards all is as it was."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from service.app import create_app
from service.settings import ServiceSettings
from tests.conftest import SEED
from tests.service import mutations
from tests.service.calls import PHOTO, assert_problem, send

# a form that ends early: Starlette leaves its files to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning")
REQUESTS = 50  # a test
ALLOWED = {200, 400, 401, 403, 404, 405, 406, 408, 411, 413, 415, 422, 429, 431, 503}


@pytest.fixture(scope="module")
def client(model: Path, index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    growing = Path(shutil.copytree(index, tmp_path_factory.mktemp("fuzzed") / "index", symlinks=True))
    settings = ServiceSettings(model=model, index=growing, api_key=mutations.KEY, max_images=8, max_neighbors=50)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def check(client: TestClient, raw: mutations.RawRequest, response: Response) -> None:
    """The answer is one that the interface has; what was added to the index can be looked at."""
    assert response.status_code in ALLOWED, response.text
    if response.status_code >= 400 and raw.method != "HEAD":
        assert_problem(response, response.status_code)
    if response.status_code == 200 and raw.path == "/items":
        for item in [result["id"] for result in response.json()["results"] if result.get("id") is not None]:
            for path in ("", "/image", "/thumbnail", "/duplicates?max_distance=1"):
                assert client.get(f"/items/{item}{path}").status_code == 200, f"GET /items/{item}{path}"


@pytest.mark.parametrize("first", range(0, 250, REQUESTS))
def test_no_request_harms_the_service(client: TestClient, first: int) -> None:
    before = send(client, "/classify", PHOTO).json()
    for number in range(first, first + REQUESTS):
        raw = mutations.request(SEED, number)
        response = client.request(raw.method, raw.path, headers=raw.headers, content=raw.body)
        try:
            check(client, raw, response)
        except AssertionError as error:
            which = f"mutations.request({SEED}, {number}): {raw.method} {raw.path} {raw.what}"
            raise AssertionError(f"{which}: {error}") from error
    assert send(client, "/classify", PHOTO).json() == before


@pytest.mark.parametrize("name", mutations.photographs())
def test_an_undamaged_file_of_every_kind_is_classified_or_refused_with_its_reason(client: TestClient, name: str) -> None:
    raw = mutations.good(mutations.photographs()[name])
    response = client.post(raw.path, headers=raw.headers, content=raw.body)
    if name == "tiff float":
        assert_problem(response, 422, "floating-point")
    else:
        assert response.status_code == 200, response.text


@pytest.mark.parametrize("name", [name for name in mutations.photographs() if name != "tiff float"])
def test_an_undamaged_file_of_every_kind_is_added_and_shown(client: TestClient, name: str) -> None:
    raw = mutations.good(mutations.photographs()[name])
    response = client.post("/items", headers=raw.headers, content=raw.body)
    assert response.status_code == 200, response.text
    check(client, raw._replace(path="/items"), response)


@pytest.mark.parametrize("name", ["png", "jpeg", "jpeg progressive", "gif", "bmp", "tiff", "webp"])
def test_a_picture_that_declares_a_great_size_is_refused_before_it_takes_memory(client: TestClient, name: str) -> None:
    bomb = mutations.with_dimensions(name, mutations.photographs()[name], mutations.BOMB, mutations.BOMB)
    raw = mutations.good(bomb)
    response = client.post(raw.path, headers=raw.headers, content=raw.body)
    assert response.status_code in (413, 415, 422), response.text
    assert_problem(response, response.status_code)
