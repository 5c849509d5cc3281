"""How far a training run has come."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Position:
    """How far a run has come, and the sums of the epoch that it is in."""

    epoch: int = 1
    step: int = 0  # the next one
    steps: int = 0  # done in all epochs
    loss: float = 0.0  # summed over photographs
    images: int = 0
    skipped: int = 0
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)  # one row an epoch

    def add(self, loss: float, images: int, skipped: int, seconds: float) -> None:
        """Counts a step that is done."""
        self.step, self.steps = self.step + 1, self.steps + 1
        self.loss, self.images, self.skipped = self.loss + loss, self.images + images, self.skipped + skipped
        self.seconds += seconds

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Keeps an epoch's row and stands before the next."""
        self.curve.append(row)
        self.epoch, self.step, self.loss, self.images, self.skipped, self.seconds = self.epoch + 1, 0, 0.0, 0, 0, 0.0
