"""How large the claims are measured: photographs, epochs, seeds."""

from dataclasses import dataclass
from typing import Final, Literal

from training.claims.arm import BATCH, Arm, Data, RunSpec
from training.claims.measuring import CLEAN, TRAIN

Size = Literal["quick", "full", "large", "long"]
PILOT_SEED: Final = 1000  # rates are chosen with it, and nothing is measured
PILOT_SHARES: Final[dict[Data, int]] = {"cifar": 3, "caltech": 2}  # AlexNet-67 is at chance after a third of its epochs


@dataclass(frozen=True)
class Scale:
    """What a run of each data set has. A pilot has as many photographs, and a share of the epochs where it does not wait."""

    images: dict[Data, int]
    all_images: int  # that an arm which asks for all has at most
    tests: dict[Data, int]  # photographs, at most
    epochs: dict[Data, int]
    until_error: int  # epochs that a run which waits for a training error has at most
    pilots: bool  # else every arm takes the middle of its grid
    seeds: int | None  # at most; None for each claim's own

    def spec(self, arm: Arm, rate: float, seed: int, available: int) -> RunSpec:
        """The run of an arm, where `available` photographs are there to train on."""
        waits = arm.until_error is not None
        epochs = self.until_error if waits else self.epochs[arm.data]
        if arm.all_images:
            epochs = max(1, epochs // 2)  # which have more steps each
        if arm.half_of_classes:
            epochs *= 2  # of half the photographs: as many steps
        pilot = seed == PILOT_SEED
        if pilot and not waits:
            epochs = max(1, epochs // PILOT_SHARES[arm.data])
        images = min(self.all_images if arm.all_images else self.images[arm.data], available)
        return RunSpec(arm=arm, rate=rate, seed=seed, epochs=epochs, images=images, tests=self.tests[arm.data], pilot=pilot)


SCALES: Final[dict[Size, Scale]] = {
    "quick": Scale(
        {"cifar": 4_000, "caltech": 1_200},
        4_000,
        {"cifar": 2_000, "caltech": 1_000},
        {"cifar": 4, "caltech": 5},
        6,
        pilots=False,
        seeds=1,
    ),
    "full": Scale(
        {"cifar": 10_000, "caltech": 3_000},
        50_000,
        {"cifar": 8_000, "caltech": 2_000},
        {"cifar": 20, "caltech": 40},
        40,
        pilots=True,
        seeds=None,
    ),
    "large": Scale(
        {"cifar": 50_000, "caltech": 3_000},
        50_000,
        {"cifar": 10_000, "caltech": 6_000},
        {"cifar": 30, "caltech": 60},
        60,
        pilots=True,
        seeds=None,
    ),
    "long": Scale(
        {"cifar": 50_000, "caltech": 3_000},
        50_000,
        {"cifar": 10_000, "caltech": 6_000},
        {"cifar": 240, "caltech": 60},
        60,
        pilots=False,
        seeds=None,
    ),
}
# Photographs a second that one core trains on, about: what weighs the runs against each other for the time left
RATES: Final[dict[Data, float]] = {"cifar": 2600.0, "caltech": 600.0}
_FLOAT32: Final = 1.6  # times as long as bfloat16
_FORWARD: Final = 3  # times as many pass through the network where nothing is learnt from them


def work(spec: RunSpec) -> float:
    """Seconds of one core that a run takes, about."""
    whole = 2.0 if spec.arm.net.get("input_size") == 32 else 1.0
    measured = spec.held_out if spec.pilot else spec.tests
    trained_on = spec.trained_on / 2 if spec.arm.half_of_classes else spec.trained_on
    looked = spec.views * measured + min(TRAIN, spec.trained_on) + spec.epochs * min(CLEAN, spec.trained_on)
    if spec.arm.float32:
        whole *= _FLOAT32
    return whole * (spec.epochs * trained_on + looked / _FORWARD) / RATES[spec.arm.data] + BATCH[spec.arm.data] / 64
