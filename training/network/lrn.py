"""Local response normalisation across maps, by one formula, with a hand-written backward; alone, and with ReLU and pooling.

b_c = a_c * s_c^-beta,  s_c = k + alpha * sum of a_j^2 over the n maps around c   (paper, section 3.3)

alpha is not divided by n here, unlike torch.nn.LocalResponseNorm. The window never crosses from one column into the other:
the maps of a column are on their own GPU and there is no exchange at this point of the network.

Legend: B batch, C maps of all columns, H height, W width.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.network import native


@lru_cache(maxsize=16)
def _band(maps: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(maps, maps, 1, 1) of ones where two maps share a window; as a 1x1 convolution it sums over windows."""
    position = torch.arange(maps, device=device)
    return ((position[:, None] - position[None, :]).abs() <= size // 2).to(dtype)[:, :, None, None]


def _window_sum(x_BCHW: Tensor, size: int, columns: int) -> Tensor:
    band = _band(x_BCHW.shape[1] // columns, size, x_BCHW.dtype, x_BCHW.device)
    return F.conv2d(x_BCHW, band.repeat(columns, 1, 1, 1), groups=columns)


def _inverse_power(s: Tensor, beta: float) -> Tensor:
    """s^-beta; at beta = 3/4 by two square roots, which is several times faster than pow."""
    if beta == 0.75:
        r = s.rsqrt()
        return r * r.sqrt()
    return s.pow(-beta)


class _LocalResponseNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, size: int, k: float, alpha: float, beta: float, columns: int) -> Tensor:
        s = _window_sum(a * a, size, columns).mul_(alpha).add_(k)
        ctx.save_for_backward(a, s)
        ctx.constants = (size, alpha, beta, columns)
        return a * _inverse_power(s, beta)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        a, s = ctx.saved_tensors
        size, alpha, beta, columns = ctx.constants
        through = grad * _inverse_power(s, beta)
        around = _window_sum(through * a / s, size, columns)
        return through.addcmul_(a, around, value=-2.0 * alpha * beta), None, None, None, None, None


def local_response_norm(
    a_BCHW: Tensor, *, size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75, columns: int = 1
) -> Tensor:
    """Normalises every value by the squares of its neighbours in `size` adjacent maps of its own column.

    a_BCHW: floating point, C divisible by `columns`; the result has its shape and dtype. `size` is odd.
    Source: paper, section 3.3 (k=2, n=5, alpha=1e-4, beta=0.75).
    """
    if native.serves(a_BCHW, beta=beta, pool_size=1):
        return native.norm_pool(a_BCHW, rectify=False, size=size, k=k, alpha=alpha, columns=columns, pool_size=1, pool_stride=1)
    out: Tensor = _LocalResponseNorm.apply(a_BCHW, size, k, alpha, beta, columns)
    return out


def norm_pool(
    h_BCHW: Tensor,
    *,
    rectify: bool,
    size: int,
    k: float,
    alpha: float,
    beta: float,
    columns: int,
    pool_size: int,
    pool_stride: int,
) -> Tensor:
    """ReLU where `rectify`, LRN where `size` is not 0, then max-pooling: floating point (B, C, H, W) -> (B, C, H', W').

    The windows of pooling are counted by rounding up, as in the 2012 code; those over the edge are cut. float32 and bfloat16 go
    through native.c where it is compiled, in one pass with float32 in between.
    """
    if native.serves(h_BCHW, beta=beta, pool_size=pool_size):
        return native.norm_pool(
            h_BCHW,
            rectify=rectify,
            size=size,
            k=k,
            alpha=alpha,
            columns=columns,
            pool_size=pool_size,
            pool_stride=pool_stride,
        )
    h_BCHW = F.relu(h_BCHW) if rectify else h_BCHW
    if size:
        h_BCHW = local_response_norm(h_BCHW, size=size, k=k, alpha=alpha, beta=beta, columns=columns)
    return F.max_pool2d(h_BCHW, pool_size, pool_stride, ceil_mode=True)


def map_norm(a_BCHW: Tensor, *, size: int, k: float, alpha: float, beta: float) -> Tensor:
    """Normalises every value by the squares of its `size` x `size` neighbours in its own map; neighbours outside count as zero.

    Source: the 2012 code's layer type `rnorm`, which follows its second LRN (layers-145.cfg: size 5, scale 0.001 / 25, pow 0.75,
    minDiv 1); the paper does not mention it.
    """
    window = F.avg_pool2d(a_BCHW * a_BCHW, size, stride=1, padding=size // 2, divisor_override=1)
    return a_BCHW * _inverse_power(k + alpha * window, beta)
