"""conv1's whitened gradient against NumPy: the patches that are drawn, the power of their covariance, the product."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.conftest import SmallConfig, write_squares
from training.images.folders import list_examples
from training.images.preprocess import ImageLimits
from training.images.squares import prepare_squares
from training.run import whitening
from training.run.feed import Feed

SEED, ORDER, CROPS = 3, 0, 1  # as training/run/draws.py numbers the purposes of random numbers
SCALE = (0.5, 0.25, 2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("squares")


@pytest.fixture(scope="module")
def squares(folder: Path) -> NDArray[np.uint8]:
    """21 photographs in folder/data, by the order of their paths: (N, 256, 256, 3)."""
    return write_squares(folder / "data" / "train", 7)


def feed_of(folder: Path, chosen: list[int], seed: int = SEED) -> Feed:
    data = folder / "data"
    squares = prepare_squares(data, list_examples(data, "train"), folder / "out", ImageLimits())
    config = SmallConfig(square_size=128, input_size=67, pixel_scale=SCALE)
    return Feed(squares, torch.tensor(chosen), squares.mean_CHW, config, 8, seed, lambda count: slice(0, count))


def stream(purpose: int, step: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([SEED, purpose, 0, step])))


def patches_by_hand(squares: NDArray[np.uint8], chosen: list[int], each: int) -> NDArray[np.float64]:
    """`each` patches of every chosen photograph, halved and less the mean, times the scale: (N, 363), channels first."""
    halved = (squares - squares.mean(0)).reshape(-1, 128, 2, 128, 2, 3).mean((2, 4)) * SCALE
    order = np.array(chosen)[stream(ORDER, 0).permutation(len(chosen))]
    patches = []
    for round in range(each):
        draws = stream(CROPS, round)
        tops, lefts = draws.integers(128 - 11 + 1, size=(2, len(chosen)))
        mirrored = draws.random(len(chosen)) < 0.5
        for pick, top, left, mirror in zip(order, tops, lefts, mirrored, strict=True):
            patch = halved[pick, top : top + 11, left : left + 11]
            patches.append((patch[:, ::-1] if mirror else patch).transpose(2, 0, 1).ravel())
    return np.array(patches)


def test_the_matrix_is_the_power_of_the_covariance_of_patches_that_follow_from_the_seed(
    folder: Path, squares: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whitening, "_PATCHES", 90)
    chosen = [2, 3, 5, 7, 11, 13, 17, 19, 20]
    matrix_PP = whitening.whitening(feed_of(folder, chosen), 0.25)
    patches = patches_by_hand(squares, chosen, each=10)
    values, vectors = np.linalg.eigh(patches.T @ patches / 90)
    lengths = (values.clip(0) + 1e-3 * values[-1]) ** -0.25
    np.testing.assert_allclose(matrix_PP, vectors @ np.diag(lengths / lengths[-1]) @ vectors.T, atol=2e-5)
    np.testing.assert_allclose(matrix_PP.numpy() @ vectors[:, -1], vectors[:, -1], atol=2e-5)  # the longest direction stays
    assert torch.equal(matrix_PP, whitening.whitening(feed_of(folder, chosen), 0.25))
    assert not torch.allclose(matrix_PP, whitening.whitening(feed_of(folder, chosen, seed=4), 0.25), atol=1e-3)


def test_photographs_that_are_all_alike_leave_a_finite_matrix() -> None:
    matrix_PP = whitening.power(torch.zeros(4, 4, dtype=torch.float64), -0.25)
    torch.testing.assert_close(matrix_PP, (1.001e3**0.25) * torch.eye(4, dtype=torch.float64))


def test_the_gradient_of_each_kernel_is_multiplied_and_a_layer_at_rest_stays() -> None:
    rng = np.random.default_rng(0)
    gradient, matrix = rng.normal(size=(5, 3, 11, 11)), rng.normal(size=(363, 363))
    weight = torch.nn.Parameter(torch.zeros(5, 3, 11, 11, dtype=torch.float64).to(memory_format=torch.channels_last))
    whitening.whiten(weight, torch.from_numpy(matrix))
    assert weight.grad is None
    weight.grad = torch.from_numpy(gradient).to(memory_format=torch.channels_last)
    whitening.whiten(weight, torch.from_numpy(matrix))
    for kernel, before in zip(weight.grad, gradient, strict=True):
        np.testing.assert_allclose(kernel.ravel(), before.ravel() @ matrix, rtol=1e-10)
