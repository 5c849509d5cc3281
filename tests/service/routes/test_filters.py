"""Filters over HTTP: several labels, none of others, paths below a prefix, times of adding; in every mode, page after page."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from indexer.index import Index
from indexer.store import Filter
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.calls import PHOTO, assert_problem

MODES = ("mode=exact", "mode=code", "mode=two-stage", "mode=ball&radius=128")
Neighbor = dict[str, Any]
FILTERS: dict[str, Callable[[Neighbor], bool]] = {
    "label=red&label=blue": lambda found: found["label"] in ("red", "blue"),
    "label=red&label=mauve": lambda found: found["label"] == "red",
    "exclude_label=red": lambda found: found["label"] != "red",
    "exclude_label=red&exclude_label=green&exclude_label=mauve": lambda found: found["label"] == "blue",
    "exclude_label=": lambda _: True,
    "label=red&exclude_label=red": lambda _: False,
    "path_prefix=train/b": lambda found: found["label"] == "blue",
    "path_prefix=train/%25/00": lambda _: False,
    "path_prefix=": lambda _: True,
    "path_prefix=train/green/00&exclude_label=blue": lambda found: found["label"] == "green",
    "label=green&label=red&exclude_label=red&path_prefix=train/": lambda found: found["label"] == "green",
}


@pytest.fixture(scope="module")
def client(model: Path, index: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(model=model, index=index)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def one(client: TestClient, query: str) -> dict[str, Any]:
    response = client.post(f"/neighbors?{query}")
    assert response.status_code == 200, response.text
    return dict(response.json()["results"][0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("query", FILTERS)
def test_what_passes_a_filter_comes_in_the_same_order_and_page_by_page(client: TestClient, query: str, mode: str) -> None:
    everything = one(client, f"id=5&k=24&{mode}")["neighbors"]
    expected = [found for found in everything if FILTERS[query](found)]
    assert one(client, f"id=5&k=24&{mode}&{query}")["neighbors"] == expected
    found: list[Neighbor] = []
    cursor: str | None = ""
    while cursor is not None:
        page = one(client, f"id=5&k=3&{mode}&{query}" + (f"&cursor={cursor}" if cursor else ""))
        found += page["neighbors"]
        cursor = page["next"]
    assert found == expected


@pytest.mark.parametrize("query", FILTERS)
def test_near_duplicates_pass_the_filter_too(client: TestClient, query: str) -> None:
    near = "/items/5/duplicates?k=24&max_distance=1e9"
    everything = client.get(near).json()["neighbors"]
    assert len(everything) == 23
    assert client.get(f"{near}&{query}").json()["neighbors"] == [found for found in everything if FILTERS[query](found)]


def test_a_cursor_is_of_its_own_filter_in_whatever_order_that_is_written(client: TestClient) -> None:
    cursor = one(client, "id=5&k=3&label=red&label=blue&exclude_label=a&exclude_label=b&path_prefix=train/")["next"]
    same = "id=5&k=3&path_prefix=train/&exclude_label=b&exclude_label=a&label=blue&label=red&label=blue"
    assert one(client, f"{same}&cursor={cursor}")["neighbors"]
    for other in (same.replace("=b&", "=c&"), same.replace("path_prefix=train/", ""), same.replace("label=red", "label=reds")):
        assert_problem(client.post(f"/neighbors?{other}&cursor={cursor}"), 422, "cursor", "same question")


@pytest.mark.parametrize(
    ("query", "note"),
    [
        ("label=rouge&label=red", "no item has the label 'rouge'"),
        ("label=rouge&label=bleu&label=", "no item has the label 'bleu', 'rouge'"),
        ("exclude_label=rouge", "no item has the label 'rouge'"),
        ("label=red&exclude_label=rouge", "no item has the label 'rouge'"),
        ("label=red&label=rouge&exclude_label=rouge", "no item has the label 'rouge'"),
        ("path_prefix=test/", "no item passes the filter"),
        ("label=red&path_prefix=train/blue", "no item passes the filter"),
        ("label=red&exclude_label=red", "no item passes the filter"),
        ("label=red&label=blue&exclude_label=green&exclude_label=&path_prefix=train", None),
        ("path_prefix=train/red&max_distance=0", None),
        ("exclude_label=&label=", "no item passes the filter"),
    ],
)
def test_a_label_that_no_item_has_and_a_filter_that_none_passes_are_named(
    client: TestClient, query: str, note: str | None
) -> None:
    for mode in MODES:
        assert one(client, f"id=0&{query}&{mode}").get("note") == note
    assert client.get(f"/items/0/duplicates?max_distance=1&{query}").json().get("note") == note


def test_no_more_labels_are_looked_for_than_a_note_names(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a question to Milvus."""
    counted = []
    count = Index.count

    def recorded(self: Index, filter: Filter) -> int:
        counted.append(filter)
        return count(self, filter)

    monkeypatch.setattr(Index, "count", recorded)
    labels = [f"{i:03d}" for i in range(100)]
    query = "&".join(f"label={label}&exclude_label=x{label}" for label in labels)
    assert one(client, f"id=0&{query}")["note"] == "no item has the label " + ", ".join(f"'{label}'" for label in labels[:10])
    assert len(counted) == 10


def shown(time: datetime) -> str:
    return quote(time.isoformat())


def test_items_are_found_by_when_they_were_added(model: Path, index: Path, tmp_path: Path) -> None:
    growing = shutil.copytree(index, tmp_path / "index", symlinks=True)
    settings = ServiceSettings(model=model, index=growing, api_key="key")
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        before = datetime.now(UTC)
        response = client.post("/items", files=[("image", ("a.jpg", PHOTO))], headers={"X-API-Key": "key"})
        new = response.json()["results"][0]["id"]
        after = datetime.now(UTC)
        added = datetime.fromisoformat(client.get(f"/items/{new}").json()["added"])
        assert before <= added <= after
        assert datetime.fromisoformat(client.get("/items/0").json()["added"]) < before
        for mode in MODES:
            for query, expected in (
                (f"added_after={shown(added)}", {new}),
                (f"added_after={shown(added.astimezone(timezone(timedelta(hours=5, minutes=30))))}", {new}),
                (f"added_before={shown(added)}", set(range(24))),
                (f"added_before={shown(added + timedelta(microseconds=1))}", {*range(24), new}),
                (f"added_after={shown(added)}&added_before={shown(added)}", set()),
                (f"added_before={shown(added)}&label=red", set(range(16, 24))),
                ("added_after=2000-01-01T00:00Z", {*range(24), new}),
            ):
                result = one(client, f"id=5&k=25&{mode}&{query}")
                assert {found["id"] for found in result["neighbors"]} == expected, query
                assert result.get("note") == (None if expected else "no item passes the filter")
        cursor = one(client, f"id=5&k=3&added_before={shown(added)}")["next"]
        assert one(client, f"id=5&k=3&added_before={shown(added).replace('%2B00%3A00', 'Z')}&cursor={cursor}")["neighbors"]
        other = f"id=5&k=3&added_before={shown(after + timedelta(days=1))}"
        assert_problem(client.post(f"/neighbors?{other}&cursor={cursor}"), 422, "cursor", "same question")


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-26",
        "2026-11-26T10:00:00",
        "2026-11-26T10:00:00+02:00",  # whose + is a space in a query
        "2026-11-26T10:00:00%2B0200",
        "2026-13-01T00:00:00Z",
        "2026-11-26T10:00:00z",
        "1764151200",
        "now",
        "",
        "0001-01-01T00:00:00%2B01:00",
    ],
)
def test_a_time_that_is_none_is_refused(client: TestClient, time: str) -> None:
    for name in ("added_after", "added_before"):
        assert_problem(client.post(f"/neighbors?id=0&{name}={time}"), 422, name, "a time", "zone")


def test_filters_of_too_much_are_refused(client: TestClient) -> None:
    labels = "&".join(f"label={i}" for i in range(101))
    assert_problem(client.post(f"/neighbors?id=0&{labels}"), 422, "label", "at most 100")
    assert_problem(client.post(f"/neighbors?id=0&exclude_{labels.replace('&', '&exclude_')}"), 422, "exclude_label", "100")
    assert_problem(client.post(f"/neighbors?id=0&path_prefix={'x' * 5000}"), 422, "path_prefix", "4096")
    assert_problem(client.post("/neighbors?id=0&path_prefix=a&path_prefix=b"), 422, "path_prefix", "given once")
    assert_problem(client.post("/neighbors?id=0&label=red&label=%ff"), 422, "label", "UTF-8")
    assert one(client, "id=0&path_prefix=%00&label=%00&label=red")["neighbors"] == []
