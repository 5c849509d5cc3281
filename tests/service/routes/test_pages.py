"""The pages for people: everything that they load is here, and is found below whatever path they are served at."""

import hashlib
import re
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import ServiceSettings

ROOT = Path(__file__).resolve().parents[3]
WEB = ROOT / "service" / "web"
BUILT = ("swagger-ui-bundle.js", "swagger-ui.css")  # which were not written here
PAGES = ("", "docs")
REFERENCE = re.compile(r"""(?:from |(?:import|URL|fetch|call|get|post|postJson|twice)\(|(?:src|href): )["'`]([^"'`$?]*)""")


@pytest.fixture(scope="module")
def client(model: Path, index: Path) -> Iterator[TestClient]:
    with TestClient(create_app(ServiceSettings(model=model, index=index))) as client:
        yield client


class References(HTMLParser):
    """What a page refers to, and whether it holds scripts or styles of its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self.found += [value for name, value in attrs if name in ("href", "src") and value]
        if tag == "style" or (tag == "script" and "src" not in names) or any(n == "style" or n.startswith("on") for n in names):
            self.inline.append(tag)


def of_scripts() -> Iterator[tuple[str, str]]:
    for path in WEB.rglob("*.js"):
        if path.name not in BUILT:
            for reference in re.findall(
                r"""(?:from |import\(|URL\(|fetch\(|call\(|get\(|post\(|twice\(|(?:src|href)[:=] )["'`]([^"'`$?]*)""",
                path.read_text(),
            ):
                yield path.relative_to(WEB).as_posix(), reference


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("prefix", ["/", "/fc7/", "/a/b/"])
def test_what_a_page_refers_to_is_found_below_its_own_path(client: TestClient, page: str, prefix: str) -> None:
    references = References(client.get(f"/{page}").text)
    assert len(references.found) >= 4
    assert references.inline == []
    for reference in references.found:
        address = urljoin(f"http://fc7.example{prefix}{page}", reference)
        assert address.startswith(f"http://fc7.example{prefix}"), reference
        assert client.get("/" + address.removeprefix(f"http://fc7.example{prefix}")).status_code == 200, reference


def test_scripts_and_styles_refer_to_nothing_by_an_absolute_path() -> None:
    found = list(of_scripts())
    assert {("main.js", "./api.js"), ("router.js", "./tabs/"), ("api.js", "info"), ("docs/main.js", "openapi.json")} <= set(found)
    for name, reference in found:
        assert not reference.startswith(("/", "http:", "https:")), (name, reference)
    for path in WEB.rglob("*.css"):
        addresses = re.findall(r"url\(\s*[\"']?([^)\"']*)|@import\s+[\"']([^\"']*)", path.read_text())
        assert all(address[0].startswith("data:") for address in addresses), path


def test_every_tab_has_its_module_and_its_style() -> None:
    names = re.findall(r'name: "(\w+)"', (WEB / "tabs.js").read_text())
    assert "search" in names
    assert {path.name for path in (WEB / "tabs").iterdir() if path.is_file()} == {
        f"{name}.{kind}" for name in names for kind in ("js", "css")
    }


def test_both_pages_are_under_the_policy_that_keeps_them_from_loading_elsewhere(client: TestClient) -> None:
    for page in PAGES:
        policy = client.get(f"/{page}").headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy


def test_files_that_others_built_are_those_that_are_listed_and_have_their_licence() -> None:
    listed = dict(line.split("  ")[::-1] for line in (WEB / "docs" / "SHA256SUMS.txt").read_text().splitlines())
    assert {*BUILT, "LICENSE.txt", "NOTICE.txt"} <= set(listed)
    for name, sha256 in listed.items():
        assert hashlib.sha256((WEB / "docs" / name).read_bytes()).hexdigest() == sha256, name
    assert "Apache License" in (WEB / "docs" / "LICENSE.txt").read_text()
    assert {path.name for path in (WEB / "docs").iterdir()} == {*listed, "SHA256SUMS.txt", "index.html", "main.js"}


def test_every_part_is_in_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["service"]
    packed = {path for pattern in patterns for path in (ROOT / "service").glob(pattern) if path.is_file()}
    assert packed == {path for path in WEB.rglob("*") if path.is_file()}


def test_media_types_are_those_of_the_parts(client: TestClient) -> None:
    for name, kind in (
        ("main.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        ("docs/favicon-32x32.png", "image/png"),
        ("docs/LICENSE.txt", "text/plain; charset=utf-8"),
    ):
        assert client.get(f"/web/{name}").headers["content-type"] == kind
