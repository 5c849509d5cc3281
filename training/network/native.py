"""native.c from Python: ReLU, LRN and max-pooling in one pass, on the CPU, where the installation compiled it.

Legend: B batch, C maps of all columns, H height, W width.
"""

import ctypes
from functools import cache
from typing import Any, Final

import torch  # before the library, which then shares PyTorch's OpenMP threads
from torch import Tensor
from torch.autograd.function import once_differentiable

from training.compiled import compiled_beside

LARGEST_WINDOW: Final = 16  # of max-pooling; a position within it is kept in a byte
_DTYPES: Final = {torch.float32: 0, torch.bfloat16: 1}


class _Shape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "maps", "columns", "rectify", "size")),
        *((name, ctypes.c_int64) for name in ("pool_size", "pool_stride", "pooled_height", "pooled_width")),
        *((name, ctypes.c_int64) for name in ("bfloat16", "threads")),
        *((name, ctypes.c_float) for name in ("k", "alpha")),
    ]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled native.c beside this module; None where there is none that loads: PyTorch's operations then serve."""
    return compiled_beside(__file__)


def serves(x_BCHW: Tensor, *, beta: float, pool_size: int) -> bool:
    """Whether `norm_pool` takes this tensor and these constants here."""
    known = x_BCHW.device.type == "cpu" and x_BCHW.dtype in _DTYPES
    return known and beta == 0.75 and pool_size <= LARGEST_WINDOW and library() is not None


def norm_pool(
    x_BCHW: Tensor, *, rectify: bool, size: int, k: float, alpha: float, columns: int, pool_size: int, pool_stride: int
) -> Tensor:
    """training.network.lrn.norm_pool at beta = 3/4, of what `serves` accepts. The result lies channels-last."""
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    images, maps, height, width = x_BCHW.shape
    shape = _Shape(
        images, height, width, maps, columns, rectify, size, pool_size, pool_stride,
        _pooled(height, pool_size, pool_stride), _pooled(width, pool_size, pool_stride),
        _DTYPES[x_BCHW.dtype], torch.get_num_threads(), k, alpha,
    )  # fmt: skip
    if torch.is_grad_enabled() and x_BCHW.requires_grad:
        out: Tensor = _NormPool.apply(x_BCHW, shape)
        return out
    return _pool(x_BCHW, None, shape)


def _pooled(length: int, size: int, stride: int) -> int:
    """Windows along `length` by rounding up; none begins beyond its end."""
    return min(1 + -(-(length - size) // stride), 1 + (length - 1) // stride)


class _NormPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: _Shape) -> Tensor:
        pooled = (shape.images, shape.maps, shape.pooled_height, shape.pooled_width)
        argmax = None
        if shape.pool_size > 1:
            argmax = torch.empty(pooled, dtype=torch.uint8, memory_format=torch.channels_last)
        ctx.save_for_backward(x, argmax)
        ctx.shape = shape
        return _pool(x, argmax, shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, argmax = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = torch.empty_like(x, memory_format=torch.channels_last)
        _call("fc7_unpool", x, grad, argmax, grad_x, ctx.shape)
        return grad_x, None


def _pool(x: Tensor, argmax: Tensor | None, shape: _Shape) -> Tensor:
    pooled = (shape.images, shape.maps, shape.pooled_height, shape.pooled_width)
    out = torch.empty(pooled, dtype=x.dtype, memory_format=torch.channels_last)
    _call("fc7_pool", x, out, argmax, shape)
    return out


def _call(name: str, *arguments: Tensor | _Shape | None) -> None:
    pointers = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else a and ctypes.byref(a) for a in arguments]
    if getattr(library(), name)(*pointers):
        raise MemoryError(f"{name} found no memory for its scratch")
