"""What a claim compares, and what one run of it is asked for and gives; all of it is JSON on disk."""

import hashlib
import json
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from training.network.alexnet import PROFILES, AlexNetConfig
from training.network.cifar import CifarConfig, Start
from training.run.colour import Reading
from training.run.recipe import PRESETS
from training.run.schedule import rates

Data = Literal["cifar", "caltech"]
_FIGURE3: Final = PRESETS["figure3"]  # AlexNet-67 is the network and the recipe of this preset
PIXEL_SCALE: Final = _FIGURE3["pixel_scale"]
BATCH: Final[dict[Data, int]] = {"cifar": 128, "caltech": _FIGURE3["batch_size"]}
SIDE: Final[dict[Data, int]] = {"cifar": 32, "caltech": 128}  # of the squares that crops are cut from, pixels
NETWORK: Final[dict[Data, str]] = {"cifar": "CIFAR net", "caltech": "AlexNet-67"}
# The grid that rates are chosen from, by validation, for each start
RATES: Final[dict[Data, dict[Start, tuple[float, ...]]]] = {
    "cifar": {"paper": (3e-4, 1e-3, 3e-3), "fan-in": (3e-3, 1e-2, 3e-2)},
    "caltech": {"fan-in": (5e-3, 1e-2, 2e-2)},
}


class _Record(BaseModel):
    # the losses of a network that diverged are no numbers, and JSON has none of those
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Arm(_Record):
    """One way to train: the fields in which it departs from its data set's network and recipe."""

    data: Data
    net: dict[str, JsonValue] = {}  # fields of CifarConfig or of AlexNetConfig
    start: Start = "fan-in"
    crops: bool = True  # random crops and mirrors; else the centre
    colour: Reading = "none"
    decay: bool = True
    until_error: float | None = None  # training ends once the running training error is below
    all_images: bool = False  # every photograph there is, at a size that has time for them
    float32: bool = False  # throughout; else bfloat16 on a processor, TensorFloat-32 on a GPU, where it has that
    half_of_classes: bool = False  # every other class, by name, is left out; the network never sees its photographs

    @property
    def rates(self) -> tuple[float, ...]:
        """The grid of its learning rate."""
        return RATES[self.data][self.start]

    def cifar(self, classes: int) -> CifarConfig:
        """The four-layer network on crops of 24 pixels from 32."""
        scale = 1.0 if self.start == "paper" else PIXEL_SCALE
        return CifarConfig.model_validate({"classes": classes, "input_size": 24, "pixel_scale": scale, **self.net})

    def alexnet(self, classes: int) -> AlexNetConfig:
        """AlexNet-67: the paper's network, both columns, on crops of 67 pixels from squares of 128."""
        fields: dict[str, Any] = {name: _FIGURE3[name] for name in ("square_size", "input_size", "hidden")}
        fields |= {"classes": classes, "pixel_scale": (PIXEL_SCALE,) * 3, **self.net}
        return PROFILES["paper"].with_fields(**fields)


class RunSpec(_Record):
    """One run: an arm with everything that its result follows from."""

    arm: Arm
    rate: float
    seed: int
    epochs: int
    images: int  # the first so many training photographs
    tests: int  # the first so many test photographs, at most
    pilot: bool  # trained on four fifths of them and measured on the rest; else measured on the test part

    @property
    def name(self) -> str:
        """A file name that no other run has."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def trained_on(self) -> int:
        """How many photographs it trains on."""
        return self.images - self.held_out

    @property
    def views(self) -> int:
        """How many views of each photograph that it is measured on: the centre, and ten more where it was trained on crops."""
        return 11 if self.arm.crops and not self.pilot else 1

    @property
    def held_out(self) -> int:
        """How many of its photographs it is measured on in place of the test part."""
        return self.images // 5 if self.pilot else 0

    def rate_in(self, epoch: int) -> float:
        """The learning rate of an epoch, from 1: by a cosine to 0, or constant where a training error is waited for."""
        schedule: Literal["constant", "cosine"] = "constant" if self.arm.until_error is not None else "cosine"
        return rates(schedule, self.rate, epoch, self.epochs, 1, [], 1.0).lr


class Epoch(_Record):
    """What a run measured over one epoch."""

    error: float  # running: over the batches as they were trained on
    loss: float
    clean_loss: float  # after it, on the centre views of the first training photographs, nothing dropped


class Errors(_Record):
    """Counts on the photographs that a run was measured on."""

    photographs: int
    centre: int  # wrong from the centre view
    ten: int  # wrong from ten views averaged
    only_centre: int  # wrong from the centre view and right from ten
    only_ten: int


class Figures(_Record):
    """What a claim measured of the network that a run left, by name; nothing of one that diverged."""

    figures: dict[str, float]


class RunResult(_Record):
    """What a run gave."""

    spec: RunSpec
    curve: list[Epoch]
    train: Errors  # on the first training photographs
    test: Errors  # of a pilot: on the photographs held out
    parameters: int
    operations: int  # multiplications and additions of the forward pass, an image
    seconds: float
    machine: str
    commit: str
    torch: str

    @property
    def running(self) -> list[float]:
        """The running training error of every epoch."""
        return [epoch.error for epoch in self.curve]

    @property
    def error(self) -> float:
        """The share wrong from the centre view, of the photographs that it was not trained on."""
        return self.test.centre / self.test.photographs

    @property
    def gap(self) -> float:
        """That less the same of photographs that it was trained on."""
        return self.error - self.train.centre / self.train.photographs
