"""The mean image and the covariance of RGB: exact, whatever the order and the batches."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from training.images.statistics import Statistics, principal_components


@pytest.fixture(scope="module")
def photographs_NCHW() -> torch.Tensor:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 200, (5, 1, 256, 256))
    return torch.from_numpy((grey + rng.integers(0, 56, (5, 3, 256, 256))).astype(np.uint8))


def counted(photographs_NCHW: torch.Tensor) -> Statistics:
    statistics = Statistics()
    statistics.add(photographs_NCHW)
    return statistics


def same(one: Statistics, other: Statistics) -> bool:
    sums = np.array_equal(one.sums_CHW, other.sums_CHW) and np.array_equal(one.products_33, other.products_33)
    return sums and one.count == other.count


def test_mean_and_covariance_are_those_of_all_pixels_at_once(photographs_NCHW: torch.Tensor) -> None:
    statistics = counted(photographs_NCHW)
    assert statistics.mean_CHW.dtype == torch.float32
    np.testing.assert_array_equal(statistics.mean_CHW, photographs_NCHW.double().mean(0).float())
    channels = photographs_NCHW.permute(1, 0, 2, 3).reshape(3, -1).numpy()
    np.testing.assert_allclose(statistics.covariance_33, np.cov(channels.astype(np.float64), bias=True), rtol=1e-12)


def test_the_covariance_is_the_exact_fraction_rounded_once(photographs_NCHW: torch.Tensor) -> None:
    exact = [channel.astype(object) for channel in photographs_NCHW.permute(1, 0, 2, 3).reshape(3, -1).numpy()]
    count = len(exact[0])
    for i in range(3):
        for j in range(3):
            mean_of_product = Fraction(int((exact[i] * exact[j]).sum()), count)
            product_of_means = Fraction(int(exact[i].sum()), count) * Fraction(int(exact[j].sum()), count)
            assert counted(photographs_NCHW).covariance_33[i, j] == float(mean_of_product - product_of_means)


def test_the_brightest_photographs_do_not_lose_a_unit() -> None:
    statistics = counted(torch.full((3, 3, 256, 256), 255, dtype=torch.uint8))
    assert (statistics.products_33 == 3 * 65536 * 255 * 255).all()
    assert (statistics.covariance_33 == 0).all()


def test_neither_order_nor_batches_change_a_bit(photographs_NCHW: torch.Tensor) -> None:
    whole = counted(photographs_NCHW)
    one_by_one = Statistics()
    for photograph_CHW in photographs_NCHW.flip(0):
        one_by_one.add(photograph_CHW)
    assert same(one_by_one, whole)
    for first, last in (((0, 2), (2, 5)), ((2, 5), (0, 2))):
        in_batches = counted(photographs_NCHW[slice(*first)])
        in_batches.add(photographs_NCHW[slice(*last)])
        assert same(in_batches, whole)


def test_components_are_ordered_and_have_one_sign(photographs_NCHW: torch.Tensor) -> None:
    covariance_33 = counted(photographs_NCHW).covariance_33
    values, vectors = principal_components(covariance_33)
    assert values[0] > values[1] > values[2] > 0
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, covariance_33, rtol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    for column in vectors.T:
        assert column[np.abs(column).argmax()] > 0
    assert (vectors[:, 0] > 0.5).all()
