"""How far a training run has come."""

from pydantic import BaseModel, ConfigDict

from training.record import EpochRow


class Position(BaseModel):
    """How far a run has come, and the sums of the epoch that it is in."""

    model_config = ConfigDict(extra="forbid")

    epoch: int = 1
    step: int = 0  # the next one
    steps: int = 0  # done in all epochs
    loss: float = 0.0  # summed over photographs
    images: int = 0
    skipped: int = 0  # photographs that could not be read
    seconds: float = 0.0
    curve: list[EpochRow] = []

    def add(self, loss: float, images: int, skipped: int, seconds: float) -> None:
        """Counts a step that is done."""
        self.step, self.steps = self.step + 1, self.steps + 1
        self.loss, self.images, self.skipped = self.loss + loss, self.images + images, self.skipped + skipped
        self.seconds += seconds

    def validation_errors(self) -> list[float]:
        """Top-1 error on the validation photographs after each epoch; none where there are no such photographs."""
        return [row.top1_error for row in self.curve if row.top1_error is not None]

    def end_epoch(self, row: EpochRow) -> None:
        """Keeps an epoch's row and stands before the next."""
        self.curve.append(row)
        self.epoch, self.step, self.loss, self.images, self.skipped, self.seconds = self.epoch + 1, 0, 0.0, 0, 0, 0.0
