"""Two stages that are two stages: a short-list much shorter than its segments, answers and pages against brute force."""

from dataclasses import replace

import numpy as np
import pytest

from indexer.index import Index
from indexer.search.shortlist import ByPrincipal
from indexer.store import START, Filter, Query
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


@pytest.fixture
def misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every short-list miss each third row."""
    propose = ByPrincipal.candidates

    def candidates(self: ByPrincipal, queries_QD: np.ndarray, codes_QW: None, r: int, allowed_N: np.ndarray | None) -> np.ndarray:
        mask_N = np.ones(len(self._rows_NP), np.uint8) if allowed_N is None else allowed_N.copy()
        mask_N[::3] = 0
        return propose(self, queries_QD, codes_QW, r, mask_N)

    monkeypatch.setattr(ByPrincipal, "candidates", candidates)


@pytest.mark.usefixtures("misses")
@pytest.mark.parametrize("label", [None, LABELS[1]])
@pytest.mark.parametrize("k", [1, 50, 100])
def test_pages_give_every_item_once_and_in_order_from_the_second_on(
    two_stage: tuple[Index, np.ndarray], lengths: list[tuple[int, int]], label: str | None, k: int
) -> None:
    store, x_ND = two_stage
    query_D = features(1, seed=6)[0]
    filter = Filter() if label is None else Filter((label,))
    wanted = [item for item in nearest(x_ND, query_D) if label is None or LABELS[item % len(LABELS)] == label]
    found = [item for item, _, _ in store.search(query_D[None], Query(k=k, mode="two-stage", filter=filter)).of(0)]
    assert len(found) == k
    assert k == 1 or label or found != wanted[:k]
    assert all(proposed < rows for proposed, rows in lengths if rows == 3000)
    lengths.clear()
    rest = Query(k=500, mode="two-stage", filter=filter, after=START, without=tuple(found))
    while page := store.search(query_D[None], rest).of(0):
        found += [item for item, _, _ in page]
        rest = replace(rest, after=(page[-1][2], page[-1][0]))
    assert found[k:] == [item for item in wanted if item not in found[:k]]
    assert not lengths
