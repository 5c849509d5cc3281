"""How large the claims are measured: photographs, epochs, seeds."""

from dataclasses import dataclass
from typing import Final, Literal

from training.claims.arm import BATCH, Arm, Data, RunSpec
from training.claims.measuring import CLEAN, TRAIN

Size = Literal["quick", "full", "large"]
PILOT_SEED: Final = 1000  # rates are chosen with it, and nothing is measured


@dataclass(frozen=True)
class Scale:
    """What a run of each data set has. A pilot has as many photographs, and fewer epochs where those tell rates apart.

    A third of AlexNet-67's epochs do not: its pilots ended at chance then.
    """

    images: dict[Data, int]
    tests: dict[Data, int]  # photographs, at most
    epochs: dict[Data, int]
    until_error: int  # epochs that a run which waits for a training error has at most
    pilots: bool  # else every arm takes the middle of its grid
    seeds: int | None  # at most; None for each claim's own

    def spec(self, arm: Arm, rate: float, seed: int, available: int) -> RunSpec:
        """The run of an arm, where `available` photographs are there to train on."""
        waits = arm.until_error is not None
        epochs = self.until_error if waits else self.epochs[arm.data]
        pilot = seed == PILOT_SEED
        shares = 5 if waits else 3 if arm.data == "cifar" else 1
        epochs = max(1, epochs // shares) if pilot else epochs
        if arm.half_of_classes:
            epochs *= 2  # of half the photographs: as many steps
        images = min(self.images[arm.data], available)
        return RunSpec(arm=arm, rate=rate, seed=seed, epochs=epochs, images=images, tests=self.tests[arm.data], pilot=pilot)


SCALES: Final[dict[Size, Scale]] = {
    "quick": Scale(
        {"cifar": 4_000, "caltech": 1_200},
        {"cifar": 2_000, "caltech": 1_000},
        {"cifar": 4, "caltech": 5},
        6,
        pilots=False,
        seeds=1,
    ),
    "full": Scale(
        {"cifar": 10_000, "caltech": 3_000},
        {"cifar": 8_000, "caltech": 2_000},
        {"cifar": 20, "caltech": 30},
        60,
        pilots=True,
        seeds=None,
    ),
    "large": Scale(
        {"cifar": 50_000, "caltech": 3_000},
        {"cifar": 10_000, "caltech": 6_000},
        {"cifar": 30, "caltech": 60},
        60,
        pilots=True,
        seeds=None,
    ),
}
# Photographs a second that one core trains on, about: what weighs the runs against each other for the time left
RATES: Final[dict[Data, float]] = {"cifar": 1500.0, "caltech": 450.0}
_FORWARD: Final = 3  # times as many pass through the network where nothing is learnt from them


def work(spec: RunSpec) -> float:
    """Seconds of one core that a run takes, about."""
    whole = 1.6 if spec.arm.net.get("input_size") == 32 else 1.0
    measured = spec.held_out if spec.pilot else spec.tests
    looked = spec.views * measured + min(TRAIN, spec.trained_on) + spec.epochs * min(CLEAN, spec.trained_on)
    return whole * (spec.epochs * spec.trained_on + looked / _FORWARD) / RATES[spec.arm.data] + BATCH[spec.arm.data] / 64
