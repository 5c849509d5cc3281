"""Columns compared: against SciPy, values computed by hand, and simulated kernels whose true effect is known."""

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from training.analysis.difference import beyond, compare, interval, over_runs
from training.errors import FC7Error

FIRST = [1.0, 2.0, 3.0, 4.0]
SECOND = [3.0, 4.0, 5.0, 8.0]


def simulated(seed: int, effect: float, count: int = 48) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A statistic of the kernels of two columns that truly lie `effect` standard deviations apart."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, count), rng.normal(effect, 1, count)


def test_the_effect_is_hedges_g_as_computed_by_hand() -> None:
    # means 2.5 and 5; squares about them 5 and 14, so the pooled deviation is sqrt(19 / 6)
    # the correction for 6 degrees of freedom: gamma(3) / (sqrt(3) * gamma(2.5)) = 2 / (sqrt(3) * 1.32934)
    by_hand = 2 / (math.sqrt(3) * 1.3293403881791370) * 2.5 / math.sqrt(19 / 6)
    effect = compare(FIRST, SECOND)
    assert effect.means == (2.5, 5.0)
    assert effect.g == pytest.approx(by_hand, rel=1e-12)
    assert effect.g == pytest.approx((1 - 3 / (4 * 6 - 1)) * 2.5 / math.sqrt(19 / 6), rel=2e-3)  # the usual approximation
    assert compare(SECOND, FIRST).g == pytest.approx(-by_hand, rel=1e-12)


def test_p_and_chance_are_those_of_all_seventy_ways_to_form_the_groups() -> None:
    values = FIRST + SECOND
    correction = compare(FIRST, SECOND).g / (2.5 / math.sqrt(19 / 6))
    sizes = []
    for chosen in itertools.combinations(range(8), 4):
        a, b = [values[i] for i in chosen], [values[i] for i in range(8) if i not in chosen]
        pooled = math.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2)
        sizes.append(abs(np.mean(b) - np.mean(a)) / pooled * correction)
    effect = compare(FIRST, SECOND)
    assert effect.p == pytest.approx(np.mean(np.array(sizes) >= abs(effect.g) - 1e-9), abs=0.015)
    assert effect.by_chance == pytest.approx(np.mean(sizes), rel=0.03)
    assert effect.excess == abs(effect.g) - effect.by_chance


def test_p_is_scipys_permutation_test() -> None:
    for effect in (0.0, 0.3, 0.5):
        first, second = simulated(5, effect)
        test = stats.permutation_test(
            (first, second), lambda a, b, axis: np.mean(a, axis) - np.mean(b, axis), vectorized=True, random_state=1
        )
        assert compare(first, second).p == pytest.approx(test.pvalue, abs=0.02)


def test_kernels_without_the_statistic_are_left_out_and_too_few_are_an_error() -> None:
    nan = float("nan")
    assert compare([nan, *FIRST], [*SECOND, nan, nan]).g == compare(FIRST, SECOND).g
    with pytest.raises(FC7Error, match="two kernels of each at least, got 4 and 1 with this statistic"):
        compare(FIRST, [nan, 1.0])


def test_kernels_that_are_all_alike_do_not_differ() -> None:
    effect = compare([0.5] * 4, [0.5] * 4)
    assert (effect.g, effect.p, effect.excess) == (0, 1, 0)


def test_a_known_effect_is_recovered() -> None:
    effects = [compare(*simulated(seed, 0.8), permutations=99) for seed in range(400)]
    assert np.mean([effect.g for effect in effects]) == pytest.approx(0.8, abs=3 * 0.21 / 20)  # sd of g: sqrt(2/48 + g^2/192)


def test_without_a_difference_p_is_uniform_and_the_excess_is_zero_on_average() -> None:
    for count in (48, 24):
        effects = [compare(*simulated(seed, 0.0, count), permutations=499) for seed in range(400)]
        assert stats.kstest([effect.p for effect in effects], "uniform").pvalue > 0.01
        by_chance = math.sqrt(2 / count) * math.sqrt(2 / math.pi)  # mean |g| of a normal g with variance 2/n
        assert np.mean([effect.by_chance for effect in effects]) == pytest.approx(by_chance, rel=0.02)
        assert interval([effect.excess for effect in effects]).low < 0 < interval([effect.excess for effect in effects]).high


def test_columns_that_part_in_a_random_direction_are_seen_over_runs_though_the_mean_effect_is_not() -> None:
    signs = np.random.default_rng(3).choice([-1, 1], 12)
    effects = [compare(*simulated(seed, 0.8 * sign)) for seed, sign in enumerate(signs)]
    assert interval([effect.g for effect in effects]).low < 0 < interval([effect.g for effect in effects]).high
    found = over_runs(effects)
    assert found.size.low < 0.8 < found.size.high
    assert found.excess.excludes_zero()
    assert found.p == 1e-4


def test_p_over_runs_is_uniform_without_a_difference() -> None:
    p = [over_runs([compare(*simulated(3 * seed + i, 0.0), 199) for i in range(3)]).p for seed in range(200)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_p_over_runs_takes_the_groups_of_every_run_at_random_for_itself() -> None:
    effect = compare(*simulated(0, 0.2))
    alone, twice = effect.p, over_runs([effect, effect]).p
    assert 0.05 < alone < 0.5
    assert twice < 0.9 * alone  # the mean of two is seldom as large as one


def test_the_intervals_are_students_and_welchs() -> None:
    # t(0.975, 2) = 4.302653, standard error of 1, 2, 6: sqrt(7 / 3)
    found = interval([1.0, 2.0, 6.0])
    assert (found.mean, found.high) == pytest.approx((3, 3 + 4.302653 * math.sqrt(7 / 3)), rel=1e-6)
    assert not found.excludes_zero()
    runs = [compare(*simulated(seed, 0.9)) for seed in range(4)]
    controls = [compare(*simulated(seed, 0.0, 24)) for seed in range(10, 13)]
    a, b = ([effect.excess for effect in group] for group in (runs, controls))
    variances = np.var(a, ddof=1) / 4, np.var(b, ddof=1) / 3
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 3 + variances[1] ** 2 / 2)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(variances))
    found = beyond(runs, controls)
    assert found.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))
