"""The learning rates of every epoch.

Sources: paper, section 5; the log in the 2012 code's layer-params-145-2010.cfg.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Schedule = Literal["constant", "plateau", "source", "cosine"]
DROPS: Final = 3  # "reduced three times prior to termination": paper, section 5

# From epoch; learning rate and conv1's, as shares of the first; colour noise
_SOURCE_LOG: Final = (
    (1, 1.0, 1.0, True),
    (23, 1e-1, 1e-1, True),
    (51, 1e-2, 1e-2, True),
    (68, 1e-2, 1e-3, False),
    (72, 1e-2, 0.0, False),
    (78, 1e-3, 0.0, False),
)


@dataclass(frozen=True)
class Rates:
    """What holds for one epoch."""

    lr: float
    conv1_lr: float  # 0 where conv1 is frozen
    colour: bool  # whether colours are shifted

    def of_groups(self, bias_lr: float | None, conv1_times: float = 1.0) -> dict[str, float]:
        """Learning rates by the optimiser's groups; biases keep a rate of their own where `bias_lr` gives one.

        conv1's weights learn `conv1_times` as fast as the schedule has it.
        """
        conv1_bias = (bias_lr or self.conv1_lr) if self.conv1_lr else 0.0
        return {
            "weights": self.lr,
            "biases": bias_lr or self.lr,
            "conv1.weights": conv1_times * self.conv1_lr,
            "conv1.biases": conv1_bias,
        }


def rates(schedule: Schedule, lr: float, epoch: int, epochs: int, patience: int, errors: Sequence[float], chance: float) -> Rates:
    """The rates of `epoch` (from 1), from the validation `errors` after the epochs before it.

    plateau: a tenth when the error has not improved for `patience` epochs, three times at most (paper, section 5); `chance` as
    `plateaus` has it. source: as logged in 2012. cosine: from lr down to 0 over `epochs`.
    """
    if schedule == "source":
        _, share, conv1, colour = max(row for row in _SOURCE_LOG if row[0] <= epoch)
        return Rates(lr * share, lr * conv1, colour)
    if schedule == "plateau":
        lr *= 10.0 ** -min(plateaus(errors, patience, chance), DROPS)
    elif schedule == "cosine":
        lr *= 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs))
    return Rates(lr, lr, colour=True)


def plateaus(errors: Sequence[float], patience: int, chance: float) -> int:
    """How many times the error has gone `patience` epochs without a new best, once it was below `chance`.

    `chance` is the error of naming the same class always. A network that has not beaten it stands on the plateau on which it
    began, which a lower rate makes longer.
    """
    best, stale, count = math.inf, 0, 0
    for error in errors:
        best, stale = (error, 0) if error < best else (best, stale + (best < chance))
        if stale == patience:
            stale, count = 0, count + 1
    return count
