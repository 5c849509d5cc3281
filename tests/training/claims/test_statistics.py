"""Intervals, power, McNemar's test and censored times against other ways to compute them."""

import math
from math import comb

import numpy as np
import pytest
from scipy import stats

from training.claims.claim import ratio
from training.claims.report import row
from training.claims.statistics import crossing, detectable, level_times, mcnemar, power, seeds_for, summary


def test_the_interval_is_that_of_scipys_paired_t_test() -> None:
    first, second = [0.31, 0.29, 0.335, 0.30, 0.32], [0.30, 0.285, 0.31, 0.305, 0.30]
    found = summary([a - b for a, b in zip(first, second, strict=True)])
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert (found.positive, found.negative, found.decided) == (4, 1, bool(expected.low > 0))


def test_one_seed_has_a_direction_and_no_interval() -> None:
    found = summary([-1.5])
    assert (found.mean, found.low, found.high, found.detectable, found.decided) == (-1.5, None, None, None, False)
    assert (found.positive, found.negative) == (0, 1)


def test_differences_that_are_all_equal_have_an_interval_without_width() -> None:
    found = summary([2.0, 2.0, 2.0])
    assert (found.low, found.high, found.detectable, found.decided) == (2.0, 2.0, 0.0, True)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_power_is_the_share_of_simulated_experiments_that_reject(seeds: int) -> None:
    draws = np.random.default_rng(0).normal(0.8, 0.5, (40_000, seeds))
    share = float((stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean())
    assert power(0.8, 0.5, seeds) == pytest.approx(share, abs=0.01)


def test_the_detectable_difference_has_a_power_of_four_in_five_and_scales_with_the_spread() -> None:
    assert power(detectable(0.7, 5), 0.7, 5) == pytest.approx(0.8, abs=1e-6)
    assert detectable(1.4, 5) == pytest.approx(2 * detectable(0.7, 5))


def test_seeds_are_as_many_as_the_table_of_paired_t_tests_says() -> None:
    # Cohen, Statistical Power Analysis (1988), d = .8 and 1 for a one-sample two-sided test at 5 % and 80 %: 15 and 10
    assert seeds_for(0.8, 1.0) == 15
    assert seeds_for(1.0, 1.0) == 10
    assert seeds_for(1e-6, 1.0) is None


def test_mcnemars_p_is_a_sum_of_binomial_coefficients() -> None:
    assert mcnemar(2, 8) == pytest.approx(2 * sum(comb(10, i) for i in range(3)) / 2**10)
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 0) == 1.0


def test_a_curve_crosses_between_the_middles_of_two_epochs() -> None:
    # epochs' means .5, .3, .2 stand at .5, 1.5 and 2.5: .25 is half way between the last two
    assert crossing([0.5, 0.3, 0.2], 0.25) == pytest.approx(2.0)
    assert crossing([0.2, 0.1], 0.25) == 0.5
    assert crossing([0.5, 0.3], 0.25) is None


def test_equal_losses_are_compared_at_the_lowest_that_both_reach() -> None:
    # the slower ends at 1.0 after 4 epochs; the faster has it after its second
    assert level_times([4.0, 3.0, 2.0, 1.0], [2.0, 1.0, 0.5, 0.1]) == pytest.approx((4.0, 2.0))


def test_losses_that_are_no_numbers_are_not_waited_for() -> None:
    nan = math.nan
    assert level_times([4.0, 3.0, 2.0, nan], [nan, 3.0, 2.0, 1.0]) == pytest.approx((3.0, 3.0))
    assert level_times([nan], [2.0, 1.0]) is None


def test_a_seed_in_which_only_the_first_got_there_counts_against_the_claim() -> None:
    [found] = ratio("tanh over ReLU", [(20.0, 4.0), (24.0, 4.0), (10.0, None), (None, None)], 30.0, published=6.0, note="rates 1")
    told = row(found)
    assert (told.seeds, told.positive, told.negative, told.verdict) == ([5.0, 6.0], 2, 1, "not resolved")
    assert told.note == "rates 1; seeds not in the mean, in which only the first got there: 1"


def test_censored_ratios_bound_the_mean_and_have_no_interval() -> None:
    # two of three networks took over 30 epochs where their twins took 6 and 10; the third took 40 for 8
    found = summary([math.log(30 / 6), math.log(30 / 10), math.log(40 / 8)], [True, True, False])
    assert math.exp(found.mean) == pytest.approx((5 * 3 * 5) ** (1 / 3))
    assert (found.low, found.high, found.censored, found.positive) == (None, None, 2, 3)
