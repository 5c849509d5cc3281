"""The four-layer network for CIFAR-10 of the 2012 code: what the paper's figure 1 and its 13 % and 11 % were measured with.

conv 5x5x64, pool, conv 5x5x64, pool, two 3x3 convolutions of 32 maps, fc to the classes (layers-13pct.cfg; its two upper
convolutions are locally connected, these are not). LRN, where there is one, stands before pooling, as in the 11 % net.

Legend: B batch, C maps or channels, H height, W width.
"""

import math
from collections.abc import Iterator
from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from training.network.alexnet import Masks, Nonlinearity, activated
from training.network.lrn import local_response_norm, norm_pool

Start = Literal["paper", "fan-in"]
_STDS: Final = (1e-4, 0.01, 0.04, 0.04, 0.01)  # layer-params-13pct.cfg, initW
_DECAYS: Final = (0.0, 0.0, 0.004, 0.004, 0.004)  # layer-params-13pct.cfg, wc


class CifarConfig(BaseModel):
    """The shape of the network; the defaults are those of the 13 % net, without LRN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    classes: int = Field(10, ge=1, le=1000)
    input_size: int = Field(32, ge=8, le=64, description="height and width of the crop, pixels")
    nonlinearity: Nonlinearity = "relu"
    pixel_scale: float = Field(1.0, gt=0, le=1e6, description="what pixels less the mean are multiplied by")
    pool_size: int = Field(3, ge=1, le=8)
    pool_stride: int = Field(2, ge=1, le=8)
    lrn: bool = Field(False, description="whether LRN follows the two lower convolutions")
    lrn_size: int = Field(5, ge=1, le=255)
    lrn_k: float = Field(1.0, gt=0, le=1e6)
    lrn_alpha: float = Field(0.001 / 5, ge=0, le=1e6, description="not divided by lrn_size; the 2012 code divides its scale")
    lrn_beta: float = Field(0.75, gt=0, le=16)

    def pooled(self) -> int:
        """Height and width after both poolings, whose windows are counted by rounding up: 8 for 32 pixels, 6 for 24."""
        size = self.input_size
        for _ in range(2):
            size = 1 + -(-(size - self.pool_size) // self.pool_stride)
        return size


class CifarNet(nn.Module):
    """Logits from mean-subtracted RGB pixels on the 0..255 scale."""

    def __init__(self, config: CifarConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(3, 64, 5, padding=2)
        self.conv2 = nn.Conv2d(64, 64, 5, padding=2)
        self.conv3 = nn.Conv2d(64, 32, 3, padding=1)
        self.conv4 = nn.Conv2d(32, 32, 3, padding=1)
        self.fc = nn.Linear(32 * config.pooled() ** 2, config.classes)

    def forward(self, x_BCHW: Tensor, masks: Masks | None = None) -> Tensor:
        """Float (B, 3, input_size, input_size) -> (B, classes); no unit is ever dropped, so `masks` is None."""
        h = self._lower(self.conv1(x_BCHW * self.config.pixel_scale))
        h = self._lower(self.conv2(h))
        h = self._activate(self.conv4(self._activate(self.conv3(h))))
        logits: Tensor = self.fc(h.flatten(1))
        return logits

    def layers(self) -> list[nn.Conv2d | nn.Linear]:
        """The five layers, from the image to the logits."""
        return [self.conv1, self.conv2, self.conv3, self.conv4, self.fc]

    def decays(self) -> Iterator[tuple[nn.Conv2d | nn.Linear, float]]:
        """Each layer and the weight decay that the 13 % net gives it."""
        return zip(self.layers(), _DECAYS, strict=True)

    def initialise(self, start: Start, seed: int) -> None:
        """Draws all weights anew, from `seed` alone; biases are 0.

        paper: normal, with the standard deviations of layer-params-13pct.cfg. fan-in: N(0, 1/sqrt(n)), n the inputs of a unit.
        """
        generator = torch.Generator().manual_seed(seed)
        for layer, std in zip(self.layers(), _STDS, strict=True):
            if start == "fan-in":
                std = 1 / math.sqrt(layer.weight[0].numel())
            nn.init.normal_(layer.weight, 0.0, std, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def _lower(self, h_BCHW: Tensor) -> Tensor:
        """Nonlinearity, LRN where there is one, and max-pooling."""
        c = self.config
        if c.nonlinearity == "relu":
            return norm_pool(
                h_BCHW,
                rectify=True,
                size=c.lrn_size if c.lrn else 0,
                k=c.lrn_k,
                alpha=c.lrn_alpha,
                beta=c.lrn_beta,
                columns=1,
                pool_size=c.pool_size,
                pool_stride=c.pool_stride,
            )
        h_BCHW = self._activate(h_BCHW)
        if c.lrn:
            h_BCHW = local_response_norm(h_BCHW, size=c.lrn_size, k=c.lrn_k, alpha=c.lrn_alpha, beta=c.lrn_beta)
        return F.max_pool2d(h_BCHW, c.pool_size, c.pool_stride, ceil_mode=True)

    def _activate(self, h: Tensor) -> Tensor:
        return activated(h, self.config.nonlinearity)
