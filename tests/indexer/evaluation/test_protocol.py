"""Figures of methods from those of their queries and seeds: against definitions, and against queries drawn again one by one."""

import numpy as np
import pytest
from scipy import stats

from indexer.evaluation import protocol
from indexer.evaluation.intervals import Resamples
from indexer.evaluation.protocol import Figure, GroundTruth, Measurement, Method, result

KEY = ("precision", 1)


def figure(values_SQ: np.ndarray, others_SQ: np.ndarray | None = None, chance: bool = True) -> Figure:
    """Of a method whose queries have these values with each seed, compared with another."""
    method, other = (made(values, chance) if values is not None else None for values in (values_SQ, others_SQ))
    assert method
    return result(method, other, Resamples.of(values_SQ.shape[1])).precision[1]


def made(values_SQ: np.ndarray, chance: bool = True) -> Method:
    runs = [Measurement({KEY: np.repeat(values_Q.mean(), 3)}, {KEY: values_Q}) for values_Q in values_SQ]
    return Method("method", 16, 2, None, range(len(runs)) if chance else (), runs)


def drawn_again(values_Q: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(3)
    low, high = np.percentile([rng.choice(values_Q, len(values_Q)).mean() for _ in range(3000)], [2.5, 97.5])
    return float(low), float(high)


def test_the_interval_over_queries_is_of_means_over_seeds_and_that_over_seeds_of_means_over_queries() -> None:
    values_SQ = np.random.default_rng(0).random((3, 300)) * np.array([[0.2], [1.0], [0.6]])
    found = figure(values_SQ)
    assert found.expected == pytest.approx(values_SQ.mean())
    assert found.over_queries == pytest.approx(drawn_again(values_SQ.mean(0)), abs=0.004)
    assert found.over_seeds == pytest.approx(stats.ttest_1samp(values_SQ.mean(1), 0).confidence_interval(0.95))
    assert (found.difference, found.verdict) == (None, None)


def test_methods_are_compared_query_by_query() -> None:
    """A small gain on every query is one, though queries differ among themselves by far more."""
    rng = np.random.default_rng(0)
    queries_Q, seeds_S1 = rng.random(200), np.array([[-0.001], [0.0], [0.001]])
    others_SQ = queries_Q + seeds_S1
    better = figure(others_SQ + 0.02, others_SQ)
    assert better.verdict == "better"
    assert better.difference == pytest.approx(0.02)
    assert better.over_queries == figure(others_SQ + 0.02).over_queries
    worse = figure(others_SQ - 0.02, others_SQ)
    assert worse.verdict == "worse"
    assert worse.difference == pytest.approx(-0.02)
    assert figure(rng.permuted(others_SQ + 0.02, axis=1), others_SQ).verdict == "not told apart"


def test_a_difference_has_to_be_beyond_both_intervals() -> None:
    rng = np.random.default_rng(0)
    others_SQ = np.tile(rng.random(200), (3, 1))
    by_seeds = others_SQ + np.array([[-0.1], [0.02], [0.2]])
    assert figure(by_seeds, others_SQ).verdict == "not told apart"
    assert figure(by_seeds[:, :1].repeat(200, 1), others_SQ[:, :1].repeat(200, 1)).verdict == "not told apart"
    by_queries = others_SQ + 0.01 + rng.normal(0, 0.5, 200)
    assert figure(by_queries, others_SQ).verdict == "not told apart"
    assert figure(by_queries[:1], others_SQ[:1], chance=False).verdict == "not told apart"


def test_the_same_figures_in_another_order_of_seeds_are_not_better() -> None:
    values_SQ = np.random.default_rng(0).random((3, 50))
    differences = [float((values_SQ[order].mean(0) - values_SQ.mean(0)).max()) for order in ([2, 1, 0], [1, 2, 0])]
    assert 0 < max(differences) < 1e-15
    for order in ([2, 1, 0], [1, 2, 0]):
        assert figure(values_SQ[order], values_SQ).verdict == "not told apart"
    assert figure(np.full((3, 50), 0.1 + 0.2), np.full((3, 50), 0.3)).verdict == "not told apart"


@pytest.mark.parametrize("seeds", [(1, 3), (3, 1), (1, 1)])
def test_of_one_seed_there_is_no_verdict(seeds: tuple[int, int]) -> None:
    ours, theirs = (np.full((count, 20), value) for count, value in zip(seeds, (0.9, 0.1), strict=True))
    found = figure(ours, theirs)
    assert found.difference == pytest.approx(0.8)
    assert found.verdict is None


def test_figures_of_codes_are_those_over_orders_of_equal_distances() -> None:
    """Of 16 bits there are ties at every depth: expected is the mean over shuffles, best and worst are around all of them."""
    rng = np.random.default_rng(0)
    codes, asked = (rng.integers(0, 256, (rows, 2), np.uint8) for rows in (30, 5))
    held, own = np.sort(rng.integers(0, 3, 30)), rng.integers(0, 3, 5)
    run = GroundTruth(held, own).measure_codes(codes, asked, np.zeros((5, 0), np.int64))
    found = result(Method("method", 16, 2, None, (), [run]), None, Resamples.of(5))
    assert {1, 30} <= found.curve.keys()
    shuffles = [np.random.default_rng(seed).permutation(30) for seed in range(400)]
    distances_QN = np.unpackbits(codes ^ asked[:, None], axis=2).sum(2)
    ranked_QSN = np.array(
        [
            [held[order[np.argsort(distances_N[order], kind="stable")]] == label for order in shuffles]
            for distances_N, label in zip(distances_QN, own, strict=True)
        ]
    )
    sums_QSN = ranked_QSN.cumsum(2)
    there_Q1 = sums_QSN[:, 0, -1:]
    precisions_QS = (sums_QSN / np.arange(1, 31) * ranked_QSN).sum(2) / there_Q1
    figures = [(found.mean_average_precision[0], precisions_QS, 0.01)]
    figures += [(found.precision[depth], sums_QSN[:, :, depth - 1] / depth, 0.02) for depth in (1, 5, 10)]
    for depth in (1, 5, 30):
        figures.append((found.curve[depth][0], sums_QSN[:, :, depth - 1] / there_Q1, 0.01))
        figures.append((found.curve[depth][1], sums_QSN[:, :, depth - 1] / depth, 0.02))
    for figure, values_QS, accuracy in figures:
        assert figure.expected == pytest.approx(values_QS.mean(), abs=accuracy)
        assert figure.worst <= values_QS.min(1).mean() + 1e-9
        assert figure.best >= values_QS.max(1).mean() - 1e-9
    assert found.precision[5].worst < found.precision[5].expected < found.precision[5].best


def test_ten_in_hundred_looks_at_a_hundred_and_recall_at_as_many_as_it_is_of() -> None:
    """Codes tell the distance of each row: the ten nearest neighbours by FC7 are at the places 1, 11 and 51 to 58."""
    levels = np.arange(128)
    codes = np.packbits(levels[:, None] > np.arange(128), axis=1)
    nearest = np.concatenate([[0, 10], np.arange(50, 58), np.arange(1, 10), np.arange(11, 50), np.arange(58, 100)])[None]
    run = GroundTruth(np.zeros(128, np.int64), np.zeros(1, np.int64)).measure_codes(codes, np.zeros((1, 16), np.uint8), nearest)
    assert {key: float(value[0]) for key, value in run.values.items() if key[0] in {"recall", protocol.TEN_IN_HUNDRED[0]}} == {
        ("recall", 10): 0.1,
        ("recall", 100): 1.0,
        protocol.TEN_IN_HUNDRED: 1.0,
    }
