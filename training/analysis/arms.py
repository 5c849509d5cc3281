"""First layers of several networks side by side: what their kernels are, and whether the columns differ.

An arm is a way to train, with several seeds: the figure's own, or a control. One column is compared by its halves, which are
arbitrary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from training.analysis import kernels
from training.analysis.difference import Effect, Interval, OverRuns, beyond, compare, over_runs
from training.analysis.kernels import COUNTS, STATISTICS, Kernel, Noise

FIGURE: Final = "figure3"
UNTRAINED: Final = "untrained"
COMPARED: Final = ("chroma", "frequency", "selectivity")  # named beforehand, as each more is one more chance to differ


@dataclass(frozen=True)
class Layer:
    """The first layer of one network."""

    arm: str
    seed: int
    columns: int
    kernels: list[Kernel]

    @property
    def halves(self) -> tuple[list[Kernel], list[Kernel]]:
        """The kernels of its two columns, or of the halves of its one column."""
        half = len(self.kernels) // 2
        return self.kernels[:half], self.kernels[half:]

    def effect(self, statistic: str) -> Effect:
        """How far the halves lie apart, over kernels that are not dead."""
        first, second = (
            [math.nan if (value := STATISTICS[statistic](kernel)) is None else value for kernel in half if not kernel.dead]
            for half in self.halves
        )
        return compare(first, second)


@dataclass(frozen=True)
class Comparison:
    """One statistic of the columns of one arm."""

    statistic: str
    arm: str
    effects: list[Effect]  # of every seed
    over: OverRuns | None  # over the seeds, where there are two or more
    beyond: Interval | None  # by how much the figure's excess is larger than this control's


def name(arm: str, seed: int) -> str:
    """A network's name in tables and folders."""
    return f"seed-{seed}" if arm == FIGURE else f"{arm}-seed-{seed}"


def comparisons(layers: Sequence[Layer]) -> list[Comparison]:
    """Every statistic of COMPARED for every arm; the figure's arm must be among them."""
    arms: dict[str, list[Layer]] = {}
    for layer in layers:
        arms.setdefault(layer.arm, []).append(layer)
    found = []
    for statistic in COMPARED:
        effects = {arm: [layer.effect(statistic) for layer in group] for arm, group in arms.items()}
        for arm, of_seeds in effects.items():
            several = len(of_seeds) > 1
            less = beyond(effects[FIGURE], of_seeds) if several and arm != FIGURE else None
            found.append(Comparison(statistic, arm, of_seeds, over_runs(of_seeds) if several else None, less))
    return found


def described(layers: Sequence[Layer], differences: Sequence[Comparison], noise: Noise) -> dict[str, Any]:
    """All figures, as JSON has them."""
    return {
        "layers": [
            {
                "arm": layer.arm,
                "seed": layer.seed,
                "columns": layer.columns,
                "all": asdict(kernels.summary(layer.kernels)),
                "halves": [asdict(kernels.summary(half)) for half in layer.halves],
            }
            for layer in layers
        ],
        "noise": asdict(noise),
        "differences": [
            {
                "statistic": comparison.statistic,
                "arm": comparison.arm,
                "seeds": [
                    {"means": effect.means, "g": effect.g, "p": effect.p, "by_chance": effect.by_chance}
                    for effect in comparison.effects
                ],
                "over_seeds": comparison.over and asdict(comparison.over),
                "figure3_beyond": comparison.beyond and asdict(comparison.beyond),
            }
            for comparison in differences
        ],
    }


def shown(layers: Sequence[Layer], differences: Sequence[Comparison], noise: Noise) -> Iterator[str]:
    """All figures, as tables of lines."""
    yield "".join([f"{'':22}", *(f"{column:>12}" for column in (*COUNTS, *COMPARED))])
    for layer in layers:
        found = kernels.summary(layer.kernels)
        counts = "".join(f"{f'{count} of {found.kernels}':>12}" for count in found.counts.values())
        means = "".join(f"{'-' if (mean := found.means[column]) is None else f'{mean:.3f}':>12}" for column in COMPARED)
        yield f"{name(layer.arm, layer.seed):22}{counts}{means}"
    shares = "".join(f"{share:>12.1%}" for share in noise.shares.values())
    yield f"{'white noise':22}{shares}" + "".join(f"{noise.ranges[column].mean:>12.3f}" for column in COMPARED)
    yield "Do the columns differ? Hedges' g of every seed, column 1 less column 0 (p by permuted kernels, no replication):"
    for comparison in differences:
        effects = ", ".join(f"{effect.g:+.2f} ({effect.p:.4f})" for effect in comparison.effects)
        yield f"  {comparison.statistic:12}{comparison.arm:12}  {effects}"
    if any(comparison.over for comparison in differences):
        yield "Over the seeds: mean |g| less that of random groups of the same kernels, with a 95 % interval:"
    for comparison in differences:
        if comparison.over:
            less = f"; the figure's less this {_shown(comparison.beyond)}" if comparison.beyond else ""
            excess = f"{_shown(comparison.over.excess)} (p {comparison.over.p:.4f})"
            yield f"  {comparison.statistic:12}{comparison.arm:12}  {excess}{less}"


def _shown(interval: Interval) -> str:
    return f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
