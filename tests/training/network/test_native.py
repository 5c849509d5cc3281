"""ReLU, LRN and pooling in one pass, compiled and not, against each step written out in float64; values and gradients."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from training.network import lrn, native
from training.network.alexnet import AlexNet

SHAPES = [(1, 96, 27, 27), (3, 40, 13, 55), (2, 12, 7, 8), (1, 2, 3, 3), (2, 6, 2, 3)]

pytestmark = pytest.mark.usefixtures("way")  # every promise of this file holds with the library and without


def activations(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return 30 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def written_out(h: Tensor, *, rectify: bool, size: int, columns: int, pool_size: int, pool_stride: int) -> Tensor:
    """k = 2, alpha = 0.01, beta = 3/4: sizes at which the window matters."""
    h = h.clamp(min=0) if rectify else h
    if size:
        maps = h.shape[1] // columns
        parts = []
        for c in range(h.shape[1]):
            first, last = c // maps * maps, c // maps * maps + maps
            window = h[:, max(first, c - size // 2) : min(last, c + size // 2 + 1)]
            parts.append(h[:, c] / (2 + 0.01 * (window**2).sum(1)) ** 0.75)
        h = torch.stack(parts, 1)
    return F.max_pool2d(h, pool_size, pool_stride, ceil_mode=True)


def norm_pool(h: Tensor, *, rectify: bool, size: int, columns: int, pool_size: int, pool_stride: int) -> Tensor:
    return lrn.norm_pool(
        h, rectify=rectify, size=size, k=2.0, alpha=0.01, beta=0.75, columns=columns, pool_size=pool_size, pool_stride=pool_stride
    )


def both(
    x: Tensor, *, rectify: bool = True, size: int = 5, columns: int = 2, pool: tuple[int, int] = (3, 2)
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value and gradient of x, then value and gradient of x in float64 written out, for one random gradient of the output."""
    precise = x.detach().double().requires_grad_()
    x = x.detach().requires_grad_()
    arguments = {"columns": columns, "pool_size": pool[0], "pool_stride": pool[1]}
    expected = written_out(precise, rectify=rectify, size=size, **arguments)
    actual = norm_pool(x, rectify=rectify, size=size, **arguments)
    grad = activations(tuple(expected.shape), seed=1).to(x.dtype)
    actual.backward(grad)
    expected.backward(grad.double())
    assert x.grad is not None
    assert precise.grad is not None
    return actual, x.grad, expected, precise.grad


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("rectify", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_float32_equals_the_steps_written_out(shape: tuple[int, ...], columns: int, rectify: bool, channels_last: bool) -> None:
    x = activations(shape).float().contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    actual, gradient, expected, expected_gradient = both(x, rectify=rectify, columns=columns)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [0, 1, 3, 5, 9])
@pytest.mark.parametrize("pool", [(1, 1), (2, 2), (3, 2), (4, 3), (5, 1)])
def test_any_window_of_normalisation_and_of_pooling(size: int, pool: tuple[int, int]) -> None:
    actual, gradient, expected, expected_gradient = both(activations((2, 10, 9, 12)).float(), size=size, pool=pool)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [1, 2])
def test_bfloat16_stays_within_its_own_rounding(columns: int) -> None:
    # no pooling: a tie made by rounding may fall to another pixel, which no tolerance of the gradient covers
    x = activations((2, 96, 13, 13)).bfloat16().contiguous(memory_format=torch.channels_last)
    actual, gradient, expected, expected_gradient = both(x, columns=columns, pool=(1, 1))
    assert (actual.dtype, gradient.dtype) == (torch.bfloat16, torch.bfloat16)
    torch.testing.assert_close(actual.double(), expected, rtol=0.02, atol=1e-6)
    assert (gradient.double() - expected_gradient).norm() < 0.01 * expected_gradient.norm()
    pooled = norm_pool(x, rectify=True, size=5, columns=columns, pool_size=3, pool_stride=2)
    torch.testing.assert_close(pooled.double(), F.max_pool2d(expected, 3, 2, ceil_mode=True), rtol=0.02, atol=1e-6)


def test_of_equal_values_the_first_by_rows_takes_the_whole_gradient() -> None:
    x = torch.ones(1, 2, 3, 3, requires_grad=True)
    norm_pool(x, rectify=True, size=0, columns=1, pool_size=3, pool_stride=2).backward(torch.full((1, 2, 1, 1), 7.0))
    assert x.grad is not None
    assert x.grad.flatten(2).tolist() == [[[7.0] + 8 * [0.0]] * 2]


def test_a_value_that_is_not_a_number_is_not_lost() -> None:
    x = torch.ones(1, 2, 5, 5)
    x[0, 0, 2, 2] = math.nan
    out = norm_pool(x, rectify=True, size=0, columns=1, pool_size=3, pool_stride=2)
    assert out[0, 0].isnan().all()
    assert not out[0, 1].isnan().any()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_values_are_the_same(mode: type[torch.no_grad]) -> None:
    x = activations((2, 12, 7, 7)).float()
    arguments = {"size": 5, "columns": 2, "pool_size": 3, "pool_stride": 2}
    with_gradients = norm_pool(x.requires_grad_(), rectify=True, **arguments).detach()
    with mode():
        torch.testing.assert_close(norm_pool(x, rectify=True, **arguments), with_gradients, rtol=0, atol=0)


def test_a_view_of_every_second_pixel_is_taken_as_it_is_seen() -> None:
    x = activations((2, 12, 14, 14)).float()[:, :, ::2, ::2]
    actual, gradient, expected, expected_gradient = both(x)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-5)


def test_features_of_the_network_are_the_same_compiled_and_not(small_network: AlexNet, monkeypatch: pytest.MonkeyPatch) -> None:
    x = 50 * torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    here = small_network.features(x)
    monkeypatch.setattr(native, "library", lambda: None)
    torch.testing.assert_close(here, small_network.features(x), rtol=1e-5, atol=1e-5)
