"""Which runs the claims need: pilots first, which choose the rates, then every arm with every seed, seed by seed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from training.claims.arm import Arm, Data, Figures, RunResult, RunSpec
from training.claims.claim import Claim
from training.claims.scale import PILOT_SEED, Scale
from training.claims.statistics import crossing
from training.claims.workers import Examination, Place, read_record


@dataclass(frozen=True)
class Plan:
    """The runs of some claims at a scale; as Results, those of them that are there."""

    claims: Sequence[Claim]
    scale: Scale
    place: Place
    available: Mapping[Data, int]  # photographs to train on
    most: int | None  # seeds, in place of each claim's

    @property
    def seeds(self) -> int:
        """The most that any claim has."""
        return max((self.seeds_of(claim) for claim in self.claims), default=0)

    def seeds_of(self, claim: Claim) -> int:
        """How many seeds a claim is measured with."""
        return self.most or min(claim.seeds, self.scale.seeds or claim.seeds)

    def of_claim(self, claim: Claim) -> "Plan":
        """The same for one claim."""
        return replace(self, claims=[claim])

    def made(self, spec: RunSpec) -> RunResult | None:
        """The result of a run; None where it has not been made."""
        return read_record(RunResult, self.place.result(spec))

    def left(self, specs: Sequence[RunSpec]) -> list[RunSpec]:
        """Those that are to be made: without a result, or without the weights that are still to be examined."""
        lost = {one.spec.name for one in self.examinations() if not self.place.model(one.spec).is_file()}
        return [spec for spec in specs if self.made(spec) is None or spec.name in lost]

    def pilots(self) -> list[RunSpec]:
        """A run for each rate of each arm; none where the scale takes the middle of the grids."""
        every = [self._pilot(arm, rate) for arm in self._arms() for rate in arm.rates] if self.scale.pilots else []
        return list({spec.name: spec for spec in every}.values())

    def runs(self) -> list[RunSpec]:
        """The runs that are measured; those of one seed stand together, so that what is there at any time is pairs."""
        return [
            self._spec(arm, self.rate(arm), seed)
            for seed in range(self.seeds)
            for arm in _once(arm for claim in self.claims if seed < self.seeds_of(claim) for arm in claim.arms.values())
        ]

    def examinations(self) -> list[Examination]:
        """What claims measure of the networks that runs left, and have not yet."""
        every = [Examination(claim.name, spec) for claim in self.claims if claim.examine for spec in self.of_claim(claim).runs()]
        return [examination for examination in every if read_record(Figures, self.place.figures(examination)) is None]

    def rate(self, arm: Arm) -> float:
        """The rate of the pilot with the smallest error on photographs held out; for an arm that waits, of the fastest.

        An arm that trains on all photographs takes that of the same arm on fewer.
        """
        found = self.tried(arm)
        return min(found, key=_merit).spec.rate if found else arm.rates[len(arm.rates) // 2]

    def tried(self, arm: Arm) -> list[RunResult]:
        """As Results has it."""
        return [result for rate in arm.rates if self.scale.pilots and (result := self.made(self._pilot(arm, rate)))]

    def of(self, arm: Arm, seed: int) -> RunResult | None:
        """As Results has it."""
        return self.made(self._spec(arm, self.rate(arm), seed))

    def figures(self, claim: str, arm: Arm, seed: int) -> Mapping[str, float] | None:
        """As Results has it."""
        found = read_record(Figures, self.place.figures(Examination(claim, self._spec(arm, self.rate(arm), seed))))
        return found.figures if found else None

    def _arms(self) -> list[Arm]:
        return _once(arm for claim in self.claims for arm in claim.arms.values())

    def _pilot(self, arm: Arm, rate: float) -> RunSpec:
        return self._spec(arm.model_copy(update={"all_images": False}), rate, PILOT_SEED)

    def _spec(self, arm: Arm, rate: float, seed: int) -> RunSpec:
        return self.scale.spec(arm, rate, seed, self.available[arm.data])


def _merit(result: RunResult) -> tuple[float, float]:
    """The smaller the better."""
    goal = result.spec.arm.until_error
    if goal is None:
        return 0.0, result.error
    return crossing(result.running, goal) or math.inf, result.running[-1]


def _once(arms: Iterable[Arm]) -> list[Arm]:
    return list({arm.model_dump_json(): arm for arm in arms}.values())
