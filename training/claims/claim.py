"""A claim of the paper as this package measures it; a module of training/claims/paper holds one, by the name CLAIM."""

import importlib
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from training.claims import paper
from training.claims.arm import Arm, RunResult
from training.claims.pixels import Pixels
from training.network.alexnet import AlexNet

Unit = Literal[
    "points",  # of error, per cent
    "times",  # a ratio, which is compared by its logarithm
    "g",  # Hedges'
    "share",  # of the distance between photographs
    "precision",  # points of mAP or of precision at 10, per cent; more is better
]


class Results(Protocol):
    """The runs that are there."""

    @property
    def seeds(self) -> int:
        """How many were asked for."""

    def of(self, arm: Arm, seed: int) -> RunResult | None:
        """The run of an arm with a seed, at the rate chosen for the arm; None where it has not been made."""

    def tried(self, arm: Arm) -> list[RunResult]:
        """The runs that chose the arm's rate, a rate of the grid each, as far as they have been made."""

    def figures(self, claim: str, arm: Arm, seed: int) -> Mapping[str, float] | None:
        """What a claim's `examine` gave of that run's network; None where there is nothing yet."""


@dataclass(frozen=True)
class Left:
    """What there is to examine after a run of AlexNet-67."""

    arm: Arm
    seed: int
    net: AlexNet  # trained, on the device of the photographs, as for inference
    train: Pixels  # where it was trained on half of the classes, those of the others too
    test: Pixels
    mean_CSS: Tensor  # which is taken off its crops


@dataclass(frozen=True)
class Comparison:
    """A row of a claim: one figure of every seed."""

    label: str
    unit: Unit
    seeds: Sequence[float]  # in the unit; the logarithm of a ratio
    censored: Sequence[bool] = ()
    against: int = 0  # more seeds, without a figure, whose sign is negative
    unfit: bool = False  # what is censored is so by its rate
    published: float | None = None  # in the same unit, a ratio as it is
    p: float | None = None  # McNemar's, over photographs, where the figure is paired by photograph
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """What is claimed, what is compared, and what would be nothing."""

    name: str
    section: str  # of the paper, by which claims are ordered
    says: str
    published: str  # by the paper, and by the log of the 2012 code
    nothing: str
    arms: Mapping[str, Arm]
    measure: Callable[[Results], list[Comparison]]
    seeds: int = 5  # at full size
    long: bool = False  # measured by --long, which measures nothing else
    # Gives figures by name, of the network that each run of its arms left; done after the runs, from the weights that they left
    examine: Callable[[Left], dict[str, float]] | None = None


def claims() -> list[Claim]:
    """All of them, in the order of the paper."""
    modules = [importlib.import_module(f"{paper.__name__}.{module.name}") for module in pkgutil.iter_modules(paper.__path__)]
    found: list[Claim] = [module.CLAIM for module in modules]
    return sorted(found, key=lambda claim: (claim.section, claim.name))


def pairs(results: Results, first: Arm, second: Arm) -> list[tuple[RunResult, RunResult]]:
    """The seeds that both arms have a run of."""
    both = [(results.of(first, seed), results.of(second, seed)) for seed in range(results.seeds)]
    return [(one, other) for one, other in both if one is not None and other is not None]


def difference(
    results: Results, label: str, without: Arm, base: Arm, *, gap: bool = False, published: float | None = None, note: str = ""
) -> list[Comparison]:
    """The error of one arm less that of another, in points, a seed each; or so with their gaps between training and test.

    No row where no seed has both.
    """
    found = pairs(results, without, base)
    values = [100 * ((one.gap - other.gap) if gap else (one.error - other.error)) for one, other in found]
    return [Comparison(label, "points", values, published=published, note=note)] if values else []


def ratio(
    label: str,
    times: Sequence[tuple[float | None, float | None]],
    given: float,
    *,
    published: float | None = None,
    note: str = "",
    unfit: bool = False,
) -> list[Comparison]:
    """How many times as long the first took as the second, a seed each, by logarithms; `given` is what a run had.

    A first time that was not reached makes the ratio at least what it is with `given`. A second time that was not reached leaves
    the seed without a figure: where the first was reached, it counts against the claim; where neither was, it says nothing. With
    `unfit` a rate that is too high kept the first from being reached, and a bound says nothing either.
    """
    known = [(first, second) for first, second in times if second is not None]
    values = [math.log((given if first is None else first) / second) for first, second in known]
    censored = [first is None for first, _ in known]
    against = sum(first is not None and second is None for first, second in times)
    if against:
        note = "; ".join(filter(None, [note, f"seeds not in the mean, in which only the first got there: {against}"]))
    if unfit:
        note = "; ".join(filter(None, [note, "not resolved, for a run did not get there at a rate whose pilot did"]))
    return [Comparison(label, "times", values, censored, against, unfit, published, note=note)] if values else []
