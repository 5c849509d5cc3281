"""Gabor functions made by hand are found again; noise is explained by none."""

import numpy as np
import pytest

from tests.training.analysis.made import GREY, RED_GREEN, SIZE, apart, bars, blob
from training.analysis import gabor

ORIENTATIONS = np.arange(0, 180, 7.5)
FREQUENCIES = (0.1, 0.15, 0.2, 0.28, 0.36, 0.45)


@pytest.mark.parametrize("colour", [GREY, RED_GREEN, (0.2, -0.1, 1.0)])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_bars_of_every_orientation_and_frequency_are_recovered(colour: tuple[float, ...], noise: float) -> None:
    rng = np.random.default_rng(3)
    made = [(f, o, rng.uniform(0, 360), *rng.uniform(3.5, 6.5, 2)) for f in FREQUENCIES for o in ORIENTATIONS]
    kernels = np.stack([bars(f, o, colour, phase=phase, centre=(x, y)) for f, o, phase, x, y in made])
    kernels += noise * kernels.std((1, 2, 3), keepdims=True) * rng.standard_normal(kernels.shape)
    for found, (frequency, orientation, *_) in zip(gabor.fit(kernels), made, strict=True):
        assert apart(found.orientation, orientation) < 2
        assert found.frequency == pytest.approx(frequency, rel=0.03)
        assert found.explained == pytest.approx(1 / (1 + noise**2), abs=0.01)


def test_place_size_strength_and_phase_are_recovered() -> None:
    kernel = bars(0.2, 30, (3.0, -1.5, 0.0), phase=90, width=1.8, length=2.6, centre=(4.0, 6.5))
    [found] = gabor.fit(kernel[None])
    np.testing.assert_allclose([found.x, found.y, found.width, found.length], [4.0, 6.5, 1.8, 2.6], atol=1e-4)
    np.testing.assert_allclose(found.amplitudes, [3.0, 1.5, 0.0], atol=1e-4)
    assert found.phases[0] == pytest.approx(-found.phases[1], abs=1e-2)  # opposite
    assert abs(found.phases[0]) == pytest.approx(90, abs=1e-2)
    half = np.sqrt(2 * np.log(2)) / (2 * np.pi * 1.8)
    assert found.bandwidth == pytest.approx(np.log2((0.2 + half) / (0.2 - half)), abs=1e-4)


def test_a_blob_is_a_wave_of_frequency_0_without_a_bandwidth() -> None:
    [found] = gabor.fit(blob(RED_GREEN, 1.7)[None])
    assert found.explained > 0.9999
    assert found.frequency < 0.02
    assert found.bandwidth is None


def test_noise_and_nothing_are_explained_by_no_gabor_function() -> None:
    kernels = np.random.default_rng(0).standard_normal((20, 3, SIZE, SIZE))
    kernels[0] = 0
    assert max(found.explained for found in gabor.fit(kernels)) < 0.2


def test_windows_of_other_sizes_and_channels_are_taken() -> None:
    rows, columns = np.mgrid[:8, :24]
    kernel = np.exp(-((columns - 19) ** 2 + (rows - 3) ** 2) / 8) * np.cos(2 * np.pi * 0.21 * rows)
    [found] = gabor.fit(kernel[None, None])
    assert found.frequency == pytest.approx(0.21, rel=1e-3)
    assert apart(found.orientation, 0) < 0.1
