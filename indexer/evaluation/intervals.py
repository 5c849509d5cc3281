"""How sure a figure is: over other queries, and over other seeds; and when one method is better than another.

Over queries by the bootstrap (Efron & Tibshirani 1993): the queries are drawn again with replacement, and the interval is where
the middle 95 % of the means lie. Every method is measured on the same draws, so that a difference is one between pairs. Over
seeds by Student's t, and Welch's for a difference.

Legend: Q queries, R resamples, S seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy.stats import t

from indexer.arrays import Floats, Vectors

Interval = tuple[float, float]
Verdict = Literal["better", "worse", "not told apart"]
LEVEL: Final = 0.95
RESAMPLES: Final = 1000
LEAST_DIFFERENCE: Final = 1e-9  # that counts: rounding in float64 stays below 1e-12, and reports have 4 digits
_TAILS: Final = (50 * (1 - LEVEL), 50 * (1 + LEVEL))


@dataclass(frozen=True)
class Resamples:
    """How often each of Q queries is drawn in each of 1000 resamples, as a share of Q."""

    weights_RQ: Vectors

    @classmethod
    def of(cls, queries: int, seed: int = 0) -> "Resamples":
        """The resamples of so many queries."""
        counts_RQ = np.random.default_rng(seed).multinomial(queries, np.full(queries, 1 / queries), RESAMPLES)
        return cls((counts_RQ / queries).astype(np.float32))

    def interval(self, values_Q: Floats) -> Interval:
        """Of the mean of float64 (Q,) values."""
        low, high = np.percentile(self.weights_RQ @ values_Q, _TAILS)
        return float(low), float(high)


def over_seeds(means: Sequence[float]) -> Interval | None:
    """Of the mean over seeds, from each seed's figure; None for a single one."""
    if len(means) < 2:
        return None
    return _student(float(np.mean(means)), float(np.var(means, ddof=1)) / len(means), len(means) - 1)


def over_seeds_of_difference(means: Sequence[float], others: Sequence[float]) -> Interval | None:
    """Of the difference between two means over seeds (Welch 1947); a single figure is one without chance. None for two such."""
    parts = [(float(np.var(of, ddof=1)) / len(of), len(of) - 1) for of in (means, others) if len(of) > 1]
    if not parts:
        return None
    variance = sum(part for part, _ in parts)
    weight = sum(part**2 / freedom for part, freedom in parts)
    freedom = variance**2 / weight if weight else min(freedom for _, freedom in parts)
    return _student(float(np.mean(means) - np.mean(others)), variance, freedom)


def verdict(intervals: Sequence[Interval | None]) -> Verdict:
    """Of a difference: better or worse where every interval is beyond LEAST_DIFFERENCE on one side of 0."""
    known = [interval for interval in intervals if interval is not None]
    if all(low > LEAST_DIFFERENCE for low, _ in known):
        return "better"
    return "worse" if all(high < -LEAST_DIFFERENCE for _, high in known) else "not told apart"


def _student(mean: float, variance: float, freedom: float) -> Interval:
    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(variance)
    return mean - half, mean + half
