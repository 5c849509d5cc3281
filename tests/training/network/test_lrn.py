"""Local response normalisation against the paper's formula written out, and its gradient against finite differences."""

import numpy as np
import pytest
import torch
from torch import Tensor

from training.network.lrn import local_response_norm


def by_formula(a: np.ndarray, columns: int, size: int, k: float, alpha: float, beta: float) -> np.ndarray:
    out = np.empty_like(a)
    maps = a.shape[1] // columns
    for column in range(columns):
        for i in range(maps):
            low, high = max(0, i - size // 2), min(maps - 1, i + size // 2)
            window = a[:, column * maps + low : column * maps + high + 1]
            c = column * maps + i
            out[:, c] = a[:, c] / (k + alpha * (window**2).sum(1)) ** beta
    return out


def activations(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 30, shape))


@pytest.fixture
def dtype(way: str) -> torch.dtype:
    """What each way is exact in: native.c takes no float64."""
    return torch.float32 if way == "compiled" else torch.float64


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize(("size", "k", "alpha"), [(5, 2.0, 1e-4), (3, 1.0, 1e-2)])
def test_equals_the_formula_within_each_column(dtype: torch.dtype, columns: int, size: int, k: float, alpha: float) -> None:
    a = activations(2, 12, 5, 4)
    out = local_response_norm(a.to(dtype), size=size, k=k, alpha=alpha, beta=0.75, columns=columns)
    rtol = 1e-12 if dtype == torch.float64 else 1e-5
    np.testing.assert_allclose(out.numpy(), by_formula(a.numpy(), columns, size, k, alpha, 0.75), rtol=rtol)


@pytest.mark.parametrize("columns", [1, 2])
def test_another_beta_equals_the_formula_too(columns: int) -> None:
    a = activations(2, 12, 5, 4)
    out = local_response_norm(a, size=5, k=2.0, alpha=1e-3, beta=0.5, columns=columns)
    np.testing.assert_allclose(out.numpy(), by_formula(a.numpy(), columns, 5, 2.0, 1e-3, 0.5), rtol=1e-12)


def test_alpha_is_not_divided_by_the_window_as_pytorch_divides_it(dtype: torch.dtype) -> None:
    a = activations(2, 12, 5, 4).to(dtype)
    torchs = torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
    torch.testing.assert_close(local_response_norm(a), torchs(a))


def test_maximal_window_is_division_by_the_l2_norm_over_the_maps() -> None:
    a = activations(2, 6, 3, 3)
    out = local_response_norm(a, size=13, k=0.0, alpha=1.0, beta=0.5)
    torch.testing.assert_close(out, a / a.norm(dim=1, keepdim=True))


def test_the_seam_between_columns_is_never_crossed(dtype: torch.dtype) -> None:
    a = activations(1, 12, 3, 3).to(dtype)
    louder = a.clone()
    louder[:, 6:] *= 100
    first = local_response_norm(a, alpha=1.0, columns=2)[:, :6]
    torch.testing.assert_close(local_response_norm(louder, alpha=1.0, columns=2)[:, :6], first)


@pytest.mark.parametrize("beta", [0.75, 0.5])
@pytest.mark.parametrize("gain", [0.5, 4.0])
def test_of_a_gain_small_values_keep_all_of_it_and_large_ones_its_power_one_less_two_beta(beta: float, gain: float) -> None:
    """So at beta = 1/2 large values lose the gain, and at the paper's 3/4 those that grow come out smaller."""
    a = activations(2, 12, 5, 4)
    for size, power in ((1e-6, 1.0), (1e6, 1 - 2 * beta)):
        first, second = (
            local_response_norm(scaled * size * a, size=5, k=2.0, alpha=1e-4, beta=beta, columns=2) for scaled in (1.0, gain)
        )
        np.testing.assert_allclose(second.numpy(), (gain**power * first).numpy(), rtol=1e-5)


def test_small_values_are_multiplied_by_a_constant() -> None:
    a = 1e-6 * activations(2, 12, 5, 4)
    out = local_response_norm(a, size=5, k=2.0, alpha=1e-4, beta=0.75)
    np.testing.assert_allclose(out.numpy(), 2.0**-0.75 * a.numpy(), rtol=1e-9)


@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_gradient_equals_finite_differences(beta: float) -> None:
    a = activations(1, 8, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: local_response_norm(x, alpha=0.1, beta=beta, columns=2), a)


@pytest.mark.usefixtures("way")
def test_bfloat16_stays_within_its_own_rounding() -> None:
    a = activations(2, 12, 5, 4).float()
    half = local_response_norm(a.bfloat16(), columns=2).float()
    torch.testing.assert_close(half, local_response_norm(a, columns=2), rtol=0.02, atol=0.0)
