"""GET /duplicates gives what the command found, by pages, of what is still indexed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from indexer import duplicates as command
from indexer.index import open_index
from indexer.storage import duplicates as stored
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.calls import assert_problem

KEY = {"X-API-Key": "a key"}


@pytest.fixture
def growing(index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index, tmp_path / "index", symlinks=True))


@pytest.fixture
def client(model: Path, growing: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(model=model, index=growing, api_key=KEY["X-API-Key"])
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def write_groups(index: Path, groups: list[list[int]], fingerprint: str = "") -> None:
    """Leaves made-up groups as the command does, each item one farther from the representative."""
    store = open_index(index)
    records = [
        stored.GroupRecord(
            ids=ids, sha256s=[item.sha256 for item in store.items(ids)], distances=[float(i) for i in range(len(ids))]
        )
        for ids in groups
    ]
    record = stored.DuplicatesRecord(
        created="now",
        fingerprint=fingerprint or store.fingerprint,
        index_version=store.version_number,
        metric="euclidean",
        threshold=1.5,
        chosen="as given",
        compared=len(store),
        found=len(groups),
        groups=records,
    )
    stored.write(index, record)
    store.close()


def pages(client: TestClient, k: int) -> list[list[list[int]]]:
    """The ids of all groups, page by page."""
    body = client.get(f"/duplicates?k={k}").json()
    shown = [body]
    while body["next"]:
        body = client.get(f"/duplicates?k={k}&cursor={body['next']}").json()
        shown.append(body)
    return [[[item["id"] for item in group["items"]] for group in body["groups"]] for body in shown]


def test_what_the_command_found_is_shown(client: TestClient, growing: Path) -> None:
    assert_problem(client.get("/duplicates"), 404, "python -m indexer.duplicates")
    store = open_index(growing)
    vectors_ND = store.vectors(store.ids().tolist()).astype(np.float64)
    nearest = np.sort(np.sqrt(np.square(vectors_ND[:, None] - vectors_ND).sum(2)), axis=1)[:, 1].min()
    command.main(command.DuplicatesSettings(index=growing, max_distance=float(nearest) * 1.001))
    body = client.get("/duplicates").json()
    [group] = body["groups"]
    assert (body["found"], body["compared"], body["compared_version"], body["metric"], body["next"]) == (
        1,
        24,
        1,
        "euclidean",
        None,
    )
    assert (body["metric"], body["chosen"]) == ("euclidean", "as given")
    assert (group["size"], group["farthest"]) == (2, pytest.approx(nearest))
    [first, second] = group["items"]
    assert (first["distance"], second["distance"]) == (0, group["farthest"])
    for item in group["items"]:
        assert client.get(item["thumbnail"]).status_code == 200
        assert client.get(f"/items/{item['id']}").json()["path"] == item["path"]


def test_near_duplicates_of_an_item_are_by_default_as_near_as_those_of_the_groups(client: TestClient, growing: Path) -> None:
    assert_problem(client.get("/items/4/duplicates"), 404, "python -m indexer.duplicates", "max_distance")
    store = open_index(growing)
    vectors_ND = store.vectors(store.ids().tolist()).astype(np.float64)
    distances_N = np.sqrt(np.square(vectors_ND - vectors_ND[4]).sum(1))
    near = np.argsort(distances_N, kind="stable")
    threshold = float(distances_N[near[5]]) * 1.001
    command.main(command.DuplicatesSettings(index=growing, max_distance=threshold))
    body = client.get("/items/4/duplicates").json()
    assert body["max_distance"] == client.get("/duplicates").json()["threshold"] == threshold
    assert [item["id"] for item in body["neighbors"]] == near[1:6].tolist()
    assert_problem(client.get("/items/24/duplicates"), 404, "24")
    command.main(command.DuplicatesSettings(index=growing, radius=3))
    assert_problem(client.get("/items/4/duplicates"), 404, "hamming", "euclidean", "max_distance")
    write_groups(growing, [[5, 4]], fingerprint="f" * 64)
    assert_problem(client.get("/items/4/duplicates"), 404, "another model", "max_distance")


def test_pages_give_every_group_once(client: TestClient, growing: Path) -> None:
    groups = [[3, 0, 1], [5, 4], [6, 7], [9, 8], [10, 11]]
    write_groups(growing, groups)
    assert pages(client, 2) == [groups[:2], groups[2:4], groups[4:]]
    assert pages(client, 5) == [groups]
    cursor = client.get("/duplicates?k=2").json()["next"]
    for damaged in (cursor[:-1] + "x", ""):
        assert_problem(client.get(f"/duplicates?cursor={damaged}"), 422, "cursor")
    assert_problem(client.get("/duplicates?k=0"), 422, "k")
    assert_problem(client.get("/duplicates?k=1001"), 422, "k must be at most 1000")
    write_groups(growing, groups[1:])
    assert_problem(client.get(f"/duplicates?cursor={cursor}"), 422, "cursor")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("label=blue", [[0, 1]]),
        ("label=blue&label=red", [[16, 0, 1], [7, 17]]),
        ("exclude_label=red", [[0, 1], [8, 9]]),
        ("path_prefix=train/green/", [[8, 9]]),
        ("label=", []),
        ("added_before=2020-01-01T00:00:00Z", []),
        ("added_after=2020-01-01T00:00:00Z", [[16, 0, 1], [7, 17], [8, 9]]),
    ],
)
@pytest.mark.parametrize("k", [1, 5])
def test_filters_leave_out_items_and_groups_of_less_than_two(
    client: TestClient, growing: Path, query: str, expected: list[list[int]], k: int
) -> None:
    write_groups(growing, [[16, 0, 1], [7, 17], [8, 9]])  # 0 to 7 are blue, 8 to 15 green, 16 to 23 red
    found: list[list[int]] = []
    cursor: str | None = ""
    while cursor is not None:
        body = client.get(f"/duplicates?k={k}&{query}{cursor and f'&cursor={cursor}'}").json()
        found += [[item["id"] for item in group["items"]] for group in body["groups"]]
        assert all(group["size"] == len(group["items"]) for group in body["groups"])
        cursor = body["next"]
    assert found == expected
    if query == "label=blue":
        assert (body["groups"] or [{}])[0].get("farthest", 2.0) == 2.0


def test_a_filter_that_nothing_passes_is_noted_and_a_cursor_is_for_its_own_filter(client: TestClient, growing: Path) -> None:
    write_groups(growing, [[16, 0, 1], [7, 17], [8, 9]])
    assert client.get("/duplicates?label=mauve").json()["note"] == "no item has the label 'mauve'"
    assert client.get("/duplicates?path_prefix=no").json()["note"] == "no item passes the filter"
    assert "note" not in client.get("/duplicates?label=green").json()
    cursor = client.get("/duplicates?k=1").json()["next"]
    assert_problem(client.get(f"/duplicates?k=1&label=red&cursor={cursor}"), 422, "cursor")
    assert_problem(client.get("/duplicates?added_after=yesterday"), 422, "added_after")


def test_removed_items_and_what_has_their_id_now_are_left_out(client: TestClient, growing: Path) -> None:
    write_groups(growing, [[3, 0, 1], [5, 4], [6, 7]])
    for item in (1, 3, 4):
        assert client.delete(f"/items/{item}", headers=KEY).status_code == 204
    assert pages(client, 2) == [[[6, 7]]]
    client.delete("/items/0", headers=KEY)
    record = stored.read(growing)
    record.groups[2].sha256s[0] = "0" * 64
    stored.write(growing, record)
    body = client.get("/duplicates").json()
    assert (body["groups"], body["index_version"], body["compared_version"]) == ([], 5, 1)


def test_an_answer_is_no_longer_than_the_setting(model: Path, growing: Path) -> None:
    write_groups(growing, [[3, 0, 1, 2], [5, 4], [6, 7], [8, 9]])
    with TestClient(create_app(ServiceSettings(model=model, index=growing, max_neighbors=3))) as client:
        body = client.get("/duplicates?k=3").json()
        [group] = body["groups"]
        assert (group["size"], group["farthest"], [item["id"] for item in group["items"]]) == (4, 3.0, [3, 0, 1])
        assert pages(client, 3) == [[[3, 0, 1]], [[5, 4]], [[6, 7]], [[8, 9]]]
        assert_problem(client.get("/duplicates?k=4"), 422, "at most 3")
        record = stored.read(growing)
        for group in record.groups:
            group.sha256s = ["0" * 64] * len(group.ids)
        stored.write(growing, record)
        assert pages(client, 3) == [[], [], []]  # a request looks at no more items than an answer may have


def test_what_another_model_or_program_left_is_not_shown(client: TestClient, growing: Path) -> None:
    write_groups(growing, [[5, 4]], fingerprint="f" * 64)
    assert_problem(client.get("/duplicates"), 404, "another model", "python -m indexer.duplicates")
    (growing / "duplicates.json").write_text("{}")
    assert_problem(client.get("/duplicates"), 503, "duplicates.json", "damaged")


def test_what_is_no_file_or_too_large_a_one_is_named(client: TestClient, growing: Path) -> None:
    path = growing / "duplicates.json"
    path.mkdir()
    assert_problem(client.get("/duplicates"), 503, "duplicates.json is not a file of at most", "python -m indexer.duplicates")
    path.rmdir()
    path.symlink_to(path.name)
    assert_problem(client.get("/duplicates"), 503, "duplicates.json cannot be read", "symbolic links")
    path.unlink()
    os.mkfifo(path)
    assert_problem(client.get("/duplicates"), 503, "duplicates.json is not a file")
    path.unlink()
    write_groups(growing, [[5, 4]])
    os.truncate(path, 2**26 + 1)
    assert_problem(client.get("/duplicates"), 503, "duplicates.json is not a file of at most")
