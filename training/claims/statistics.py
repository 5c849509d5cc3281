"""What seeds say of a difference between two arms, and what they could have said.

The unit is a seed: both arms of a pair have its order, crops and, where shapes allow, its initial weights. The mean of the paired
differences has Student's interval over the seeds. A difference that was not found is told with the smallest that would have been
found in four of five such experiments: the power of the paired t test at 5 %, two-sided, is 80 % there (noncentral t).

A time that was not reached is censored: the difference is at least as large as it is with the time that the run was given.

Legend: S seeds.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

LEVEL: Final = 0.95
POWER: Final = 0.8
_MOST: Final = 10_000  # seeds that are looked at


@dataclass(frozen=True)
class Summary:
    """Paired differences over seeds."""

    mean: float  # with censored differences: at least
    low: float | None  # of Student's 95 % interval; None for one seed, or where a difference is censored
    high: float | None
    positive: int  # seeds
    negative: int
    censored: int  # seeds whose difference is at least as large as given
    deviation: float | None  # standard, over seeds; None where there is no interval
    detectable: float | None  # the smallest difference that would have been found

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def summary(differences_S: Sequence[float], censored_S: Sequence[bool] | None = None) -> Summary:
    """What at least one seed's differences say."""
    values_S = np.asarray(differences_S, np.float64)
    censored = sum(censored_S or ())
    positive, negative = int((values_S > 0).sum()), int((values_S < 0).sum())
    mean, count = float(values_S.mean()), len(values_S)
    if count < 2 or censored:
        return Summary(mean, None, None, positive, negative, censored, None, None)
    deviation = float(values_S.std(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * deviation / math.sqrt(count)
    return Summary(mean, mean - half, mean + half, positive, negative, 0, deviation, detectable(deviation, count))


def power(difference: float, deviation: float, seeds: int) -> float:
    """The share of experiments with so many seeds that find a true difference, whose seeds have this standard deviation."""
    if deviation == 0:
        return 1.0 if difference else 0.0
    limit = stats.t.ppf((1 + LEVEL) / 2, seeds - 1)
    shift = abs(difference) / deviation * math.sqrt(seeds)
    return float(stats.nct.sf(limit, seeds - 1, shift) + stats.nct.cdf(-limit, seeds - 1, shift))


def detectable(deviation: float, seeds: int) -> float:
    """The difference that is found with a power of 80 %."""
    if deviation == 0:
        return 0.0
    low, high = 0.0, 1.0
    while power(high, 1.0, seeds) < POWER:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, 1.0, seeds) < POWER else (low, middle)
    return high * deviation


def seeds_for(difference: float, deviation: float) -> int | None:
    """The fewest seeds that find a difference with a power of 80 %; None where ten thousand do not."""
    counts = range(2, _MOST + 1)
    found = bisect_left(counts, POWER, key=lambda seeds: power(difference, deviation, seeds))  # which grows with them
    return counts[found] if found < len(counts) else None


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test: of photographs that one of two ways has wrong and the other right."""
    count = only_first + only_second
    return float(stats.binomtest(only_first, count, 0.5).pvalue) if count else 1.0


def crossing(curve: Sequence[float], level: float) -> float | None:
    """When a curve first falls below `level`, in epochs, by straight lines between its points; None where it never does.

    A point is the mean over an epoch, so that the first stands at half an epoch; a curve that begins below was there by then.
    """
    for i, value in enumerate(curve):
        if value < level:
            before = curve[i - 1] if i else value
            share = (before - level) / (before - value) if before > value else 1.0
            return i - 0.5 + share if i else 0.5
    return None


def level_times(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """When each of two curves reaches the lowest level that both reach, in epochs; a point stands at the end of its epoch.

    None where one of them has no finite value.
    """
    lowest = [min(filter(math.isfinite, curve), default=math.inf) for curve in (first, second)]
    level = max(lowest) * (1 + 1e-9)
    one, other = (crossing(curve, level) for curve in (first, second))
    return None if one is None or other is None else (0.5 + one, 0.5 + other)
