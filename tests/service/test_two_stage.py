"""Two stages over HTTP, on an index where they are two: hits and pages against brute force over the rows on the short-lists."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from indexer.search.shortlist import ByPrincipal
from service.app import create_app
from service.settings import ServiceSettings
from tests.conftest import COLOURS, encoded, photograph
from tests.indexer.synthetic import LABELS, features, two_stage_index
from tests.service.calls import send
from training import checkpoint

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
