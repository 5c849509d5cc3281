"""How strongly each unit of every layer is excited by a photograph at most, and where, found on the way to FC7.

Legend: B batch, C maps, H height, W width, U units of all layers in the order of LAYERS, M units that have maps.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.network.alexnet import KERNELS, LAYERS, AlexNet, AlexNetConfig, Layer


@dataclass(frozen=True)
class LayerShape:
    """The units of a layer."""

    columns: int  # 1 for fc8, which hears every column
    units: int  # of a column
    side: int  # height and width of its maps; 0 for a fully connected layer


@dataclass(frozen=True)
class Excitation:
    """The largest activation of each unit over its map: after the nonlinearity, but for fc8, and before LRN and pooling."""

    values_BU: Tensor  # float32
    positions_BM: Tensor  # int64; row by row in the map, the first of equals


def layer_shapes(config: AlexNetConfig) -> dict[Layer, LayerShape]:
    """The units of each layer of a network, from the image on."""
    first, second, third, _ = config.sizes()
    sides = (first, second, third, third, third)
    shapes: dict[Layer, LayerShape] = {
        layer: LayerShape(config.columns, maps, side) for layer, maps, side in zip(LAYERS, config.maps, sides, strict=False)
    }
    shapes |= {layer: LayerShape(config.columns, config.hidden, 0) for layer in LAYERS[len(KERNELS) : -1]}
    return shapes | {LAYERS[-1]: LayerShape(1, config.classes, 0)}


def excite(net: AlexNet, x_BCHW: Tensor) -> tuple[dict[Layer, Tensor], Excitation]:
    """What AlexNet.stages gives, and what excites every unit of all columns on the way there.

    With `conv1_nonlinearity_last`, too, conv1 is looked at before pooling.
    """
    values: list[Tensor] = []
    positions: list[Tensor] = []
    either_sign = net.config.nonlinearity == "abs-tanh"  # the others leave the order of what they are given as it is

    def look(_layer: nn.Module, _input: Any, sums: Tensor) -> None:
        if sums.ndim == 4:
            strongest, at = F.max_pool2d(sums.abs() if either_sign else sums, sums.shape[2:], return_indices=True)
            positions.append(at.flatten(1))
            sums = strongest.flatten(1)
        values.append(net.activate(sums).float())

    with ExitStack() as looking:
        for layer in net.layers()[:-1]:
            looking.callback(layer.register_forward_hook(look).remove)
        stages = net.stages(x_BCHW)
    values.append(net.fc8(stages["fc7"]).float())
    return stages, Excitation(torch.cat(values, 1), torch.cat(positions, 1))
