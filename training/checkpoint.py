"""A model on disk: `model.safetensors` (weights and training mean) and `model.json` (everything else needed to use them)."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Self, get_args

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from training.errors import Mismatch, NotFinite, NotReady
from training.files import first_of, sha256_of, verify, write_tensors, write_text
from training.images.folders import Part
from training.images.preprocess import SIZE, centre_view, ten_views
from training.network.alexnet import AlexNet, AlexNetConfig, Layer, shapes
from training.network.initialisation import Scheme, initialise
from training.network.units import Excitation, LayerShape, excite, layer_shapes
from training.record import ErrorRates, ModelMetrics, TrainingRecord, WeightsRecord

FORMAT: Final = 1
WEIGHTS: Final = "model.safetensors"
DESCRIPTION: Final = "model.json"
TRAINED_ON: Final = "train.sha256"
_MEAN: Final = "preprocess.mean"
FeatureLayer = Literal["fc7", "fc6", "conv5"]  # whose values may be the feature of a photograph; see AlexNet.stages
Record = TrainingRecord | WeightsRecord  # of how a model was made


class ModelDescription(BaseModel):
    """What `model.json` holds."""

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    config: AlexNetConfig
    classes: list[str]
    weights_sha256: str
    weights_bytes: int
    training: Record | None = None
    metrics: ModelMetrics = ModelMetrics()
    untrained: list[str] = []  # layers whose weights are still the random ones they started from

    def fingerprint(self, layer: FeatureLayer = "fc7") -> str:
        """SHA-256 over weights, preprocessing (the mean lies among the weights) and layer: what a layer's features depend on."""
        config = self.config.model_dump(exclude={"square_size"})
        parts = {"weights": self.weights_sha256, "config": config, "resize": self.config.square_size, "layer": layer}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Model:
    """A network ready for use, with the preprocessing it was trained with. `net` is in evaluation mode."""

    net: AlexNet
    classes: list[str]
    mean_CHW: Tensor  # float32 (3, 256, 256), the training set's mean pixel values, 0..255
    fingerprints: dict[FeatureLayer, str]
    training: Record | None
    metrics: ModelMetrics
    layer: FeatureLayer = "fc7"  # whose values are its features

    @property
    def fingerprint(self) -> str:
        """What its features depend on: weights, preprocessing and layer."""
        return self.fingerprints[self.layer]

    @property
    def width(self) -> int:
        """Components of a feature: as many of fc6 as of fc7, and one a map of conv5, 256 in the paper."""
        config = self.net.config
        return config.columns * config.maps[4] if self.layer == "conv5" else config.fc7_width

    def at(self, layer: FeatureLayer) -> Self:
        """The same network, with another layer's values as its features."""
        return self if layer == self.layer else replace(self, layer=layer)

    @torch.inference_mode()
    def features(self, pixels_BCHW: Tensor) -> Tensor:
        """Features of the centre view, by the model's layer: uint8 (B, 3, 256, 256) -> float32 (B, D).

        Raises NotFinite, as every other method here, for what is not a finite number.
        """
        return self._feature(self.net.stages(self._centre(pixels_BCHW)))

    def fc7(self, pixels_BCHW: Tensor) -> Tensor:
        """FC7 of the centre view, whatever the model's layer: uint8 (B, 3, 256, 256) -> float32 (B, 4096)."""
        return self.at("fc7").features(pixels_BCHW)

    @torch.inference_mode()
    def features_and_units(self, pixels_BCHW: Tensor) -> tuple[Tensor, Excitation]:
        """What `features` gives, and how strongly the same views excite each unit of every layer, and where, in the same pass."""
        stages, excitation = excite(self.net, self._centre(pixels_BCHW))
        _finite(excitation.values_BU, "activation")
        return self._feature(stages), excitation

    @property
    def units(self) -> dict[Layer, LayerShape]:
        """The units of each layer, from the image on."""
        return layer_shapes(self.net.config)

    @torch.inference_mode()
    def probabilities(self, pixels_BCHW: Tensor, views: int = 1) -> Tensor:
        """Softmax over the classes, averaged over 1 or 10 views (paper, section 4.1): uint8 (B, 3, 256, 256) -> (B, classes)."""
        if views == 1:
            centre: Tensor = self.net(self._centre(pixels_BCHW))
            return _finite(centre.float().softmax(1), "probability")
        views_VBCHW = ten_views(pixels_BCHW, self.mean_CHW, *self._sizes)
        every = [self.net(x_BCHW.contiguous(memory_format=torch.channels_last)).float().softmax(1) for x_BCHW in views_VBCHW]
        return _finite(torch.stack(every).mean(0), "probability")

    @torch.inference_mode()
    def answers(self, photographs: Sequence[Tensor], views: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Features (V, D) and the softmax over the classes (V, K) of every view of every photograph, in one pass.

        Photographs are uint8 (3, 256, 256), each with 1 view, the centre, or 10.
        """
        if max(views) == 1:
            x_VCHW = centre_view(torch.stack(list(photographs)), self.mean_CHW, *self._sizes)
        else:
            rows: list[Tensor] = []
            for pixels_CHW, number in zip(photographs, views, strict=True):
                pixels_1CHW = pixels_CHW[None]
                crops = ten_views(pixels_1CHW, self.mean_CHW, *self._sizes)
                rows += crops if number == 10 else [centre_view(pixels_1CHW, self.mean_CHW, *self._sizes)]
            x_VCHW = torch.cat(rows)
        return self.answers_of_views(x_VCHW)

    @torch.inference_mode()
    def answers_of_views(self, x_VCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The same of views that are cut already, and less the mean: float32 (V, 3, size, size)."""
        stages = self.net.stages(x_VCHW.contiguous(memory_format=torch.channels_last))
        return self._feature(stages), _finite(self.net.fc8(stages["fc7"]).float().softmax(1), "probability")

    def _feature(self, stages: dict[Layer, Tensor]) -> Tensor:
        return _finite(stages[self.layer].float(), f"{name_of(self.layer)} feature")

    def view(self, pixels_CHW: Tensor) -> Tensor:
        """The centre view, less the mean: uint8 (3, 256, 256) -> float32 (3, size, size)."""
        return centre_view(pixels_CHW[None], self.mean_CHW, *self._sizes)[0]

    @property
    def view_box(self) -> tuple[float, float, float, float]:
        """Where in the square the centre view lies: left, top, right and bottom as shares of its side."""
        size, square = self._sizes
        start = (square - size) // 2 / square
        return start, start, start + size / square, start + size / square

    def _centre(self, pixels_BCHW: Tensor) -> Tensor:
        x_BCHW = centre_view(pixels_BCHW, self.mean_CHW, *self._sizes)
        return x_BCHW.contiguous(memory_format=torch.channels_last)

    @property
    def _sizes(self) -> tuple[int, int]:
        """Of a crop, and of the square that it is cut from."""
        return self.net.config.input_size, self.net.config.square_size


def save(
    folder: Path,
    net: AlexNet,
    classes: list[str],
    mean_CHW: Tensor,
    training: Record | None = None,
    metrics: ModelMetrics | None = None,
    untrained: Sequence[str] = (),
) -> None:
    """Writes a model; a reader sees the old pair, the new pair, or a pair that it refuses, never a mixture.

    `untrained` names the layers, "conv1" to "fc8", that hold random weights; a model with any is only good to go on training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, {**net.state_dict(), _MEAN: mean_CHW})
    _describe(
        folder,
        ModelDescription(
            config=net.config,
            classes=classes,
            weights_sha256=sha256_of(folder / WEIGHTS),
            weights_bytes=(folder / WEIGHTS).stat().st_size,
            training=training,
            metrics=metrics or ModelMetrics(),
            untrained=list(untrained),
        ),
    )


def write_errors(folder: Path, part: Part, rates: list[ErrorRates]) -> None:
    """Writes the errors measured on a part of a data set into a model's description; its fingerprint stays."""
    description = read_description(folder)
    metrics = description.metrics.with_errors(part, rates)
    _describe(folder, description.model_copy(update={"metrics": metrics}))


def read_description(folder: Path) -> ModelDescription:
    """Reads and checks `model.json`. Raises NotReady where there is none, Mismatch where it is not one that this code knows."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise NotReady(f"no model at {folder}; `python -m training.train --out {folder}` makes one")
    try:
        description = ModelDescription.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise Mismatch(f"{path} is not a model description: {first_of(error)}") from error
    if description.format != FORMAT:
        raise Mismatch(f"{path} has format {description.format}, this program reads format {FORMAT}")
    if len(description.classes) != description.config.classes:
        raise Mismatch(f"{path} names {len(description.classes)} classes, its network has {description.config.classes}")
    return description


def load(folder: Path, untrained_too: bool = False) -> Model:
    """Loads a model after checking size, hash, names, shapes and values, the first four before memory is spent.

    Raises NotReady where there is none or, without `untrained_too`, where layers of it are not trained; Mismatch, naming what
    disagrees.
    """
    description = read_description(folder)
    if description.untrained and not untrained_too:
        *layers, last = description.untrained
        are, them = (f"{', '.join(layers)} and {last} of {folder} are", "them") if layers else (f"{last} of {folder} is", "it")
        raise NotReady(f"{are} not trained; `python -m training.train --start {folder} --data ...` trains {them}")
    path = folder / WEIGHTS
    verify(path, description.weights_bytes, description.weights_sha256, DESCRIPTION)
    try:
        _check_header(path, description.config)
        tensors = load_file(path)
        _check_values(path, tensors)
        mean_CHW = tensors.pop(_MEAN).clone()  # of a map: where the file is overwritten, reading it would end the process
        net = AlexNet(description.config)
        net.load_state_dict(tensors)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise Mismatch(f"{path} does not hold the network that {DESCRIPTION} describes: {error}") from error
    net.eval().requires_grad_(False)
    return Model(
        net.to(memory_format=torch.channels_last),
        description.classes,
        mean_CHW,
        {layer: description.fingerprint(layer) for layer in get_args(FeatureLayer)},
        description.training,
        description.metrics,
    )


def name_of(layer: FeatureLayer) -> str:
    """A layer as texts have it: FC7, FC6, conv5."""
    return layer.upper() if layer.startswith("fc") else layer


def untrained(model: Model, seed: int) -> Model:
    """The same network with random weights of a seed: by the scheme of its training, fan-in where that is not recorded.

    They are random too where the training started with another model's.
    """
    record = model.training
    settings = record.settings if isinstance(record, TrainingRecord) else {}
    scheme, conv1_std = settings.get("init"), settings.get("conv1_std")
    net = AlexNet(model.net.config)
    initialise(
        net,
        next((known for known in get_args(Scheme) if known == scheme), "fan-in"),
        seed,
        conv1_std if isinstance(conv1_std, float) else None,
    )
    net.eval().requires_grad_(False)
    return replace(model, net=net.to(memory_format=torch.channels_last))


def trained_on(folder: Path) -> set[str] | None:
    """SHA-256 of the photographs that a model was trained on, here and with their labels; None where it does not say."""
    path = folder / TRAINED_ON
    return {line[:64] for line in path.read_text("utf-8").splitlines()} if path.is_file() else None


def _check_header(path: Path, config: AlexNetConfig) -> None:
    """Raises Mismatch where the names and shapes at the start of a file are not those that `config` needs."""
    expected = {**shapes(config), _MEAN: (3, SIZE, SIZE)}
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        for name in sorted(names | set(expected)):
            if name not in names or name not in expected:
                raise Mismatch(
                    f"{path} has {'no' if name in expected else 'an unexpected'} tensor {name}, which {DESCRIPTION} "
                    f"{'needs' if name in expected else 'does not describe'}"
                )
            entry = file.get_slice(name)
            shape, dtype = tuple(entry.get_shape()), entry.get_dtype()
            if shape != expected[name] or dtype != "F32":
                raise Mismatch(
                    f"{path} does not hold the network that {DESCRIPTION} describes: {name} is {dtype} {shape}, "
                    f"expected F32 {expected[name]}"
                )


def _check_values(path: Path, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise Mismatch(f"{name} of {path} has values that are not finite numbers")
    if tensors[_MEAN].min() < 0 or tensors[_MEAN].max() > 255:
        raise Mismatch(f"{_MEAN} of {path} has values outside 0..255")


def _finite(values_BD: Tensor, what: str) -> Tensor:
    """The values, float (B, D). Raises NotFinite where some are not finite numbers."""
    finite_B = values_BD.isfinite().all(1)
    if not finite_B.all():
        raise NotFinite(what, (~finite_B).nonzero()[:, 0].tolist())
    return values_BD


def _describe(folder: Path, description: ModelDescription) -> None:
    write_text(folder / DESCRIPTION, description.model_dump_json(indent=2, exclude_none=True) + "\n")
