"""Two stages over HTTP, on an index where they are two: hits and pages against brute force over the rows on the short-lists."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from pydantic import SecretStr

from indexer.search.shortlist import ByPrincipal
from indexer.store import ALL
from service.app import create_app
from service.cursor import LONGEST, MOST_GIVEN, Cursor, Question
from service.settings import ServiceSettings
from tests.conftest import COLOURS, encoded, photograph
from tests.indexer.synthetic import LABELS, features, two_stage_index
from tests.service.calls import assert_problem, send
from training import checkpoint

KEY = "a key of these tests"
FIRST = 3000  # rows of the first segment; the second has the rest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two-stage") / "index"


@pytest.fixture(scope="module")
def x_ND(model: Path, folder: Path) -> NDArray[np.float64]:
    """The vector of every item, in order of id."""
    return two_stage_index(folder, checkpoint.load(model).fingerprint).astype(np.float64)


@pytest.fixture(scope="module")
def client(model: Path, folder: Path, x_ND: NDArray[np.float64]) -> Iterator[TestClient]:
    settings = ServiceSettings(model=model, index=folder, search_memory_bytes=0)  # which makes auto search in two stages
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def proposals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[int]]]:
    """Each short-list that a search of one query asks for: how many rows its segment has, and the rows proposed."""
    lists = []
    propose = ByPrincipal.candidates

    def recorded(self: ByPrincipal, queries_QD: Any, codes_QW: None, r: int, allowed_N: Any) -> NDArray[np.int64]:
        rows_QR = propose(self, queries_QD, codes_QW, r, allowed_N)
        [rows] = rows_QR.tolist()
        lists.append((len(self._rows_NP), [row for row in rows if row >= 0]))
        return rows_QR

    monkeypatch.setattr(ByPrincipal, "candidates", recorded)
    return lists


@pytest.fixture
def poor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes short-lists miss seven of eight of the rows that they propose; where an item is gone, another takes its place."""
    propose = ByPrincipal.candidates

    def candidates(self: ByPrincipal, queries_QD: Any, codes_QW: None, r: int, allowed_N: Any) -> NDArray[np.int64]:
        rows_QR = propose(self, queries_QD, codes_QW, 8 * r, allowed_N)
        mixed_QR = np.argsort(rows_QR * 7919 % 3001, axis=1, kind="stable")
        return np.take_along_axis(rows_QR, mixed_QR, 1)[:, :r]

    monkeypatch.setattr(ByPrincipal, "candidates", candidates)


@pytest.fixture
def living(model: Path, folder: Path, x_ND: NDArray[np.float64], tmp_path: Path) -> Iterator[TestClient]:
    """A service whose index a test may change."""
    index = Path(shutil.copytree(folder, tmp_path / "index", symlinks=True))
    settings = ServiceSettings(model=model, index=index, search="two-stage", api_key=SecretStr(KEY), max_neighbors=2000)
    with TestClient(create_app(settings), raise_server_exceptions=False, headers={"X-API-Key": KEY}) as client:
        yield client


def ranked(x_ND: NDArray[np.float64], query_D: NDArray[np.float64], ids: list[int]) -> list[tuple[int, float]]:
    """(id, distance) of these items by brute force: nearest first, equals by id."""
    distances = np.sqrt(np.square(x_ND[ids] - query_D).sum(1)).tolist()
    return sorted(zip(ids, distances, strict=True), key=lambda hit: (hit[1], hit[0]))


def check(neighbors: list[dict[str, Any]], expected: list[tuple[int, float]]) -> None:
    assert [neighbor["id"] for neighbor in neighbors] == [item for item, _ in expected]
    np.testing.assert_allclose([neighbor["distance"] for neighbor in neighbors], [d for _, d in expected], rtol=1e-6)


def search(client: TestClient, query: str, vector: list[float] | None = None) -> dict[str, Any]:
    body = None if vector is None else {"inputs": [{"vector": vector}]}
    response = client.post(f"/neighbors?{query}", json=body) if body else client.post(f"/neighbors?{query}")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert (answer["mode"], answer["metric"]) == ("two-stage", "euclidean")
    [result] = answer["results"]
    return dict(result)


def pages(client: TestClient, query: str, number: int, vector: list[float] | None = None) -> list[list[dict[str, Any]]]:
    """The first pages of a search, each by the cursor of the one before."""
    found, cursor = [], ""
    for _ in range(number):
        result = search(client, query + (f"&cursor={cursor}" if cursor else ""), vector)
        found.append(result["neighbors"])
        cursor = result["next"]
        assert cursor
    return found


def assert_in_order_and_once(neighbors: list[dict[str, Any]]) -> None:
    hits = [(neighbor["distance"], neighbor["id"]) for neighbor in neighbors]
    assert hits == sorted(hits)
    assert len({item for _, item in hits}) == len(hits)


@pytest.mark.parametrize("k", [1, 10, 40])
@pytest.mark.parametrize("label", [None, LABELS[1]])
@pytest.mark.parametrize("by", ["id", "vector"])
def test_hits_are_the_nearest_of_the_rows_on_the_short_lists(
    client: TestClient, x_ND: NDArray[np.float64], proposals: list[tuple[int, list[int]]], by: str, label: str | None, k: int
) -> None:
    query_D = x_ND[5] if by == "id" else features(1, seed=7)[0].astype(np.float64)
    query = f"mode=two-stage&k={k}" + (f"&label={label}" if label else "")
    result = search(client, query + "&id=5") if by == "id" else search(client, query, query_D.tolist())
    assert [rows for rows, _ in proposals[-2:]] == [FIRST, len(x_ND) - FIRST]
    assert all(len(proposed) < rows for rows, proposed in proposals)
    (_, first), (_, second) = proposals[-2:]
    on_lists = [*first, *(FIRST + row for row in second)]
    assert all(label in (None, LABELS[item % len(LABELS)]) for item in on_lists)
    check(result["neighbors"], ranked(x_ND, query_D, on_lists)[:k])


@pytest.mark.parametrize(("k", "number"), [(1, 20), (7, 30), (50, 4)])
@pytest.mark.parametrize("query", ["id=5", "id=5&mode=auto", f"id=1705&mode=two-stage&label={LABELS[1]}"])
def test_pages_are_parts_of_one_long_answer(client: TestClient, query: str, k: int, number: int) -> None:
    """Far past the first short-lists. Items 0 to 424 have a twin with the same vector, so many pages end between equals."""
    found = pages(client, f"{query}&k={k}", number)
    assert [len(page) for page in found] == [k] * number
    together = [neighbor for page in found for neighbor in page]
    assert_in_order_and_once(together)
    assert together == search(client, f"{query}&k={k * number}")["neighbors"]


def test_pages_past_the_first_short_lists_are_those_of_brute_force(
    client: TestClient, x_ND: NDArray[np.float64], proposals: list[tuple[int, list[int]]]
) -> None:
    """The first page goes by short-lists; those after it compare every row, so that none is missing."""
    query_D = features(1, seed=8)[0].astype(np.float64)
    found = pages(client, "k=20&mode=two-stage", 8, query_D.tolist())
    lengths = [len(proposed) for rows, proposed in proposals if rows == FIRST]
    assert 0 < max(lengths) < 160
    together = [neighbor for page in found for neighbor in page]
    check(together, ranked(x_ND, query_D, list(range(len(x_ND))))[:160])


def test_pages_of_an_upload_are_in_order_and_once(client: TestClient) -> None:
    photo = encoded(photograph(301, COLOURS["green"]))
    found: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(12):
        response = send(client, "/neighbors?k=11&mode=two-stage" + (f"&cursor={cursor}" if cursor else ""), photo)
        [result] = response.json()["results"]
        found += result["neighbors"]
        cursor = result["next"]
    assert_in_order_and_once(found)
    whole = send(client, f"/neighbors?k={12 * 11}&mode=two-stage", photo).json()["results"][0]["neighbors"]
    assert [neighbor["id"] for neighbor in found] == [neighbor["id"] for neighbor in whole]


def test_pages_of_duplicates_leave_the_item_out_and_keep_to_the_distance(client: TestClient, x_ND: NDArray[np.float64]) -> None:
    others = [hit for hit in ranked(x_ND, x_ND[9], list(range(len(x_ND)))) if hit[0] != 9]
    limit = others[30][1] + 1e-3
    expected = [hit for hit in others if hit[1] <= limit]
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None and len(found) <= len(expected):
        path = f"/items/9/duplicates?k=4&mode=two-stage&max_distance={limit}" + (f"&cursor={cursor}" if cursor else "")
        body = client.get(path).json()
        assert body["mode"] == "two-stage"
        found += body["neighbors"]
        cursor = body["next"]
    check(found, expected)
    assert cursor is None


def all_pages(client: TestClient, address: str, cursor: str | None = "") -> list[dict[str, Any]]:
    """What comes from a cursor on, by GET of duplicates or POST of neighbours; the first is `""`."""
    found = []
    while cursor is not None:
        path = address + (f"&cursor={cursor}" if cursor else "")
        response = client.post(path) if path.startswith("/neighbors") else client.get(path)
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["mode"] == "two-stage"
        page = body["results"][0] if "results" in body else body
        assert len(page["neighbors"]) <= int(address.split("k=")[1].split("&")[0])
        found += page["neighbors"]
        cursor = page["next"]
    return found


@pytest.mark.usefixtures("poor")
@pytest.mark.parametrize("k", [3, 10, 400])
@pytest.mark.parametrize("within", [None, 21.0])
@pytest.mark.parametrize("label", [None, LABELS[1]])
def test_pages_give_every_item_once_whatever_the_short_list_misses(
    client: TestClient, x_ND: NDArray[np.float64], label: str | None, within: float | None, k: int
) -> None:
    filters = (f"&label={label}" if label else "") + (f"&max_distance={within}" if within else "")
    expected = [
        hit
        for hit in ranked(x_ND, x_ND[5], list(range(len(x_ND))))
        if label in (None, LABELS[hit[0] % len(LABELS)]) and hit[1] <= (within or np.inf)
    ]
    assert len(expected) > 100
    first = search(client, f"id=5&k={k}&mode=two-stage{filters}")
    ids = [neighbor["id"] for neighbor in first["neighbors"]]
    assert k > 10 or ids != [item for item, _ in expected[:k]]
    check(first["neighbors"], [hit for hit in expected if hit[0] in ids])
    rest = all_pages(client, f"/neighbors?id=5&k=500&mode=auto{filters}", first["next"])
    check(rest, [hit for hit in expected if hit[0] not in ids])


@pytest.mark.usefixtures("poor")
def test_pages_of_duplicates_give_what_the_short_list_missed(client: TestClient, x_ND: NDArray[np.float64]) -> None:
    """Also where the list has fewer within the distance than were asked for, which ends no pages."""
    short = 0
    for item in range(9, 21):
        others = [hit for hit in ranked(x_ND, x_ND[item], list(range(len(x_ND)))) if hit[0] != item][:6]
        address = f"/items/{item}/duplicates?k=10&max_distance={others[-1][1] + 1e-3}"
        short += len(client.get(address).json()["neighbors"]) < len(others)
        found = all_pages(client, address)
        assert sorted(neighbor["id"] for neighbor in found) == sorted(one for one, _ in others)
    assert short > 2


def test_a_first_page_of_nothing_but_the_item_0_is_not_given_again(client: TestClient, x_ND: NDArray[np.float64]) -> None:
    expected = ranked(x_ND, x_ND[0], list(range(len(x_ND))))
    assert expected[0][0] == 0
    found = pages(client, "id=0&k=1", 3)
    check([neighbor for page in found for neighbor in page], expected[:3])


def remove(client: TestClient, items: list[int]) -> None:
    for item in items:
        assert client.delete(f"/items/{item}").status_code == 204


@pytest.mark.usefixtures("poor")
def test_pages_give_every_item_once_though_others_come_and_go(living: TestClient, x_ND: NDArray[np.float64]) -> None:
    """The first page cannot be told again once items of it are gone: others would be on it."""
    left = set(range(len(x_ND)))
    for item in (40, 800, 1500, 2400):
        page = search(living, f"id={item}&k=10")
        found = [neighbor["id"] for neighbor in page["neighbors"]]
        early = [one for one in found if one != item][::4]
        remove(living, early)
        rest = search(living, f"id={item}&k=30&cursor={page['next']}")
        second = [neighbor["id"] for neighbor in rest["neighbors"]]
        late = [second[1], second[-1]]
        remove(living, late)
        photo = encoded(photograph(900 + item, COLOURS["red"]))
        [added] = send(living, "/items", photo).json()["results"]
        third = all_pages(living, f"/neighbors?id={item}&k=1000", rest["next"])
        after = [neighbor for neighbor in third if neighbor["id"] != added["id"]]
        assert len(third) <= len(after) + 1
        remove(living, [added["id"]])
        left -= {*early}
        check(rest["neighbors"] + after, ranked(x_ND, x_ND[item], sorted(left - {*found})))
        left -= {*late}


@pytest.mark.usefixtures("poor")
def test_a_cursor_holds_the_longest_first_page(living: TestClient, x_ND: NDArray[np.float64]) -> None:
    page = search(living, f"id=5&k={MOST_GIVEN}")
    assert len(page["next"]) < 8000
    first = [neighbor["id"] for neighbor in page["neighbors"]]
    rest = all_pages(living, "/neighbors?id=5&mode=two-stage&k=2000", page["next"])
    check(rest, [hit for hit in ranked(x_ND, x_ND[5], list(range(len(x_ND)))) if hit[0] not in first])
    assert len(Cursor("two-stage", 1.0, 1, (2**62,) * MOST_GIVEN).text(question(living))) <= LONGEST


def test_a_first_page_that_no_cursor_could_hold_is_exact(living: TestClient, x_ND: NDArray[np.float64]) -> None:
    k = MOST_GIVEN + 1
    for mode in ("", "&mode=auto"):
        body = living.post(f"/neighbors?id=5&k={k}{mode}").json()
        assert body["mode"] == "exact"
        check(body["results"][0]["neighbors"], ranked(x_ND, x_ND[5], list(range(len(x_ND))))[:k])
    assert_problem(living.post(f"/neighbors?id=5&k={k}&mode=two-stage"), 422, "k", str(MOST_GIVEN), "mode=two-stage")


def question(client: TestClient) -> Question:
    return Question(client.post("/neighbors?id=5").json()["model"], "euclidean", "item 5", ALL, max_distance=None, radius=None)


def test_a_cursor_that_somebody_made_has_only_numbers_that_a_search_gives(client: TestClient) -> None:
    """Its seal has no key, so everybody can make one that is whole."""
    ask = question(client)
    far, ids = float("inf"), tuple(range(MOST_GIVEN))
    nan, long = float("nan"), (*ids, MOST_GIVEN)
    for key, item, given in [(far, 1, ()), (nan, 1, ()), (-1.0, 1, ()), (1.0, -2, ()), (1.0, 1, (2**63,)), (1.0, 1, long)]:
        text = Cursor("two-stage", key, item, given).text(ask)
        assert_problem(client.post(f"/neighbors?id=5&cursor={text}"), 422, "cursor", "undamaged")
    for key, item, given in [(0.0, -1, ids), (1e308, 2**63 - 1, ()), (0.0, -1, (2**63 - 1,) * MOST_GIVEN), (5.0, 3, (5, 5, 5))]:
        text = Cursor("two-stage", key, item, given).text(ask)
        neighbors = search(client, f"id=5&cursor={text}")["neighbors"]
        assert not {neighbor["id"] for neighbor in neighbors} & set(given)
        assert bool(neighbors) == (key < 1e308)
