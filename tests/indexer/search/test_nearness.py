"""What brings two together is measured against the rest of a collection, by formula."""

import math
from pathlib import Path

import numpy as np
import pytest

from indexer.index import open_index
from indexer.metric import Metric
from indexer.search import nearness
from tests.indexer.synthetic import features


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_growth_is_that_of_the_distance_less_the_mean_of_the_others(metric: Metric) -> None:
    x_ND = features(9, width=20)
    if metric == "cosine":
        x_ND /= np.linalg.norm(x_ND, axis=1, keepdims=True)
    covered, other, rest = x_ND[:3], x_ND[3], x_ND[4:]

    def distance(a: list[float], b: list[float]) -> float:
        return math.dist(a, b) if metric == "euclidean" else 1 - sum(x * y for x, y in zip(a, b, strict=True))

    expected = []
    for row in covered.tolist():
        grown = [distance(row, to) - distance(covered[0].tolist(), to) for to in (other.tolist(), *rest.tolist())]
        expected.append(grown[0] - sum(grown[1:]) / len(rest))
    np.testing.assert_allclose(nearness.growth(covered, other, rest, metric), expected, rtol=1e-4, atol=1e-6)


def test_what_moves_a_photograph_from_all_alike_is_worth_nothing() -> None:
    away = np.zeros((2, 4), np.float32)
    away[1, 3] = 100  # as far from every vector below, which have nothing there
    vectors = features(6, width=4) * np.array([1, 1, 1, 0], np.float32)
    alike = np.repeat(vectors[:1], 5, axis=0)
    assert nearness.growth(away, alike[0], alike[1:], "euclidean") == pytest.approx([0, 0], abs=1e-9)


def test_alone_in_a_collection_the_growth_is_the_distances_own() -> None:
    found = nearness.growth(
        np.array([[0, 0], [3, 4]], np.float32), np.zeros(2, np.float32), np.empty((0, 2), np.float32), "euclidean"
    )
    assert found.tolist() == [0, 5]


def test_the_rest_are_spread_over_the_collection_without_those_left_out(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearness, "MOST", 5)
    store = open_index(index)
    ids = store.ids().tolist()
    chosen = [ids[0], ids[6], ids[17], ids[23]]  # of 24 every 5.75th, less the middle one
    middle = ids[round(2 * 23 / 4)]
    np.testing.assert_array_equal(nearness.rest(store, [middle]), store.vectors(chosen))
    store.close()
