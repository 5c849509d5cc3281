"""What a model's description says of how the model was made and how good it is."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from training.images.folders import Part


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EpochRow(_Record):
    """What a run measured over one epoch, a line of `metrics.jsonl`."""

    epoch: int
    loss: float  # mean over the photographs of its steps
    lr: float
    seconds: float
    skipped: int  # photographs that could not be read
    images_per_second: float
    top1_error: float | None = None  # of the validation photographs; None where there are none
    validation_loss: float | None = None


class TrainingRecord(_Record):
    """How a run of training.train made a model."""

    settings: dict[str, JsonValue]  # those that the result follows from
    photographs: int  # trained on
    held_out: int  # for validation
    rejected: int
    seconds: float
    precision: Literal["float32", "bfloat16"]
    placement: str
    machine: str
    torch: str


class WeightsRecord(_Record):
    """Which file of others' weights a model was made of."""

    source: str
    sha256: str
    bytes: int
    note: str


class ErrorRates(_Record):
    """Top-1 and top-5 error, shares of the photographs counted."""

    views: Literal[1, 10]
    photographs: int
    top1_error: float
    top5_error: float


class ModelMetrics(_Record):
    """How good a model is: its last epoch, and its errors on the parts of a data set that it was measured on."""

    training: EpochRow | None = None
    train: list[ErrorRates] | None = None
    test: list[ErrorRates] | None = None
    all: list[ErrorRates] | None = None

    def with_errors(self, part: Part, rates: list[ErrorRates]) -> "ModelMetrics":
        """These, with the errors on one part replaced."""
        return self.model_copy(update={part: rates})
