"""Do the columns differ? One statistic of two groups of kernels compared, within a run and over runs.

Within a run the effect is Hedges' g: the difference of the groups' means in pooled standard deviations, corrected for small
groups. Its permutation test asks how often random groups of the same kernels lie as far apart. The kernels of a run share
photographs and loss, so they are no replication: a small p says that these two groups differ, not that columns do.

Over runs the unit is the run. Which column becomes the coloured one is arbitrary, so the sign of g is random. Its mean over runs
is near 0 even where columns always part, so |g| is taken. Chance alone gives |g| above 0, and more of it to small groups. So the
mean |g| of random groups of the same kernels is taken off. The rest, the excess, has mean 0 where columns part no further than by
chance.

Legend: N kernels of a group, P permutations, R runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from training.errors import FC7Error

_Floats = NDArray[np.float64]

PERMUTATIONS: Final = 9999
LEVEL: Final = 0.95
_SEED: Final = 0


@dataclass(frozen=True)
class Effect:
    """How far two groups of kernels lie apart in one statistic, in one run."""

    means: tuple[float, float]
    g: float  # Hedges' g, the second group less the first
    p: float  # share of random groups that lie at least as far apart, these two counted in
    by_chance: float  # mean |g| of random groups
    random_P: _Floats = field(repr=False)  # |g| of every permutation

    @property
    def excess(self) -> float:
        """|g| beyond that of random groups."""
        return abs(self.g) - self.by_chance


@dataclass(frozen=True)
class Interval:
    """A mean over runs and Student's 95 % interval around it."""

    mean: float
    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Whether 0 is outside."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class OverRuns:
    """How far two columns lie apart in one statistic, over runs that differ in their seed."""

    size: Interval  # |g|
    by_chance: float  # mean |g| of random groups of the same kernels
    excess: Interval  # |g| beyond that
    p: float  # share of random groups whose mean |g| over the runs is at least as large; for these runs, not for other seeds


def compare(first_N: ArrayLike, second_N: ArrayLike, permutations: int = PERMUTATIONS) -> Effect:
    """One statistic of the kernels of two groups; kernels without it (NaN) are left out.

    Raises FC7Error where a group has fewer than two kernels left. The same values give the same answer: the seed is fixed.
    Sources: Hedges, Journal of Educational Statistics 6 (1981); Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) for p.
    """
    groups = [_known(values) for values in (first_N, second_N)]
    sizes = len(groups[0]), len(groups[1])
    if min(sizes) < 2:
        raise FC7Error(f"columns are compared by two kernels of each at least, got {sizes[0]} and {sizes[1]} with this statistic")
    pooled = np.concatenate(groups)
    g = float(_hedges(pooled[None], sizes[0])[0])
    shuffled_PN = np.random.default_rng(_SEED).permuted(np.tile(pooled, (permutations, 1)), axis=1)
    random_P = np.abs(_hedges(shuffled_PN, sizes[0]))
    return Effect(
        means=(float(groups[0].mean()), float(groups[1].mean())),
        g=g,
        p=_share(random_P, abs(g)),
        by_chance=float(random_P.mean()),
        random_P=random_P,
    )


def over_runs(effects: Sequence[Effect]) -> OverRuns:
    """The same statistic over at least two runs.

    Source of the interval: Student's t over runs, which takes |g| of a run for normal; with three runs it is wide.
    """
    sizes = [abs(effect.g) for effect in effects]
    return OverRuns(
        size=interval(sizes),
        by_chance=float(np.mean([effect.by_chance for effect in effects])),
        excess=interval([effect.excess for effect in effects]),
        p=_share(_independently(effects), float(np.mean(sizes))),
    )


def beyond(effects: Sequence[Effect], controls: Sequence[Effect]) -> Interval:
    """How much larger the excess of runs is than that of control runs: Welch's interval for the difference of the means."""
    excesses = [[effect.excess for effect in group] for group in (effects, controls)]
    test = stats.ttest_ind(*excesses, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    return Interval(float(np.mean(excesses[0]) - np.mean(excesses[1])), float(low), float(high))


def interval(values_R: Sequence[float]) -> Interval:
    """Mean and Student's interval of at least two runs' values."""
    mean = float(np.mean(values_R))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values_R) - 1) * np.std(values_R, ddof=1) / math.sqrt(len(values_R)))
    return Interval(mean, mean - half, mean + half)


def _known(values: ArrayLike) -> _Floats:
    values_N = np.asarray(values, np.float64)
    return values_N[~np.isnan(values_N)]


def _hedges(values_PN: _Floats, first: int) -> _Floats:
    """Hedges' g of every row, whose first `first` values are the first group; 0 where all values are equal."""
    count = values_PN.shape[1]
    groups = values_PN[:, :first], values_PN[:, first:]
    means_2P = [group.mean(1) for group in groups]
    squares_P = sum(np.square(group - mean[:, None]).sum(1) for group, mean in zip(groups, means_2P, strict=True))
    freedom = count - 2
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    deviation_P = np.sqrt(np.maximum(squares_P / freedom, np.finfo(np.float64).tiny))
    return np.asarray(correction * (means_2P[1] - means_2P[0]) / deviation_P)


def _independently(effects: Sequence[Effect]) -> _Floats:
    """Mean |g| over the runs, every run's groups drawn without regard to the others'."""
    rng = np.random.default_rng(_SEED)
    return np.asarray(np.mean([rng.permutation(effect.random_P) for effect in effects], axis=0))


def _share(random_P: _Floats, observed: float) -> float:
    """Share of at least `observed`, which is counted in; rounding does not tell equal values apart."""
    return float((1 + np.count_nonzero(random_P >= observed * (1 - 1e-9))) / (1 + len(random_P)))
