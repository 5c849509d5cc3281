"""Intervals: against SciPy's tests, and against how often they hold what they are about."""

import numpy as np
import pytest
from scipy import stats

from indexer.evaluation.intervals import Interval, Resamples, over_seeds, over_seeds_of_difference, verdict


def test_the_interval_over_queries_holds_the_true_mean_as_often_as_it_says() -> None:
    """Of a beta distribution, whose mean is 2/7, from 200 queries: 95 % of 400 samples, with an error of about 1 %."""
    rng, resamples = np.random.default_rng(0), Resamples.of(200)
    intervals = [resamples.interval(rng.beta(2, 5, 200)) for _ in range(400)]
    assert np.mean([low < 2 / 7 < high for low, high in intervals]) == pytest.approx(0.95, abs=0.035)


def test_the_interval_over_queries_is_where_means_of_queries_drawn_again_lie() -> None:
    rng = np.random.default_rng(1)
    values = rng.beta(0.5, 0.5, 300)
    means = sorted(rng.choice(values, 300).mean() for _ in range(4000))
    assert Resamples.of(300).interval(values) == pytest.approx((means[100], means[-100]), abs=0.004)


def test_resamples_are_the_same_for_every_method_and_draw_every_query_as_often() -> None:
    weights = Resamples.of(50).weights_RQ
    np.testing.assert_array_equal(weights, Resamples.of(50).weights_RQ)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(weights.mean(0), 1 / 50, atol=0.003)
    assert Resamples.of(1).interval(np.array([0.25])) == (0.25, 0.25)


def test_the_interval_over_seeds_is_scipys() -> None:
    figures = [0.61, 0.64, 0.66]
    theirs = stats.ttest_1samp(figures, 0).confidence_interval(0.95)
    assert over_seeds(figures) == pytest.approx((theirs.low, theirs.high))
    assert over_seeds([0.61]) is None


def test_the_interval_of_a_difference_is_welchs_and_a_single_figure_is_without_chance() -> None:
    ours, theirs = [0.70, 0.71, 0.69], [0.60, 0.68, 0.62, 0.66]
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert over_seeds_of_difference(ours, theirs) == pytest.approx((expected.low, expected.high))
    alone = stats.ttest_1samp(np.array(ours) - 0.6, 0).confidence_interval(0.95)
    assert over_seeds_of_difference(ours, [0.6]) == pytest.approx((alone.low, alone.high))
    assert over_seeds_of_difference([0.6], ours) == pytest.approx((-alone.high, -alone.low))
    assert over_seeds_of_difference([0.7], [0.6]) is None
    assert over_seeds_of_difference([0.75, 0.75], [0.5, 0.5]) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(0.01, 0.2), (0.02, 0.1)], "better"),
        ([(-0.2, -0.01), None], "worse"),
        ([(0.01, 0.2), (-0.02, 0.1)], "not told apart"),
        ([(-0.01, 0.2), None], "not told apart"),
        ([(0.01, 0.2), (-0.3, -0.1)], "not told apart"),
        ([(0.0, 0.0)], "not told apart"),
        ([(1e-17, 1e-17), (2e-16, 2e-16)], "not told apart"),
        ([(-3e-13, -2e-13), None], "not told apart"),
        ([(2e-9, 1e-8)], "better"),
        ([(-1e-8, -2e-9)], "worse"),
    ],
)
def test_a_method_is_better_where_every_interval_says_so(intervals: list[Interval | None], expected: str) -> None:
    assert verdict(intervals) == expected
