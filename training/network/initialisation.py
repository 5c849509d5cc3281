"""Initial weights: the paper's, the 2012 code's, and one scaled by fan-in for short runs on small data."""

import math
from typing import Final, Literal

import torch
from torch import nn

from training.network.alexnet import AlexNet

BIASES: Final = (0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0)  # of conv1..fc8, in the paper and in the 2012 code
Scheme = Literal["paper", "source", "fan-in"]


def initialise(net: AlexNet, scheme: Scheme, seed: int, conv1_std: float | None = None) -> None:
    """Draws all weights anew, from `seed` alone; conv1's with the standard deviation `conv1_std` where it is given.

    paper: N(0, 0.01) everywhere; biases 1 in conv2, conv4, conv5, fc6 and fc7, 0 elsewhere (section 5).
    source: the same, but N(0, 0.03) in conv3, conv4 and conv5 (layers-145.cfg, initW).
    fan-in: N(0, sqrt(2 / fan-in)), fc8's as in the paper; biases 0. The signal keeps its size through the layers from the first
    step (He et al. 2015), where the paper's weights need thousands of steps to leave the plateau they start on: more than a small
    data set has. Meant for pixels scaled to about one.
    """
    generator = torch.Generator().manual_seed(seed)
    for i, (layer, bias) in enumerate(zip(net.layers(), BIASES, strict=True)):
        std = 0.03 if scheme == "source" and i in (2, 3, 4) else 0.01
        if scheme == "fan-in" and i < 7:
            std = math.sqrt(2 / layer.weight[0].numel())
        if i == 0 and conv1_std is not None:
            std = conv1_std
        nn.init.normal_(layer.weight, 0.0, std, generator=generator)
        if layer.bias is not None:
            nn.init.constant_(layer.bias, 0.0 if scheme == "fan-in" else bias)
