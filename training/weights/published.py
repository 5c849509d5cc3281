"""Weights that others trained, in the form that our network takes them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import ValidationError
from torch import Tensor

from training.errors import Mismatch
from training.images.preprocess import SIZE
from training.network.alexnet import LAYERS, AlexNet, AlexNetConfig, shapes
from training.network.initialisation import initialise

MAX_BYTES: Final = 2**30  # AlexNet has 244 MB
NamedTensors = dict[str, tuple[str, Tensor]]  # our name -> the file's name and the tensor as ours


@dataclass(frozen=True)
class PublishedWeights:
    """What a file of weights says, under our names: the network, its weights and the mean it was trained with."""

    config: AlexNetConfig
    tensors: dict[str, Tensor]  # float32, a subset of AlexNet(config).state_dict()
    mean_RGB: tuple[float, float, float]  # 0..255
    note: str  # where the numbers come from and what was done to them

    @property
    def untrained(self) -> list[str]:
        """The layers that the file has no weights for."""
        return [layer for layer in LAYERS if f"{layer}.weight" not in self.tensors]

    def network(self) -> AlexNet:
        """The network with these weights; layers without any start from N(0, sqrt(2 / fan-in)), seed 0."""
        net = AlexNet(self.config)
        if self.untrained:
            initialise(net, "fan-in", seed=0)
        net.load_state_dict(self.tensors, strict=not self.untrained)
        return net

    def mean_CHW(self) -> Tensor:
        """The mean image to subtract, one colour all over: float32 (3, 256, 256)."""
        return torch.tensor(self.mean_RGB)[:, None, None].repeat(1, SIZE, SIZE)


def check_size(path: Path) -> None:
    """Raises Mismatch for a file too large to be an AlexNet."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise Mismatch(f"{path} has {size} bytes, more than the {MAX_BYTES} read as weights")


def count(path: Path, name: str, tensor: Tensor) -> int:
    """Values of a bias, from which the sizes of the network follow. Raises Mismatch where it is none."""
    if tensor.ndim != 1 or not len(tensor):
        raise Mismatch(f"{name} of {path} has the shape {tuple(tensor.shape)}, expected (n,)")
    return len(tensor)


def config_for(path: Path, config: AlexNetConfig, **changes: Any) -> AlexNetConfig:
    """`config` with the sizes that a file of weights has. Raises Mismatch, naming the file, for sizes out of bounds."""
    try:
        return config.with_fields(**changes)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise Mismatch(f"{path} has the sizes of no network that is read: {name} {first['msg']}, got {first['input']}") from error


def check_tensors(path: Path, config: AlexNetConfig, named: NamedTensors) -> dict[str, Tensor]:
    """The tensors of `named` under our names, where each is finite float32 of the shape that `config` gives it.

    Raises Mismatch, naming the file, its name and both shapes, for the first that is not.
    """
    expected = shapes(config)
    for ours, (theirs, tensor) in named.items():
        wanted = expected[ours]
        if tensor.dtype != torch.float32 or tuple(tensor.shape) != wanted:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise Mismatch(f"{theirs} of {path} is {dtype} {tuple(tensor.shape)}, expected float32 {wanted} as {ours}")
        if not tensor.isfinite().all():
            raise Mismatch(f"{theirs} of {path} has values that are not finite numbers")
    return {ours: tensor for ours, (_, tensor) in named.items()}
