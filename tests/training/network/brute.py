"""What every unit of a network does, written out by the formulas of the paper, layer by layer and column by column."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from training.network.alexnet import AlexNet

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x.clamp(min=0),
    "tanh": torch.tanh,
    "abs-tanh": lambda x: torch.tanh(x).abs(),
    "sigmoid": torch.sigmoid,
}


def activations(net: AlexNet, x_BCHW: Tensor) -> dict[str, Tensor]:
    """The maps of conv1..conv5 (B, C, H, W) and the units of fc6..fc8 (B, D), after the nonlinearity but for fc8.

    From mean-subtracted pixels; of profiles without normalisation across columns.
    """
    c, act = net.config, NONLINEARITIES[net.config.nonlinearity]
    end = c.conv1_pad + (-(c.input_size + 2 * c.conv1_pad - 11) % 4 if c.conv1_ceil else 0)
    scale = torch.tensor(c.pixel_scale, dtype=x_BCHW.dtype)[:, None, None]
    found: dict[str, Tensor] = {}
    h = F.pad(x_BCHW * scale, (c.conv1_pad, end, c.conv1_pad, end))
    for number, (pad, pools) in enumerate([(0, True), (2, True), (1, False), (1, False), (1, True)], 1):
        layer = getattr(net, f"conv{number}")
        groups = 1 if number in (1, 3) and c.exchange else c.columns
        sums = torch.cat(
            [
                F.conv2d(part, weight, bias, 4 if number == 1 else 1, pad)
                for part, weight, bias in zip(
                    h.chunk(groups, 1), layer.weight.chunk(groups), layer.bias.chunk(groups), strict=True
                )
            ],
            1,
        )
        found[f"conv{number}"] = act(sums)
        h = sums if number == 1 and c.conv1_nonlinearity_last else found[f"conv{number}"]
        if number in c.lrn_after:
            h = torch.cat([_lrn(column, c.lrn_size, c.lrn_k, c.lrn_alpha, c.lrn_beta) for column in h.chunk(c.columns, 1)], 1)
            if number == 2 and c.map_norm_alpha:
                squares = F.avg_pool2d(F.pad(h * h, (2, 2, 2, 2)), 5, 1) * 25
                h = h / (1 + c.map_norm_alpha * squares) ** c.lrn_beta
        if pools:
            h = F.max_pool2d(h, c.pool_size, c.pool_stride, ceil_mode=number not in c.pool_floor)
        h = act(h) if number == 1 and c.conv1_nonlinearity_last else h
    h = h.flatten(1)
    for name in ("fc6", "fc7"):
        layer = getattr(net, name)
        h = found[name] = act(h @ layer.weight.T + layer.bias)
    return found | {"fc8": h @ net.fc8.weight.T + net.fc8.bias}


def _lrn(a_BCHW: Tensor, size: int, k: float, alpha: float, beta: float) -> Tensor:
    squares = F.pad(a_BCHW * a_BCHW, (0, 0, 0, 0, size // 2, size // 2))
    sums = sum(squares[:, start : start + a_BCHW.shape[1]] for start in range(size))
    return a_BCHW / (k + alpha * sums) ** beta
