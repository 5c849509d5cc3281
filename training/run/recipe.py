"""The recipe of a training run: its settings, the presets that fill them in, and the network that they describe."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, JsonValue, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from training.images.preprocess import ImageLimits, MaxImageBytes, MaxImagePixels
from training.images.squares import Keep
from training.network.alexnet import LAYERS, PROFILES, AlexNetConfig, Layer, Nonlinearity, Profile
from training.network.initialisation import Scheme
from training.program import Settings, expected
from training.run.colour import Reading
from training.run.precision import Precision
from training.run.schedule import Schedule

Preset = Literal["paper", "source", "quick", "figure3"]

# Steps with which weights from N(0, 0.01) learn. They stay at chance first: for 530 steps of the demo's photographs (crops of 67
# pixels, 14 classes), for 1 000 to 8 000 of ImageNet in Caffe, in some runs for good (https://github.com/BVLC/caffe/issues/401,
# .../2085); its authors found the loss flat with the paper's biases of 1 (https://github.com/BVLC/caffe/pull/327)
STEPS_NEEDED: Final = 10_000
# What departs from the defaults of training.train, which are the paper's
PRESETS: Final[dict[Preset, dict[str, Any]]] = {
    "paper": {},
    "source": {
        "profile": "source",
        "init": "source",
        "epochs": 93,
        "bias_lr": 0.02,
        "schedule": "source",
        "colour": "deviation",
        "validation": 0.0,
    },
    "quick": {
        "init": "fan-in",
        "conv1_std": 0.0015,
        "conv1_lr": 0.048,
        "conv1_decay": 2e-3,
        "conv1_whitening": 0.25,
        "pixel_scale": 1 / 64,
        "patch_epochs": 80,
        "epochs": 9,
        "batch_size": 32,
        "lr": 0.012,
        "schedule": "cosine",
        "max_gradient": 5.0,
        "colour": "none",
        "validation": 0.0,
    },
    "figure3": {
        "square_size": 128,
        "input_size": 67,
        "hidden": 512,
        "init": "fan-in",
        "conv1_std": 0.0015,
        "conv1_lr": 0.04,
        "conv1_decay": 2e-3,
        "conv1_whitening": 0.2,
        "pixel_scale": 1 / 64,
        "epochs": 22,
        "batch_size": 32,
        "schedule": "cosine",
        "max_gradient": 5.0,
        "colour": "none",
        "validation": 0.0,
    },
}

# What the network of patch pre-training has of its own
_PATCHES: Final = {"square_size": 128, "input_size": 67, "hidden": 256}
# Where and how watchfully a run goes on: what it computes does not depend on these
_CONDUCT: Final = {
    "out", "devices", "ranks_a_network", "keep", "save_minutes", "tensorboard", *ImageLimits.model_fields,
}  # fmt: skip
_KNOBS: Final = (
    "square_size", "input_size", "nonlinearity", "lrn_after", "lrn_alpha", "pool_size", "pool_stride", "exchange", "hidden",
    "dropout",
)  # fmt: skip
# What a model to start from brings with it
_BROUGHT: Final = ("profile", "columns", "pixel_scale", "conv1_std", *(name for name in _KNOBS if name != "dropout"))
# What is for a network that starts from noise
_FROM_NOISE: Final = (*_BROUGHT, "patch_epochs", "conv1_lr", "conv1_decay", "conv1_whitening")


class TrainSettings(Settings):
    """Train AlexNet's two columns on an image folder by the 2012 recipe.

    DIR/<class>/<photograph> or DIR/train/<class>/<photograph>; in the first case a fifth of the photographs, chosen by the
    hash of their bytes, is never trained on. Interrupted by Ctrl-C or power-off, the same command goes on where it was.

    The defaults are the paper's. `--preset source` follows the released 2012 code and its log; `--preset quick` is for small
    collections and short runs; `--preset figure3` is for first-layer kernels in minutes, from small crops. What you give beside
    a preset holds.

    Two GPUs: --devices cuda:0,cuda:1, or `torchrun --nproc-per-node 2 -m training.train --devices cuda ...` for a column on
    each rank; with 4, 6 and more ranks, replicas of such pairs share the batch.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m training.train")
    resumes = True

    data: Path = Field(Path("var/images"), description="image folder to train on")
    out: Path = Field(Path("var/model"), description="folder for model.safetensors and model.json")
    preset: Preset = Field("paper", description="recipe that sets the defaults of the others")

    profile: Profile = Field("paper", description="network; `python -m training.profiles` shows the four")
    square_size: int | None = Field(
        None,
        ge=128,
        le=256,
        multiple_of=128,
        description="height and width of the squares that crops are cut from, pixels; 256 in the paper, or 128",
    )
    input_size: int | None = Field(None, ge=67, le=256, description="height and width of the crops, pixels; 224 in the paper")
    nonlinearity: Nonlinearity | None = Field(None, description="after every layer but fc8, in place of the profile's ReLU")
    lrn_after: tuple[int, ...] | None = Field(None, description="convolutional layers that LRN follows; [] for none")
    lrn_alpha: float | None = Field(
        None,
        ge=0,
        description="weight of the squares in LRN; 1e-4 in the paper, for pixels on 0..255: with pixel-scale 1/64, 0.41 does "
        "the same",
    )
    pool_size: int | None = Field(None, ge=1, description="max-pooling window, pixels; 3 in the paper, 2 without overlap")
    pool_stride: int | None = Field(None, ge=1, description="distance between max-pooling windows; 2 in the paper")
    columns: int | None = Field(None, ge=1, le=2, description="1 for half the kernels, and as many units, as the paper's network")
    exchange: bool | None = Field(None, description="no: the columns meet at the logits only")
    hidden: int | None = Field(None, ge=1, le=16_384, description="units of fc6 and of fc7 in each column; 2048 in the paper")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="share of fc6 and fc7 units dropped at each step; 0.5 in the paper"
    )
    pixel_scale: float | None = Field(
        None, gt=0, description="what pixels are multiplied by before conv1; 1 in the paper, 1/64 = 0.015625 goes with fan-in"
    )
    init: Scheme = Field(
        "paper", description="initial weights: the paper's N(0, 0.01), or scaled by fan-in, which short runs on small data need"
    )
    conv1_std: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="standard deviation of conv1's initial weights; that of init where not given",
    )
    start: Path | None = Field(None, description="model to start from, with its network and mean; fc8 is new for other classes")
    frozen: tuple[Layer, ...] = Field((), description="layers that keep their weights, as in conv1,conv2")

    patch_epochs: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="epochs of patch pre-training before the others: on crops of 67 pixels from squares of 128, with 256 units "
        "in fc6 and fc7 of each column; conv1 to conv5 go on from there; 0 for none, as in the paper",
    )
    epochs: int = Field(90, ge=1, le=2**31 - 1, description="passes over the training part; the paper made about 90")
    batch_size: int = Field(128, ge=1, le=2**31 - 1, description="images a step, over all replicas")
    lr: float = Field(0.01, gt=0, allow_inf_nan=False, description="initial learning rate")
    bias_lr: float | None = Field(
        None, gt=0, description="learning rate of biases throughout; that of the weights where not given"
    )
    conv1_lr: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="initial learning rate of conv1's weights; that of the other weights where not given; a preset's changes in "
        "proportion with a given lr",
    )
    schedule: Schedule = Field(
        "plateau",
        description="learning rate over the epochs: a tenth at each plateau of the validation error, three times; as logged in "
        "2012; cosine to 0, for short runs; or constant",
    )
    patience: int = Field(
        5,
        ge=1,
        description="epochs without a better validation error that make a plateau, once it is below that of naming one class",
    )
    momentum: float = Field(0.9, gt=0, lt=1, description="share of the velocity kept each step")
    weight_decay: float = Field(5e-4, ge=0, description="share of each weight taken off per unit of learning rate")
    conv1_decay: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="weight decay of conv1; that of the other weights where not given"
    )
    conv1_whitening: float = Field(
        0.0,
        ge=0,
        le=1,
        description="exponent a: conv1's gradient is multiplied by C^-a, C the covariance of the photographs' 11 x 11 patches; "
        "0 for not at all, as in the paper",
    )
    max_gradient: float = Field(
        0.0, ge=0, description="longest gradient (Euclidean norm); longer ones are scaled down; 0 for no limit, as in the paper"
    )
    colour: Reading = Field(
        "eigenvalue",
        description="colour noise along the principal directions, times the eigenvalue (paper) or its square root (2012)",
    )
    validation: float = Field(
        0.1, ge=0, lt=1, description="share of the training photographs, chosen by their hash, held out to see plateaus"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of weights, order, crops, colours and dropout")
    precision: Precision = Field(
        "auto", description="arithmetic of the forward and backward pass; auto takes bfloat16 where the processor has it"
    )

    devices: str = Field("cpu", description="cpu, cuda:0, or two with a column on each, as in cuda:0,cuda:1")
    ranks_a_network: int | None = Field(
        None,
        ge=1,
        le=2,
        description="under torchrun: 2 for a column on each rank, 1 for whole networks; 2 where ranks and columns can be paired",
    )
    keep: Keep = Field(
        "auto", description="whether decoded photographs stay in OUT/training (192 KiB each) or are decoded anew each time"
    )
    save_minutes: float = Field(5.0, ge=0, description="minutes between two savings of the run's state")
    tensorboard: bool = Field(False, description="write OUT/tensorboard too (extra `tensorboard`)")
    max_image_bytes: MaxImageBytes = ImageLimits().max_image_bytes
    max_image_pixels: MaxImagePixels = ImageLimits().max_image_pixels

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: dict[str, Any]) -> dict[str, Any]:
        preset = PRESETS.get(values.get("preset", "paper"), {})
        if values.get("start"):
            preset = {name: value for name, value in preset.items() if name not in _FROM_NOISE}
        if "conv1_lr" in preset and "lr" in values:
            with suppress(TypeError, ValueError):  # of no number; lr's own check says so
                times = float(values["lr"]) / preset.get("lr", cls.model_fields["lr"].default)
                preset = {**preset, "conv1_lr": preset["conv1_lr"] * times} if 0 < times < math.inf else preset
        return {**preset, **values}

    @model_validator(mode="after")
    def _consistent(self) -> "TrainSettings":
        if self.schedule == "plateau" and not self.validation:
            raise ValueError("schedule=plateau needs a validation share above 0, got validation=0")
        resting = {*self.frozen, "conv1"} if self.schedule == "source" else {*self.frozen}
        if resting == set(LAYERS):
            raise ValueError(f"frozen must leave a layer to train, got {','.join(self.frozen)}")
        if self.start:
            changed = (name for name in _BROUGHT if getattr(self, name) not in (None, "paper"))
            if name := next(changed, None):
                raise ValueError(f"{name} comes with the model of start={self.start}, so it cannot be {getattr(self, name)!r}")
            if self.patch_epochs:
                raise ValueError(f"patch_epochs must be 0 with start={self.start}, got {self.patch_epochs}")
        try:
            self.network(classes=1)
            if self.patch_epochs:
                self.of_patches().network(classes=1)
        except ValidationError as error:
            raise ValueError(expected(error.errors()[0]["msg"])) from error
        return self

    def network(self, classes: int) -> AlexNetConfig:
        """The network that the profile and the knobs describe. Raises ValueError (also pydantic's) for one that cannot be."""
        changes: dict[str, Any] = {name: value for name in _KNOBS if (value := getattr(self, name)) is not None}
        network = PROFILES[self.profile]
        if self.columns == 2 and network.columns == 1:
            raise ValueError(f"columns must be 1 with profile={self.profile}, got 2")
        if self.columns == 1 and network.columns == 2:
            network = network.in_one_column()
        if self.pixel_scale is not None:
            changes["pixel_scale"] = (self.pixel_scale,) * 3
        return AlexNetConfig.model_validate({**network.model_dump(), **changes, "classes": classes})

    def of_patches(self) -> "TrainSettings":
        """The settings of patch pre-training: the same recipe for a small network on small crops, all layers of which learn."""
        return self.model_copy(update={**_PATCHES, "epochs": self.patch_epochs, "patch_epochs": 0, "frozen": ()})

    def warning(self, steps: int) -> str | None:
        """What to tell whoever starts a run of so many steps an epoch; None for nothing."""
        if self.init == "fan-in" or self.start or self.epochs * steps >= STEPS_NEEDED:
            return None
        total = self.epochs * steps
        return (
            f"warning: this run makes {total} steps ({self.epochs} epochs of {steps}), and init={self.init} needs {STEPS_NEEDED} "
            "or more, for it stays at chance for 500 to 8000; --preset quick is for so few photographs"
        )

    def recorded(self) -> dict[str, JsonValue]:
        """The settings that the result follows from: what a run that goes on must have been started with."""
        start = {"start": str(self.start.resolve())} if self.start else {}
        return {**self.model_dump(mode="json", exclude=_CONDUCT), "data": str(self.data.resolve()), **start}
