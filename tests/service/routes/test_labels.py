"""Labels in every script: any text that is one line, the same however it is composed; one that no item has is named."""

import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import ServiceSettings
from tests.conftest import encoded, photograph
from tests.service.calls import assert_problem

KEY = {"X-API-Key": "key"}
MODES = ("mode=exact", "mode=code", "mode=two-stage", "mode=ball&radius=128")
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
LABELS = (
    "9.41\u202fPM", "a\u00a0b", "a\u3000b", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647", FAMILY, "\u200fabc\u200e", "\u202eabc",
    "\U0001fae9", "\ue000", "a\u2028b", "a\u00adb", "\ufeffa", "a b", " a ", "/etc/passwd", "%00", "a;b=c,d",
)  # fmt: skip


@pytest.fixture
def client(model: Path, index: Path, tmp_path: Path) -> Iterator[TestClient]:
    growing = shutil.copytree(index, tmp_path / "index", symlinks=True)
    with TestClient(
        create_app(ServiceSettings(model=model, index=growing, api_key="key")), raise_server_exceptions=False
    ) as client:
        yield client


def add(client: TestClient, label: str, seed: int = 0) -> int:
    data = encoded(photograph(9000 + seed, size=(20, 20)))
    response = client.post("/items", files=[("image", ("a.jpg", data))], data={"label": label}, headers=KEY)
    assert response.status_code == 200, response.text
    return int(response.json()["results"][0]["id"])


def found(client: TestClient, label: str, query: str = "mode=exact") -> list[int]:
    body = client.post(f"/neighbors?id=0&k=100&label={quote(label)}&{query}").json()["results"][0]
    return [neighbor["id"] for neighbor in body["neighbors"]]


def test_any_one_line_of_text_is_a_label_and_is_found_by_it(client: TestClient) -> None:
    ids = {label: add(client, label, seed) for seed, label in enumerate(LABELS)}
    for label, item in ids.items():
        assert client.get(f"/items/{item}").json()["label"] == label
        assert found(client, label) == [item]


@pytest.mark.parametrize("character", [chr(code) for code in (*range(1, 32), 127, 0x80, 0x85, 0x9F)])
def test_control_characters_are_no_label(client: TestClient, character: str) -> None:
    data = encoded(photograph(1, size=(20, 20)))
    response = client.post("/items", files=[("image", ("a.jpg", data))], data={"label": f"a{character}b"}, headers=KEY)
    assert_problem(response, 422, "label", "control characters")


@pytest.mark.parametrize("label", ["é", "ñandú", "한국", "Å"])
def test_a_label_is_the_same_however_it_is_composed(client: TestClient, label: str) -> None:
    forms = {unicodedata.normalize(form, label) for form in ("NFC", "NFD")}
    assert len(forms) == 2
    items = [add(client, form, seed) for seed, form in enumerate(sorted(forms))]
    for form in forms:
        assert sorted(found(client, form)) == items
        near = client.get(f"/items/{items[0]}/duplicates?max_distance=1e9&label={quote(form)}").json()
        assert [neighbor["id"] for neighbor in near["neighbors"]] == items[1:]


@pytest.mark.parametrize("mode", MODES)
def test_a_label_that_no_item_has_is_named_in_an_empty_answer(client: TestClient, mode: str) -> None:
    body = client.post(f"/neighbors?id=0&label=rouge&{mode}").json()["results"][0]
    assert (body["neighbors"], body["next"]) == ([], None)
    assert body["note"] == "no item has the label 'rouge'"
    several = client.post(f"/neighbors?label=rouge&{mode}", json={"inputs": [{"id": 0}, {"id": 1}, {"id": 99}]}).json()["results"]
    assert [result.get("note") for result in several] == [body["note"], body["note"], None]


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_said_of_a_label_that_items_have_or_of_none(client: TestClient, mode: str) -> None:
    for query in ("label=red", "label=blue&max_distance=0", "label=", "", "label=red&k=1"):
        assert "note" not in client.post(f"/neighbors?id=0&{query}&{mode}").json()["results"][0]
    assert "note" not in client.post("/neighbors?id=0&label=blue&mode=ball&radius=0").json()["results"][0]


def test_duplicates_name_a_label_that_no_item_has(client: TestClient) -> None:
    assert client.get("/items/0/duplicates?max_distance=1&label=rouge").json()["note"] == "no item has the label 'rouge'"
    for query in ("", "&label=red", "&label="):
        assert "note" not in client.get(f"/items/0/duplicates?max_distance=1{query}").json()
    item = add(client, "alone")
    assert "note" not in client.get(f"/items/{item}/duplicates?max_distance=1&label=alone").json()


def test_the_last_of_a_label_that_goes_between_pages_ends_them(client: TestClient) -> None:
    items = [add(client, "few", seed) for seed in range(3)]
    first = client.post("/neighbors?id=0&label=few&k=1").json()["results"][0]
    for item in items:
        client.delete(f"/items/{item}", headers=KEY)
    after = client.post(f"/neighbors?id=0&label=few&k=1&cursor={first['next']}").json()["results"][0]
    assert (after["neighbors"], after["next"]) == ([], None)
