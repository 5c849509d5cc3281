"""What a run's network is measured by: errors from one view and from ten, the loss on clean photographs, operations.

Legend: B batch, C channels, S side of a square, H height, W width, K classes.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.claims.arm import Errors
from training.claims.pixels import Pixels, fixed_views
from training.network.alexnet import AlexNet
from training.network.cifar import CifarNet
from training.run.precision import in_bfloat16

Net = AlexNet | CifarNet
CLEAN: Final = 512  # training photographs that the loss after each epoch is measured on
TRAIN: Final = 2000  # ... that the training error at the end is measured on
_TOGETHER: Final = 250  # photographs


class Stopped(Exception):
    """The run was told to stop; it goes on from the epoch it last saved."""


def half(device: torch.device, *, float32: bool) -> torch.autocast:
    """bfloat16 where the processor has it; a GPU takes TensorFloat-32, which costs small networks no conversions."""
    enabled = not float32 and device.type == "cpu" and in_bfloat16("auto", device)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@torch.no_grad()
def errors(net: Net, pixels: Pixels, mean_CSS: Tensor, stopping: Callable[[], bool], *, ten: bool, float32: bool) -> Errors:
    """Counts of wrong answers, from the centre view and, where `ten`, from ten views; a net that diverged names class 0."""
    size = net.config.input_size
    counts = torch.zeros(4, dtype=torch.int64, device=mean_CSS.device)
    for some in torch.arange(len(pixels), device=mean_CSS.device).split(_TOGETHER):
        if stopping():
            raise Stopped
        squares_BCSS, labels_B = pixels.squares_NCSS[some], pixels.labels_N[some]
        centre_B = _answers(net, fixed_views(squares_BCSS, mean_CSS, size, ten=False), float32) != labels_B
        ten_B = _answers(net, fixed_views(squares_BCSS, mean_CSS, size, ten=True), float32) != labels_B if ten else centre_B
        counts += torch.stack([centre_B.sum(), ten_B.sum(), (centre_B & ~ten_B).sum(), (ten_B & ~centre_B).sum()])
    centre, tens, only_centre, only_ten = counts.tolist()
    return Errors(photographs=len(pixels), centre=centre, ten=tens, only_centre=only_centre, only_ten=only_ten)


@torch.no_grad()
def features(net: AlexNet, squares_NCSS: Tensor, mean_CSS: Tensor) -> NDArray[np.float32]:
    """FC7 of the centre views of some photographs, float32 (N, D); a network that diverged has zeros."""
    size = net.config.input_size
    views = (next(fixed_views(some.to(mean_CSS.device), mean_CSS, size, ten=False)) for some in squares_NCSS.split(_TOGETHER))
    parts = [net.features(x_BCHW).nan_to_num(0.0, 0.0, 0.0).cpu() for x_BCHW in views]
    return np.asarray(torch.cat(parts).numpy())


@torch.no_grad()
def clean_loss(net: Net, some: Pixels, mean_CSS: Tensor, *, float32: bool) -> float:
    """The mean loss on the centre views of some photographs; nothing is dropped."""
    net.eval()
    size = net.config.input_size
    total = 0.0
    for squares_BCSS, labels_B in zip(some.squares_NCSS.split(_TOGETHER), some.labels_N.split(_TOGETHER), strict=True):
        with half(mean_CSS.device, float32=float32):
            logits_BK = net(next(fixed_views(squares_BCSS, mean_CSS, size, ten=False)))
        total += F.cross_entropy(logits_BK.float(), labels_B, reduction="sum").item()
    return total / len(some)


def operations(net: Net) -> int:
    """Multiplications and additions of one forward pass of one image, in convolutions and fully connected layers."""
    counted: list[int] = []

    def count(layer: nn.Conv2d | nn.Linear, _: object, out: Tensor) -> None:
        counted.append(2 * layer.weight.numel() * (out[0, 0].numel() if out.ndim == 4 else 1))

    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    size = net.config.input_size
    with torch.no_grad():
        net(torch.zeros(1, 3, size, size, device=next(net.parameters()).device))
    for hook in hooks:
        hook.remove()
    return sum(counted)


def _answers(net: Net, every: Iterator[Tensor], float32: bool) -> Tensor:
    """The class of the largest mean probability: int64 (B,)."""
    probabilities: list[Tensor] = []
    for x_BCHW in every:
        with half(x_BCHW.device, float32=float32):
            probabilities.append(net(x_BCHW).float().softmax(1).nan_to_num(0.0))
    return torch.stack(probabilities).sum(0).argmax(1)
