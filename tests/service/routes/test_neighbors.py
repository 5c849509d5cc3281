"""Searching over HTTP: every mode against brute force, filters, pages to the last item, and cursors that are not ours."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from indexer.opening import open_store
from indexer.store import Store
from service.app import create_app
from service.settings import ServiceSettings
from tests.conftest import COLOURS, encoded, photograph
from tests.service.calls import PHOTO, assert_problem, send

MODES = ("mode=exact", "mode=code", "mode=two-stage", "mode=ball&radius=128", "mode=auto")
OTHER = encoded(photograph(78, COLOURS["blue"]))


@pytest.fixture(scope="module")
def client(model: Path, index: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(model=model, index=index, max_neighbors=50)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def store(index: Path) -> Store:
    return open_store(index)


def euclidean(store: Store, item: int) -> NDArray[np.float64]:
    vectors_ND = store.vectors(store.ids().tolist()).astype(np.float64)
    distances: NDArray[np.float64] = np.sqrt(np.square(vectors_ND - store.vectors([item])[0]).sum(1))
    return distances


def hamming(store: Store, item: int) -> NDArray[np.int64]:
    codes_NW = store.codes(store.ids().tolist())
    distances: NDArray[np.int64] = np.unpackbits(codes_NW ^ store.codes([item])[0], axis=1).sum(1)
    return distances


def ranked(ids: NDArray[np.int64], distances: NDArray[Any]) -> list[int]:
    """Nearest first, ties by id."""
    return [int(ids[row]) for row in np.lexsort((ids, distances))]


def one(client: TestClient, query: str) -> dict[str, Any]:
    response = client.post(f"/neighbors?{query}")
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()["results"][0]
    return result


def ids_of(result: dict[str, Any]) -> list[int]:
    return [neighbor["id"] for neighbor in result["neighbors"]]


@pytest.mark.parametrize("item", [0, 13])
def test_every_mode_gives_the_neighbours_of_brute_force(client: TestClient, store: Store, item: int) -> None:
    ids = store.ids()
    for mode, distances in (
        ("exact", euclidean(store, item)),
        ("two-stage", euclidean(store, item)),
        ("code", hamming(store, item)),
    ):
        body = client.post(f"/neighbors?id={item}&k=24&mode={mode}").json()
        assert (body["mode"], body["metric"]) == (mode, "hamming" if mode == "code" else "euclidean")
        found = body["results"][0]
        assert ids_of(found) == ranked(ids, distances)
        np.testing.assert_allclose([n["distance"] for n in found["neighbors"]], np.sort(distances), rtol=1e-6)
        assert (found["buckets"], found["next"]) == (None, None)


def test_a_ball_holds_all_items_within_its_radius_and_says_what_it_looked_up(client: TestClient, store: Store) -> None:
    distances = hamming(store, 3)
    for radius in (0, 5, 40, 128):
        body = client.post(f"/neighbors?id=3&k=50&mode=ball&radius={radius}").json()
        assert (body["mode"], body["metric"]) == ("ball", "hamming")
        found = body["results"][0]
        assert ids_of(found) == [i for i in ranked(store.ids(), distances) if distances[i] <= radius]
        assert found["buckets"] >= 1


@pytest.mark.parametrize("mode", MODES)
def test_a_label_leaves_only_its_own_items_in_the_same_order(client: TestClient, mode: str) -> None:
    everything = one(client, f"id=5&k=24&{mode}")
    for label in COLOURS:
        own = [n["id"] for n in everything["neighbors"] if n["label"] == label]
        assert ids_of(one(client, f"id=5&k=24&{mode}&label={label}")) == own
        assert len(own) == 8
    for label in ("", "mauve", "red' OR '1'='1"):
        result = one(client, f"id=5&k=24&{mode}&label={label}")
        assert (result["neighbors"], result["next"]) == ([], None)
        assert ("note" in result) == bool(label)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_farther_than_max_distance(client: TestClient, mode: str) -> None:
    everything = one(client, f"id=5&k=24&{mode}")["neighbors"]
    limit = everything[9]["distance"]
    within = [n["id"] for n in everything if n["distance"] <= limit]
    assert ids_of(one(client, f"id=5&k=24&{mode}&max_distance={limit}")) == within
    assert ids_of(one(client, f"id=5&k=24&{mode}&max_distance=1e9")) == [n["id"] for n in everything]


@pytest.mark.parametrize("mode", [*MODES, "label=green", "mode=code&max_distance=60"])
@pytest.mark.parametrize("k", [1, 5, 24])
def test_pages_go_through_everything_once_and_in_order(client: TestClient, mode: str, k: int) -> None:
    """The last page says that it is the last, also when it is full."""
    everything = one(client, f"id=7&k=50&{mode}")
    assert everything["next"] is None
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = one(client, f"id=7&k={k}&{mode}" + (f"&cursor={cursor}" if cursor else ""))
        assert len(page["neighbors"]) == k or page["next"] is None
        found += page["neighbors"]
        cursor = page["next"]
    assert found == everything["neighbors"]


def test_the_features_of_the_latest_first_pages_are_kept_also_where_they_were_kept_before(client: TestClient) -> None:
    app: Any = client.app
    engine, name = app.state.engine, f"image {hashlib.sha256(PHOTO).hexdigest()}"
    for others in (255, 1):
        assert send(client, "/neighbors?k=2", PHOTO).json()["results"][0]["next"]
        for i in range(others):
            engine.keep_feature(engine.model, f"{others}: {i}", np.zeros(1, np.float32))
    assert engine.kept_feature(engine.model, name) is not None
    assert engine.kept_feature(engine.model, "255: 0") is None


def test_each_of_several_uploads_has_pages_of_its_own(client: TestClient) -> None:
    whole = send(client, "/neighbors?k=24", PHOTO, OTHER).json()["results"]
    first = send(client, "/neighbors?k=10", PHOTO, b"not an image", OTHER).json()["results"]
    assert first[1]["next"] is None
    for photo, page, everything in ((PHOTO, first[0], whole[0]), (OTHER, first[2], whole[1])):
        rest = send(client, f"/neighbors?k=50&cursor={page['next']}", photo).json()["results"][0]
        pages = page["neighbors"] + rest["neighbors"]
        assert [hit["id"] for hit in pages] == [hit["id"] for hit in everything["neighbors"]]
        found, expected = ([hit["distance"] for hit in hits] for hits in (pages, everything["neighbors"]))
        np.testing.assert_allclose(found, expected, rtol=1e-5)  # FC7's last bits depend on what else is in the batch
        assert rest["next"] is None
    body = send(client, f"/neighbors?cursor={first[0]['next']}", PHOTO, OTHER)
    assert_problem(body, 422, "cursor", "one photograph, not with 2")


def test_a_cursor_keeps_the_mode_that_auto_took(client: TestClient) -> None:
    page = one(client, "id=2&k=5&mode=code")
    for mode in ("", "&mode=auto", "&mode=code"):
        body = client.post(f"/neighbors?id=2&k=5&cursor={page['next']}{mode}").json()
        assert (body["mode"], body["metric"]) == ("code", "hamming")
    assert_problem(client.post(f"/neighbors?id=2&cursor={page['next']}&mode=exact"), 422, "mode", "code")


def test_a_damaged_or_foreign_cursor_is_refused(client: TestClient) -> None:
    cursor = one(client, "id=2&k=5")["next"]
    damaged = ["", cursor[:-1], cursor[:-4], cursor + "AAAA", cursor[1:], "x", "ü", "=", "A" * 40, "*" + cursor[1:]]
    damaged += [cursor[:i] + ("A" if cursor[i] != "A" else "B") + cursor[i + 1 :] for i in range(len(cursor))]
    for text in damaged:
        body = assert_problem(client.post("/neighbors", params={"id": 2, "cursor": text}), 422, "cursor")
        assert body["errors"][0]["field"] == "cursor"
    for other in ("id=3", "id=2&label=red", "id=2&max_distance=5", "id=2&mode=ball&radius=3"):
        assert_problem(client.post(f"/neighbors?{other}&cursor={cursor}"), 422, "cursor", "this same question")
    assert_problem(send(client, f"/neighbors?cursor={cursor}", PHOTO), 422, "cursor")
    assert_problem(client.get(f"/items/2/duplicates?max_distance=1&cursor={cursor}"), 422, "cursor")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("mode=nearest", "mode"),
        ("radius=3", "radius"),
        ("mode=code&radius=3", "radius"),
        ("mode=ball", "radius"),
        ("mode=ball&radius=-1", "radius"),
        ("mode=ball&radius=257", "radius"),
        ("max_distance=-1", "max_distance"),
        ("max_distance=nan", "max_distance"),
        ("max_distance=inf", "max_distance"),
        ("max_distance=1e300", "max_distance"),
        ("k=51", "k"),
        ("cursor=" + "A" * 101, "cursor"),
    ],
)
def test_a_wrong_parameter_is_named(client: TestClient, query: str, field: str) -> None:
    body = assert_problem(client.post(f"/neighbors?id=1&{query}"), 422, field)
    assert field in [error["field"] for error in body["errors"]]


def test_duplicates_are_the_items_within_a_distance_without_the_item_itself(client: TestClient, store: Store) -> None:
    distances = euclidean(store, 4)
    others = [i for i in ranked(store.ids(), distances) if i != 4]
    limit = float(np.sort(distances)[8])
    body = client.get(f"/items/4/duplicates?max_distance={limit}").json()
    assert (body["id"], body["metric"], body["max_distance"]) == (4, "euclidean", limit)
    assert ids_of(body) == [i for i in others if np.float32(distances[i]) <= np.float32(limit)]
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get("/items/4/duplicates?k=3&max_distance=1e9" + (f"&cursor={cursor}" if cursor else "")).json()
        found += ids_of(page)
        cursor = page["next"]
    assert found == others


def test_what_duplicates_do_not_take_is_named(client: TestClient) -> None:
    assert_problem(client.get("/items/24/duplicates"), 404, "24")
    assert_problem(client.get("/items/4/duplicates?mode=code"), 422, "mode")
    assert_problem(client.get("/items/4/duplicates?k=51"), 422, "k")
    assert_problem(client.get("/items/4/duplicates"), 404, "python -m indexer.duplicates", "max_distance")


def test_auto_is_exact_for_a_few_items_and_says_why(client: TestClient) -> None:
    assert client.post("/neighbors?id=1").json()["mode"] == "exact"
    about = client.get("/info").json()["index"]
    assert (about["mode"], about["bits"], about["items"]) == ("exact", 128, 24)
    assert "24 vectors take" in about["reason"]


def test_the_setting_decides_where_a_request_names_no_mode(model: Path, index: Path) -> None:
    with TestClient(create_app(ServiceSettings(model=model, index=index, search="code"))) as client:
        assert client.post("/neighbors?id=1").json()["mode"] == "code"
        assert client.post("/neighbors?id=1&mode=auto").json()["mode"] == "exact"
        assert client.get("/info").json()["index"]["reason"] == "search is set to code"
    with TestClient(create_app(ServiceSettings(model=model, index=index, search_memory_bytes=100))) as client:
        assert client.post("/neighbors?id=1").json()["mode"] == "two-stage"
        assert "more than" in client.get("/info").json()["index"]["reason"]


def test_every_parameter_and_answer_of_a_search_is_described(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    named = {parameter["name"] for parameter in paths["/neighbors"]["post"]["parameters"]}
    filters = {"label", "exclude_label", "path_prefix", "added_after", "added_before"}
    assert named == {"id", "k", "mode", "max_distance", "radius", "columns", "cursor", "timings"} | filters
    assert all(parameter.get("description") for parameter in paths["/neighbors"]["post"]["parameters"])
    assert {"200", "404", "422", "503"} <= set(paths["/items/{id}/duplicates"]["get"]["responses"])
