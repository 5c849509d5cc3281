"""Kernels made by hand have the statistics that they were made with; noise has those of noise, beside them."""

import numpy as np
import pytest
import torch

from tests.training.analysis.made import GREY, RED_GREEN, SIZE, Kernels, apart, bars, blob
from training.analysis import kernels
from training.analysis.kernels import Kernel

BINS = [k if k <= 5 else k - 11 for k in range(SIZE)]  # of a transform of 11 points, cycles a window
LOW_BINS = sum(i * i + j * j < (11 / 4) ** 2 for i in BINS for j in BINS)  # below a quarter of a cycle a pixel


def measured(*weights: Kernels, columns: int = 1) -> list[Kernel]:
    return kernels.figures(torch.from_numpy(np.stack(weights)).float(), columns)


def wave(cycles_x: int, cycles_y: int) -> Kernels:
    """A grey plane wave of whole cycles a window: one pair of opposite bins."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return np.broadcast_to(np.cos(2 * np.pi * (cycles_x * columns + cycles_y * rows) / SIZE + 0.4), (3, SIZE, SIZE)).copy()


def test_chroma_is_the_share_of_energy_off_the_grey_axis() -> None:
    grey, opposed, red = np.full((3, 3, 2, 2), 0.7)
    opposed[:] = np.array([1.0, -1.0, 0.0])[:, None, None]
    red[1:] = 0
    np.testing.assert_allclose([kernel.chroma for kernel in measured(grey, opposed, red)], [0, 1, 2 / 3], atol=1e-6)


def test_norm_column_and_unit() -> None:
    found = measured(*(np.full((3, 2, 2), size) for size in (0.5, 1.0, 2.0, 4.0)), columns=2)
    np.testing.assert_allclose([kernel.norm for kernel in found], np.array([0.5, 1, 2, 4]) * 12**0.5, rtol=1e-6)
    assert [(kernel.index, kernel.column, kernel.unit) for kernel in found] == [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)]


def test_a_plane_wave_of_whole_cycles_is_two_bins_of_the_spectrum() -> None:
    low, high = measured(wave(1, 0), wave(3, 4))
    for kernel, share in ((low, 1), (high, 0)):
        assert kernel.low_share == pytest.approx(share, abs=1e-6)
        assert kernel.dc_share == pytest.approx(0, abs=1e-6)
        assert kernel.participation == pytest.approx(2 / SIZE**2, abs=1e-6)
        assert kernel.selectivity == pytest.approx(1, abs=1e-6)
    assert high.frequency == pytest.approx(5 / SIZE, rel=0.01)
    assert apart(high.orientation, np.degrees(np.arctan2(3, 4))) < 1  # 3 right and 4 down, so bars 4 right and 3 up


def test_two_crossed_waves_have_no_orientation_and_a_flat_kernel_is_frequency_0() -> None:
    crossed, flat = measured(wave(2, 0) + wave(0, 2), np.ones((3, SIZE, SIZE)))
    assert crossed.selectivity == pytest.approx(0, abs=1e-6)
    assert not crossed.oriented
    assert flat.dc_share == pytest.approx(1)
    assert flat.low_share == pytest.approx(1)
    assert flat.frequency == 0
    assert flat.bandwidth is None
    assert flat.structured
    assert not flat.oriented


@pytest.mark.parametrize("colour", [GREY, RED_GREEN])
def test_bars_are_recovered_within_2_degrees_and_3_percent(colour: tuple[float, ...]) -> None:
    made = [(f, o, phase) for f in (0.1, 0.14, 0.19, 0.3, 0.42) for o in range(0, 180, 9) for phase in (0, 60, 90)]
    found = measured(*(bars(f, o, colour, phase=phase) for f, o, phase in made))
    for kernel, (frequency, orientation, _) in zip(found, made, strict=True):
        assert kernel.gabor
        assert apart(kernel.orientation, orientation) < 2
        assert kernel.frequency == pytest.approx(frequency, rel=0.03)
        assert kernel.structured == (frequency < 0.25)
        assert kernel.chroma == pytest.approx(1 if colour == RED_GREEN else 0, abs=1e-6)


def test_bars_that_no_gabor_function_fits_are_recovered_from_the_spectrum() -> None:
    rng = np.random.default_rng(4)
    made = [(f, o) for f in (0.15, 0.22, 0.33) for o in range(0, 180, 20)]
    weights = [bars(f, o, width=9, length=9) for f, o in made]
    noisy = [weight + 1.3 * weight.std() * rng.standard_normal(weight.shape) for weight in weights]
    for kernel, (frequency, orientation) in zip(measured(*noisy), made, strict=True):
        assert kernel.gabor is None
        assert apart(kernel.orientation, orientation) < 10
        assert kernel.frequency == pytest.approx(frequency, rel=0.1)


def test_a_blob_is_structured_and_not_oriented_and_its_frequency_is_0() -> None:
    [spot] = measured(blob(RED_GREEN))
    assert spot.structured
    assert not spot.oriented
    assert spot.frequency == pytest.approx(0, abs=0.01)
    assert spot.chroma == pytest.approx(1, abs=1e-6)
    assert spot.bandwidth is None
    assert spot.gabor


def test_a_fine_grating_is_an_edge_detector_that_is_not_structured_and_a_coarse_one_is() -> None:
    fine, coarse, edge = measured(bars(0.4, 45), bars(0.13, 45), bars(0.09, 120, phase=90, width=1.8))
    assert not fine.structured
    assert coarse.structured
    assert coarse.oriented
    assert edge.oriented
    assert apart(edge.orientation, 120) < 2


def test_the_spectrums_bandwidth_is_that_of_the_gaussian() -> None:
    # the spectrum of a Gaussian of standard deviation s is one of 1 / 2 pi s; two waves side by side are no Gabor function
    pair = np.concatenate([bars(0.25, 90, width=1.6)[:1], bars(0.25, 0, width=1.6)[:1] * 0.99, 0 * bars(0.25, 0)[:1]])
    half = np.sqrt(2 * np.log(2)) / (2 * np.pi * 1.6)
    [kernel] = measured(pair + 0.2 * np.random.default_rng(0).standard_normal(pair.shape) * pair.std())
    assert kernel.bandwidth == pytest.approx(np.log2((0.25 + half) / (0.25 - half)), rel=0.15)


def test_weak_kernels_are_dead_and_like_ones_are_duplicates_whatever_their_sign_and_strength() -> None:
    one, other, third = bars(0.15, 0), bars(0.15, 90), bars(0.15, 45)
    found = measured(one, other, -3 * one, third, 0.1 * bars(0.12, 110))
    assert [kernel.dead for kernel in found] == [False, False, False, False, True]
    assert [kernel.duplicate_of for kernel in found] == [2, None, 0, None, None]
    assert not found[4].structured


def test_a_kernel_of_zeros_is_dead_and_has_no_statistic_that_is_no_number() -> None:
    nothing, *_ = measured(np.zeros((3, SIZE, SIZE)), bars(0.15, 0), bars(0.15, 90))
    assert nothing.dead
    numbers = [value for statistic in kernels.STATISTICS.values() if (value := statistic(nothing)) is not None]
    assert np.isfinite(numbers).all()


def test_a_summary_counts_and_means_what_its_kernels_have() -> None:
    found = measured(bars(0.1, 0), bars(0.2, 0, RED_GREEN), bars(0.4, 30), columns=1)
    whole = kernels.summary(found)
    assert whole.kernels == 3
    assert whole.counts == {"structured": 2, "oriented": 2, "gabor": 3, "dead": 0, "duplicates": 0}
    assert whole.means["chroma"] == pytest.approx(1 / 3)
    assert whole.means["frequency"] == pytest.approx(0.7 / 3, rel=0.01)
    assert kernels.summary([]).means["norm"] is None


def test_noise_has_the_values_that_can_be_computed_by_hand() -> None:
    noise = kernels.noise(3, SIZE, SIZE)
    means = {name: spread.mean for name, spread in noise.ranges.items()}
    assert means["chroma"] == pytest.approx(2 / 3, abs=0.003)  # two of three dimensions
    assert means["low_share"] == pytest.approx(LOW_BINS / SIZE**2, abs=0.003)
    assert means["dc_share"] == pytest.approx(1 / SIZE**2, abs=0.001)
    assert means["participation"] == pytest.approx(3 / 4, abs=0.01)  # power of three channels: mean 1, mean square 1 + 1/3
    assert means["explained"] < 0.12
    assert noise.shares == {"structured": 0, "oriented": 0, "gabor": 0, "dead": 0, "duplicates": 0}


def test_ninety_five_of_a_hundred_noise_kernels_are_in_noises_range() -> None:
    noise = kernels.noise(3, SIZE, SIZE)
    found = kernels.figures(0.01 * torch.randn(300, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7)), 2)
    for name, spread in noise.ranges.items():
        values = [value for kernel in found if (value := kernels.STATISTICS[name](kernel)) is not None]
        inside = np.mean([spread.low <= value <= spread.high for value in values])
        assert inside > 0.85, name
        assert spread.low < spread.mean < spread.high


def test_noise_is_called_noise_and_learned_kernels_are_not() -> None:
    weights = list(np.random.default_rng(1).standard_normal((40, 3, SIZE, SIZE)))
    bars_18 = [10 * bars(0.1, 18 * i) for i in range(10)]
    for learned, expected in (
        (0, "not distinguishable from noise: 0 of 40"),
        (2, "noise: 2 of 40"),
        (10, "learned: 10 of 40"),
    ):
        made = torch.from_numpy(np.stack(weights[learned:] + bars_18[:learned]))
        layer = kernels.first_layer(made, columns=2)
        assert expected in layer.verdict
        assert layer.noise_like == (learned < 10)
        assert layer.whole.counts["gabor"] == learned
        assert [column.kernels for column in layer.columns] == [20, 20]
        assert layer.columns[1].counts["structured"] == learned


def test_fine_gratings_are_not_structured_and_yet_not_called_noise() -> None:
    layer = kernels.first_layer(torch.from_numpy(np.stack([bars(0.4, 18 * i) for i in range(10)])), columns=1)
    assert "learned: 0 of 10 are structured and 10 are Gabor functions, of white noise 0% and 0%." in layer.verdict
    assert not layer.noise_like
