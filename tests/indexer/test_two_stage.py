"""Two stages that are two stages: a short-list much shorter than its segments, answers and pages against brute force."""

import numpy as np
import pytest

from indexer.index import Index
from indexer.search.shortlist import ByPrincipal
from indexer.store import Filter, Query
from tests.indexer.synthetic import LABELS, features


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows proposed, rows there) of every short-list that is asked for."""
    calls = []
    propose = ByPrincipal.candidates

    def recorded(self: ByPrincipal, queries_QD: np.ndarray, codes_QW: None, r: int, allowed_N: np.ndarray | None) -> np.ndarray:
        calls.append((r, len(self._rows_NP)))
        return propose(self, queries_QD, codes_QW, r, allowed_N)

    monkeypatch.setattr(ByPrincipal, "candidates", recorded)
    return calls


def nearest(x_ND: np.ndarray, query_D: np.ndarray) -> list[int]:
    """All ids by distance, then id, by brute force."""
    squared = np.square(x_ND.astype(np.float64) - query_D.astype(np.float64)).sum(1)
    return np.lexsort((np.arange(len(x_ND)), squared)).tolist()  # type: ignore[no-any-return]


def test_only_the_rows_of_a_short_list_are_compared(two_stage: tuple[Index, np.ndarray], lengths: list[tuple[int, int]]) -> None:
    store, _ = two_stage
    store.search(features(3, seed=5), Query(k=10, mode="two-stage"))
    assert lengths == [(50, 3000), (50, 400)]


def test_answers_are_those_of_brute_force_as_often_as_the_manifest_says(two_stage: tuple[Index, np.ndarray]) -> None:
    store, x_ND = two_stage
    queries_QD = features(100, seed=5)
    hits = store.search(queries_QD, Query(k=10, mode="two-stage"))
    shares = []
    for row, query_D in enumerate(queries_QD):
        shares.append(np.isin(nearest(x_ND, query_D)[:10], hits.ids_QK[row]).mean())
        distances = np.sqrt(np.square(x_ND[hits.ids_QK[row]].astype(np.float64) - query_D).sum(1))
        np.testing.assert_allclose(hits.distances_QK[row], distances, rtol=1e-6)
    assert np.mean(shares) >= store.manifest.recall["two-stage"] - 0.005


@pytest.mark.parametrize("label", [None, LABELS[1]])
def test_pages_past_the_first_short_list_are_those_of_brute_force(
    two_stage: tuple[Index, np.ndarray], lengths: list[tuple[int, int]], label: str | None
) -> None:
    store, x_ND = two_stage
    query_D = features(1, seed=6)[0]
    filter = Filter() if label is None else Filter((label,))
    wanted = [item for item in nearest(x_ND, query_D) if label is None or LABELS[item % len(LABELS)] == label]
    found: list[int] = []
    after = None
    while len(found) < 200:
        page = store.search(query_D[None], Query(k=20, mode="two-stage", filter=filter, after=after)).of(0)
        assert len(page) == 20
        found += [item for item, _, _ in page]
        after = (page[-1][2], page[-1][0])
    assert found == wanted[:200]
    assert all(proposed < rows for proposed, rows in lengths if rows == 3000)
