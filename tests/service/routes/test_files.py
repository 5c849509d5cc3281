"""Conditional requests and ranges by RFC 9110, for every picture and every file that is served."""

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from indexer import build
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.calls import assert_problem

CHANGED = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110
DATED = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994")
BEFORE, AFTER = "Sun, 06 Nov 1994 08:49:36 GMT", "Sun, 06 Nov 1994 08:49:38 GMT"
NO_DATES = ("", "x", "0", "784111777", "Sun, 06 Nov 1994 08:49:37", "1994-11-06T08:49:37Z", "Sun, 31 Feb 1994 08:49:37 GMT")
FILE, MEMBER = "/items/0/image", "/items/24/image"
PICTURES = (FILE, MEMBER, "/items/0/thumbnail", "/items/24/thumbnail", "/filters.png")
PARTS = ("/", "/docs", "/web/main.js", "/web/icon.svg", "/web/docs/swagger-ui.css")


@pytest.fixture(scope="module")
def client(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service of 24 photographs in folders, and of as many others in a tar file; the first file is of 1994."""
    root = tmp_path_factory.mktemp("files")
    shutil.copytree(images / "train", root / "data" / "a")
    (root / "other").mkdir()
    for path in (images / "train").rglob("*.jpg"):
        (root / "other" / f"{path.parent.name}{path.name}").write_bytes(path.read_bytes() + b"\0")
    with tarfile.open(root / "data" / "b.tar", "w") as tar:
        tar.add(root / "other", "other")
    build.main(build.BuildSettings(model=model, data=root / "data", index=root / "index"))
    settings = ServiceSettings(model=model, index=root / "index")
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        assert client.get("/items/24").json()["path"].startswith("b.tar/")
        path = root / "data" / client.get("/items/0").json()["path"]
        os.utime(path, (CHANGED, CHANGED))
        yield client


NUMBERS = {"id": "0", "layer": "conv1", "column": "0", "unit": "0", "place": "0"}


def test_what_has_an_etag_is_asked_for_again_by_it_and_nothing_else_is_kept(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]
    paths = [path.format_map(NUMBERS) for path, methods in described.items() if "get" in methods]
    answers = [client.get(path) for path in (*paths, *PARTS, *PICTURES, "/items/999", "/nowhere")]
    answers += [client.get("/items?k=0"), client.post("/neighbors?id=0"), client.head("/info"), client.put("/info")]
    kept = {str(answer.request.url): answer.headers["cache-control"] for answer in answers if "etag" in answer.headers}
    assert set(kept.values()) == {"no-cache"}
    assert {f"http://testserver{path}" for path in (*PARTS, *PICTURES)} <= set(kept)
    others = [answer for answer in answers if "etag" not in answer.headers]
    assert {answer.headers["cache-control"] for answer in others} == {"no-store"}
    assert {answer.status_code for answer in others} == {200, 404, 405, 422}


def assert_unchanged(response: Response, whole: Response) -> None:
    """What RFC 9110, section 15.4.5, asks of a 304."""
    assert (response.status_code, response.content) == (304, b"")
    for name in ("etag", "cache-control", "last-modified"):
        assert response.headers.get(name) == whole.headers.get(name)
    assert "content-type" not in response.headers
    assert "content-range" not in response.headers


@pytest.mark.parametrize("path", [*PICTURES, *PARTS])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_a_client_has_already_is_not_sent_again(client: TestClient, path: str, method: str) -> None:
    whole = client.get(path)
    etag = whole.headers["etag"]
    assert whole.status_code == 200
    assert etag[0] == etag[-1] == '"'
    for same in (etag, f"W/{etag}", f'"x", {etag}', f'W/"a,b",W/{etag} , "c"', "*", f' {etag}\t, ""'):
        assert_unchanged(client.request(method, path, headers={"If-None-Match": same}), whole)
    lines = [("If-None-Match", '"x"'), ("If-None-Match", etag)]
    assert_unchanged(client.request(method, path, headers=lines), whole)
    for other in ('"x"', 'W/"x"', etag[1:-1], etag[:-1], f'"{etag}"', f"w/{etag}", '"*"', "", "x", etag.upper()):
        response = client.request(method, path, headers={"If-None-Match": other, "If-Modified-Since": AFTER})
        assert response.status_code == 200, other
        assert response.content == (whole.content if method == "GET" else b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_that_has_not_changed_since_is_not_sent_again(client: TestClient, method: str) -> None:
    whole = client.get(FILE)
    assert whole.headers["last-modified"] == DATED[0]
    for since in (*DATED, AFTER, "Fri, 01 Jan 2100 00:00:00 GMT"):
        assert_unchanged(client.request(method, FILE, headers={"If-Modified-Since": since}), whole)
    for since in (BEFORE, *NO_DATES):
        assert client.request(method, FILE, headers={"If-Modified-Since": since}).status_code == 200, since


@pytest.mark.parametrize("path", [path for path in PICTURES if path != FILE])
def test_what_has_no_date_is_sent_whatever_date_is_asked_for(client: TestClient, path: str) -> None:
    response = client.get(path, headers={"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT", "If-Unmodified-Since": BEFORE})
    assert response.status_code == 200
    assert "last-modified" not in response.headers


@pytest.mark.parametrize("path", PICTURES)
def test_a_precondition_that_fails_is_a_problem(client: TestClient, path: str) -> None:
    etag = client.get(path).headers["etag"]
    for holds in ("*", etag, f'"x", {etag}'):
        assert client.get(path, headers={"If-Match": holds, "If-Unmodified-Since": BEFORE}).status_code == 200
    for fails in ('"x"', f"W/{etag}", ""):
        assert_problem(client.get(path, headers={"If-Match": fails, "If-None-Match": etag}), 412, "If-Match")


def test_a_file_that_has_changed_since_is_a_problem_where_that_was_asked(client: TestClient) -> None:
    assert_problem(client.get(FILE, headers={"If-Unmodified-Since": BEFORE}), 412, "If-Unmodified-Since")
    for holds in (*DATED, AFTER, *NO_DATES):
        assert client.get(FILE, headers={"If-Unmodified-Since": holds}).status_code == 200


# Ranges


@pytest.mark.parametrize("path", [FILE, MEMBER, "/items/0/thumbnail", "/filters.png", "/web/main.js"])
def test_one_range_is_answered_with_it(client: TestClient, path: str) -> None:
    whole = client.get(path)
    size = len(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"
    for asked, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("BYTES=7-", 7, size),
        ("bytes=-5", size - 5, size),
        ("bytes=0-", 0, size),
        (f"bytes=-{size + 100}", 0, size),
        (f"bytes=1-{size}", 1, size),
        ("bytes=1-" + "9" * 5000, 1, size),
        ("bytes=000-001", 0, 2),
        (f"bytes={size - 1}-", size - 1, size),
        (f"bytes={size}-, 3-4", 3, 5),
    ):
        response = client.get(path, headers={"Range": asked})
        assert (response.status_code, response.content) == (206, whole.content[start:end]), asked
        assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert response.headers["content-length"] == str(end - start)
        assert response.headers["content-type"] == whole.headers["content-type"]
        assert response.headers["etag"] == whole.headers["etag"]


@pytest.mark.parametrize("path", [FILE, MEMBER, "/items/0/thumbnail", "/filters.png", "/web/main.js"])
@pytest.mark.parametrize(
    "asked",
    [
        *("lines=1-2", "bytes=x", "bytes", "bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,x", "bytes=0-1,5-4", "bytes 0-1", "=0-1"),
        *("x", "bytes =0-1", "bytes=+1-2", "bytes=0x1-2", "bytes=1_0-20", "bytes=\u00b2-2", "items=0-5", "bytes=0-1;2-3"),
        *("bytes=--5", "bytes=0-1-2"),
    ],
)
def test_a_range_that_is_not_understood_is_as_if_it_were_not_there(client: TestClient, path: str, asked: str) -> None:
    response = client.get(path, headers={"Range": asked.encode("latin-1")})
    assert response.status_code == 200
    assert response.content == client.get(path).content


@pytest.mark.parametrize("path", [FILE, MEMBER, "/items/0/thumbnail", "/filters.png", "/web/main.js"])
def test_a_range_that_lies_outside_is_a_problem(client: TestClient, path: str) -> None:
    size = len(client.get(path).content)
    for asked in (f"bytes={size}-", f"bytes={size}-{size + 5}", "bytes=-0", "bytes=" + "9" * 5000 + "-", f"bytes={size}-,-0"):
        response = client.get(path, headers={"Range": asked})
        assert_problem(response, 416, "Range", str(size))
        assert response.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize("path", [FILE, MEMBER])
def test_a_range_of_what_the_client_has_another_state_of_is_the_whole(client: TestClient, path: str) -> None:
    whole = client.get(path)
    etag = whole.headers["etag"]
    current = [etag, *DATED] if path == FILE else [etag]
    for validator in current:
        assert client.get(path, headers={"Range": "bytes=0-4", "If-Range": validator}).status_code == 206, validator
    for validator in (f"W/{etag}", '"x"', "*", BEFORE, AFTER, "x", "", f'{etag}, "x"', *([] if path == FILE else DATED)):
        response = client.get(path, headers={"Range": "bytes=0-4", "If-Range": validator})
        assert (response.status_code, response.content) == (200, whole.content), validator


def test_a_date_of_this_very_second_does_not_tell_states_apart(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.routes.files.time.time", lambda: CHANGED + 0.5)
    assert client.get(FILE, headers={"Range": "bytes=0-4", "If-Range": DATED[0]}).status_code == 200


@pytest.mark.parametrize("path", [FILE, MEMBER, "/web/main.js"])
def test_conditions_go_before_ranges_and_ranges_are_of_get_alone(client: TestClient, path: str) -> None:
    whole = client.get(path)
    asked = {"Range": "bytes=0-4", "If-None-Match": whole.headers["etag"]}
    assert_unchanged(client.get(path, headers=asked), whole)
    for value in ("bytes=0-4", "bytes=999999999-"):
        head = client.head(path, headers={"Range": value})
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))
        assert "content-range" not in head.headers


def test_several_ranges_are_answered_with_the_whole(client: TestClient) -> None:
    for headers in ([("Range", "bytes=0-4, 10-14")], [("Range", "bytes=0-4"), ("Range", "bytes=10-14")]):
        response = client.get(FILE, headers=headers)
        assert (response.status_code, response.content) == (200, client.get(FILE).content)


def test_a_file_that_changes_has_another_tag(client: TestClient, model: Path, index: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "data")
    build.main(build.BuildSettings(model=model, data=tmp_path / "data", index=tmp_path / "index", part="train"))
    with TestClient(create_app(ServiceSettings(model=model, index=tmp_path / "index"))) as other:
        before = other.get(FILE)
        path = tmp_path / "data" / other.get("/items/0").json()["path"]
        path.touch()
        after = other.get(FILE, headers={"If-None-Match": before.headers["etag"]})
        assert after.status_code == 200
        assert after.headers["etag"] != before.headers["etag"]


def test_a_file_that_has_become_another_is_told_from_one_that_is_gone(model: Path, images: Path, tmp_path: Path) -> None:
    data, loose = tmp_path / "data", tmp_path / "loose"
    shutil.copytree(images / "test", data / "a")
    shutil.copytree(images / "train" / "red", loose)
    shutil.make_archive(str(data / "b"), "tar", loose)
    build.main(build.BuildSettings(model=model, data=data, index=tmp_path / "index", bits=0))
    with TestClient(create_app(ServiceSettings(model=model, index=tmp_path / "index"))) as client:
        paths = [client.get(f"/items/{item}").json()["path"] for item in range(17)]
        etag = client.get("/items/0/image").headers["etag"]
        before = (data / paths[0]).read_bytes()
        (data / paths[0]).write_bytes(before[:-1] + b"x")
        (data / paths[1]).write_text("a text")
        (data / paths[2]).unlink()
        (loose / "000.jpg").write_bytes((loose / "000.jpg").read_bytes()[:-1] + b"x")
        (loose / "001.jpg").unlink()
        shutil.make_archive(str(data / "b"), "tar", loose)
        for item in (0, 1, 9):
            words = (paths[item], f"item {item},", "has become another since it was indexed")
            problem = assert_problem(client.get(f"/items/{item}/image", headers={"If-None-Match": etag}), 410, *words)
            assert problem["title"] == "Gone"
            assert "410" in client.get("/openapi.json").json()["paths"]["/items/{id}/image"]["get"]["responses"]
            assert client.head(f"/items/{item}/image").status_code == 410
            assert_problem(client.get(f"/items/{item}/image", headers={"Range": "bytes=0-4"}), 410)
        for item in (2, 10):
            assert_problem(client.get(f"/items/{item}/image"), 404, paths[item], "is gone")
        for item in (0, 1, 2, 9, 10):
            assert client.get(f"/items/{item}/thumbnail").headers["content-type"] == "image/jpeg"
        (data / paths[0]).write_bytes(before)
        assert client.get("/items/0/image").content == before


def test_a_file_that_cannot_be_opened_is_told_like_one_that_is_gone(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert_problem(client.get(FILE), 404, "is gone")


@pytest.mark.parametrize("path", ["/web/", "/web", "/web/none.js", "/web/../app.py", "/web/%2e%2e/app.py", "/web//etc/passwd",
                                  "/web/docs", "/web/docs/", "/web/%00", "/web/" + "x" * 5000, "/redoc"])  # fmt: skip
def test_no_other_file_is_served(client: TestClient, path: str) -> None:
    assert_problem(client.get(path), 404)


@pytest.mark.parametrize("path", ["/", "/docs", "/web/main.js", "/filters.png"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_other_methods_are_a_problem(client: TestClient, path: str, method: str) -> None:
    response = client.request(method, path)
    assert_problem(response, 405)
    assert response.headers["allow"] == "GET, HEAD"


def test_the_methods_of_all_operations_of_a_path_are_named(client: TestClient) -> None:
    for path, methods in (("/items", "GET, HEAD, POST"), ("/items/0", "DELETE, GET, HEAD"), ("/items/0/image", "GET, HEAD")):
        assert client.put(path).headers["allow"] == methods
