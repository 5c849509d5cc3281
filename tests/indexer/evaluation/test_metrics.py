"""Figures of rankings with ties, against all orders of the equals one after the other, and against figures worked out by hand."""

from collections.abc import Callable, Iterator
from itertools import permutations, product
from math import factorial

import numpy as np
import pytest

from indexer.evaluation import metrics
from indexer.evaluation.metrics import LabelledCodes, Order, Rankings, rank_codes, rank_lists, rank_vectors

OVER: dict[Order, Callable[..., float]] = {"expected": np.mean, "best": np.max, "worst": np.min}


def rankings_of(distances_N: np.ndarray, relevant_N: np.ndarray) -> Rankings:
    """One query's ranking, from the definition of a tie."""
    values = np.unique(distances_N)
    before = [int((distances_N < value).sum()) for value in values]
    size = [int((distances_N == value).sum()) for value in values]
    relevant = [int(relevant_N[distances_N == value].sum()) for value in values]
    return Rankings(*(np.array([column], np.int64) for column in (before, size, relevant)))


def all_orders(distances_N: np.ndarray, relevant_N: np.ndarray) -> Iterator[np.ndarray]:
    """The relevance of every place, for every order that sorting by distance could give."""
    groups = [relevant_N[distances_N == value] for value in np.unique(distances_N)]
    for order in product(*(permutations(group) for group in groups)):
        yield np.concatenate(order)


def average_precision(places_N: np.ndarray, depth: int) -> float:
    """Of one order, place by place."""
    right, total = 0, 0.0
    for place, is_relevant in enumerate(places_N[:depth], 1):
        if is_relevant:
            right += 1
            total += right / place
    return total / min(int(places_N.sum()), depth)


@pytest.mark.parametrize("seed", range(12))
def test_expected_best_and_worst_equal_those_over_all_orders(seed: int) -> None:
    rng = np.random.default_rng(seed)
    distances, relevant = rng.integers(0, 3, 8), rng.random(8) < 0.5
    relevant[rng.integers(8)] = True
    orders = list(all_orders(distances, relevant))
    assert len(orders) == np.prod([factorial(int((distances == value).sum())) for value in np.unique(distances)])
    rankings = rankings_of(distances, relevant)
    for depth in (1, 2, 3, 5, 8, 20):
        precisions = [average_precision(order, depth) for order in orders]
        founds = [order[:depth].sum() for order in orders]
        for order in metrics.ORDERS:
            assert metrics.average_precision(rankings, depth, order) == pytest.approx(OVER[order](precisions))
            assert metrics.count_relevant(rankings, depth, order) == pytest.approx(OVER[order](founds))


def test_four_codes_by_hand() -> None:
    """Distances 1, 2, 2, 3; relevant are the first of the pair and the last: orders R = 0 1 0 1 and 0 0 1 1.

    Average precisions (1/2 + 2/4) / 2 = 1/2 and (1/3 + 2/4) / 2 = 5/12.
    """
    codes = np.array([[0b0001], [0b0011], [0b0101], [0b0111]], np.uint8)
    database = LabelledCodes.of(codes, np.array([7, 3, 7, 3]))
    ranked, (nearest,) = rank_codes(database, np.zeros((1, 1), np.uint8), np.array([3]), [np.array([[0, 2]])])
    assert metrics.average_precision(ranked, 4, "best").tolist() == pytest.approx([1 / 2])
    assert metrics.average_precision(ranked, 4, "worst").tolist() == pytest.approx([5 / 12])
    assert metrics.average_precision(ranked, 4).tolist() == pytest.approx([11 / 24])
    assert [float(metrics.count_relevant(ranked, depth)[0]) for depth in (1, 2, 3, 4)] == [0, 0.5, 1, 2]
    assert [float(metrics.count_relevant(nearest, 2, order)[0]) for order in metrics.ORDERS] == [1.5, 2, 1]


@pytest.mark.parametrize("width", [2, 4, 6, 8, 16, 32])
def test_rankings_by_code_equal_those_by_exclusive_or(width: int) -> None:
    rng = np.random.default_rng(width)
    codes, asked = (rng.integers(0, 256, (rows, width), np.uint8) for rows in (90, 7))
    codes[40:60] = codes[0]
    asked[0] = ~codes[0]  # every bit differs
    labels, own, wanted = (
        rng.integers(0, 4, 90),
        rng.integers(0, 5, 7),
        rng.permuted(np.tile(np.arange(90), (7, 1)), axis=1)[:, :6],
    )
    ranked, (true,) = rank_codes(LabelledCodes.of(codes, labels), asked, own, [wanted])
    for i in range(7):
        distances = np.array([bin(int.from_bytes((code ^ asked[i]).tobytes())).count("1") for code in codes])
        for got, relevant in ((ranked, labels == own[i]), (true, np.isin(np.arange(90), wanted[i]))):
            expected = rankings_of(distances, relevant)
            for depth in (1, 17, 90):
                for order in metrics.ORDERS:
                    count = metrics.count_relevant(expected, depth, order)[0]
                    assert metrics.count_relevant(got, depth, order)[i] == pytest.approx(count)
            assert metrics.average_precision(got, 90)[i] == pytest.approx(metrics.average_precision(expected, 90)[0])


def test_rankings_by_vector_equal_brute_force_and_equal_distances_are_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "QUERY_BLOCK", 4)
    rng = np.random.default_rng(0)
    vectors, asked = (rng.integers(0, 3, (rows, 5)).astype(np.float32) for rows in (60, 10))
    labels, own = rng.integers(0, 4, 60), rng.integers(0, 4, 10)
    blocks = list(rank_vectors(vectors, labels, asked, own, k=9))
    precisions = {order: np.concatenate([metrics.average_precision(r, 60, order) for r, _ in blocks]) for order in metrics.ORDERS}
    nearest = np.concatenate([rows for _, rows in blocks])
    for i, query in enumerate(asked):
        squared = ((vectors - query) ** 2).sum(1)
        np.testing.assert_array_equal(nearest[i], np.lexsort((np.arange(60), squared))[:9])
        for order in metrics.ORDERS:
            expected = metrics.average_precision(rankings_of(squared, labels == own[i]), 60, order)[0]
            assert precisions[order][i] == pytest.approx(expected)
    assert (precisions["worst"] < precisions["expected"]).any()
    assert (precisions["expected"] < precisions["best"]).any()


@pytest.mark.parametrize("measure", ["cosine", "centred cosine"])
def test_rankings_by_cosine_equal_brute_force_and_a_vector_without_length_has_the_cosine_0(measure: metrics.Measure) -> None:
    rng = np.random.default_rng(0)
    vectors, asked = (rng.normal(2, 1, (rows, 5)).astype(np.float32) for rows in (60, 10))
    labels, own = rng.integers(0, 4, 60), rng.integers(0, 4, 10)
    centre = vectors.mean(0) if measure == "centred cosine" else np.zeros(5, np.float32)
    if measure == "cosine":
        vectors[7] = 0
    [(ranked, nearest)] = rank_vectors(vectors, labels, asked, own, 60, measure)
    precisions = metrics.average_precision(ranked, 60)
    for i, query in enumerate(asked - centre):
        rows = vectors - centre
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(query)
        distances = 1 - np.divide(rows @ query, lengths, out=np.zeros(60, np.float32), where=lengths > 0)
        np.testing.assert_array_equal(nearest[i], np.argsort(distances))
        expected = metrics.average_precision(rankings_of(distances, labels == own[i]), 60)[0]
        assert precisions[i] == pytest.approx(expected)


def test_a_list_without_ties_has_one_value_for_all_orders() -> None:
    ranked = rank_lists(np.array([[True, False, True], [False, False, False]]))
    assert not ranked.has_ties()
    for order in metrics.ORDERS:
        np.testing.assert_allclose(metrics.average_precision(ranked, 3, order), [5 / 6, 0])
        np.testing.assert_allclose(metrics.count_relevant(ranked, 2, order), [1, 0])


def test_random_codes_have_the_average_precision_of_chance() -> None:
    """All items in one tie of n, r of them relevant: ((r - 1) / (n - 1) (n - H) + H) / n, H the n-th harmonic number."""
    n, r = 50_000, 5_000
    one_tie = Rankings(np.array([[0]]), np.array([[n]]), np.array([[r]]))
    harmonic = sum(1 / i for i in range(1, n + 1))
    assert metrics.average_precision(one_tie, n)[0] == pytest.approx(((r - 1) / (n - 1) * (n - harmonic) + harmonic) / n)
