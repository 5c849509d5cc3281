"""Perturbations change pixels as they say, clip as a camera would, and leave a photograph alone where their level is nothing."""

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from training.analysis import perturbations
from training.analysis.perturbations import KINDS, PERTURBATIONS, POINTS, Square
from training.images.statistics import Statistics
from training.run.colour import colour_noise


@pytest.fixture
def noise() -> Square:
    """No two pixels alike."""
    return np.random.default_rng(3).integers(0, 256, (256, 256, 3), np.uint8)


@pytest.fixture
def smooth() -> Square:
    """What a lens gives."""
    coarse = np.random.default_rng(4).integers(40, 200, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC))


def test_at_the_level_of_nothing_every_pixel_stays(noise: Square) -> None:
    for unmoved in (
        perturbations.gain(noise, 1.0)[0],
        perturbations.bias(noise, 0.0)[0],
        perturbations.colour(noise, 0.0, np.array([9.0, -3.0, 1.0]))[0],
        perturbations.shift(noise, 0.0),
        perturbations.scale(noise, 1.0),
        perturbations.turn(noise, 0.0),
        perturbations.blur(noise, 0.0),
        perturbations.mirror(perturbations.mirror(noise)),
    ):
        np.testing.assert_array_equal(unmoved, noise)


def test_gain_bias_and_colour_are_rounded_and_clipped_and_the_clipped_are_counted() -> None:
    square = np.zeros((256, 256, 3), np.uint8)
    square[0, 0] = 10, 100, 200
    made, clipped = perturbations.gain(square, 1.5)
    assert made[0, 0].tolist() == [15, 150, 255]
    assert clipped == 1 / square.size
    made, clipped = perturbations.bias(square, -30.0)
    assert made[0, 0].tolist() == [0, 70, 170]
    assert clipped == (square.size - 2) / square.size
    made, clipped = perturbations.colour(square, 2.0, np.array([1.2, 0.0, 40.0]))
    assert made[0, 0].tolist() == [12, 100, 255]
    assert made[5, 5].tolist() == [2, 0, 80]
    assert clipped == 1 / square.size


def test_a_turn_by_quarters_is_exact_and_a_mirror_swaps_left_and_right(noise: Square) -> None:
    for quarters in (1, 2):
        np.testing.assert_array_equal(perturbations.turn(noise, 90.0 * quarters), np.rot90(noise, quarters))
    assert perturbations.mirror(noise)[7, 0].tolist() == noise[7, 255].tolist()


def test_a_shift_moves_pixels_and_fills_in_their_reflection(noise: Square) -> None:
    shifted = perturbations.shift(noise, 32.0)
    np.testing.assert_array_equal(shifted[:, 32:], noise[:, :-32])
    np.testing.assert_array_equal(shifted[:, :32], noise[:, 32:0:-1])


def test_a_turned_or_smaller_picture_has_no_empty_corner() -> None:
    white = np.full((256, 256, 3), 255, np.uint8)
    for level in PERTURBATIONS["turn"].levels:
        assert perturbations.turn(white, level).min() == 255
    for level in PERTURBATIONS["scale"].levels:
        assert perturbations.scale(white, level).min() == 255


def test_a_scale_enlarges_about_the_middle(smooth: Square) -> None:
    planes = torch.from_numpy(smooth[64:192, 64:192].copy()).permute(2, 0, 1).float()[None]
    expected = F.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()
    inside = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(perturbations.scale(smooth, 2.0)[inside], expected[inside], atol=1)


def test_a_blur_is_nearly_gaussian(noise: Square) -> None:
    middle = (slice(32, -32), slice(32, -32))
    for sigma in (1.0, 4.0):
        expected = gaussian_filter(noise.astype(float), (sigma, sigma, 0))
        blurred = perturbations.blur(noise, sigma)
        assert np.abs(blurred[middle] - expected[middle]).mean() < 0.1 * expected[middle].std() + 0.5


def test_jpeg_differs_the_more_the_lower_its_quality_is(smooth: Square, noise: Square) -> None:
    for square in (smooth, noise):
        errors = [np.abs(perturbations.jpeg(square, level).astype(int) - square).mean() for level in PERTURBATIONS["jpeg"].levels]
        assert errors == sorted(errors)
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "JPEG", quality=30)
    np.testing.assert_array_equal(perturbations.jpeg(smooth, 30.0), np.asarray(Image.open(buffer)))


def covariance(noise: Square) -> NDArray[np.float64]:
    tinted = (noise @ np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.1], [0.1, 0.1, 0.3]])).astype(np.uint8)
    statistics = Statistics()
    statistics.add(torch.from_numpy(tinted.transpose(2, 0, 1).copy()))
    return statistics.covariance_33


def test_a_step_of_colour_lies_along_the_principal_directions_by_their_deviation(noise: Square) -> None:
    covariance_33 = covariance(noise)
    values, vectors = np.linalg.eig(covariance_33)
    for place, i in enumerate(np.argsort(-values)):
        step = perturbations.colour_step(covariance_33, np.eye(3)[place])
        assert abs(step @ vectors[:, i]) == pytest.approx(0.1 * np.sqrt(values[i]))
        assert np.linalg.norm(step) == pytest.approx(0.1 * np.sqrt(values[i]))


def test_a_step_of_colour_is_what_training_adds(noise: Square) -> None:
    normals = np.array([0.4, -1.7, 0.9])
    trained = colour_noise(covariance(noise), "deviation")
    assert trained
    x = torch.zeros(1, 3, 1, 1)
    trained.add(x, torch.tensor(normals[None], dtype=torch.float32))
    step = perturbations.colour_step(covariance(noise), normals)
    np.testing.assert_allclose(step, trained.divisor * x[0, :, 0, 0].numpy(), rtol=1e-5)


def test_variants_are_all_points_in_order_each_as_its_own_function_has_it(noise: Square) -> None:
    step = np.array([3.0, -1.0, 0.5])
    made = list(perturbations.variants(torch.from_numpy(noise.transpose(2, 0, 1).copy()), step))
    assert [(variant.kind, variant.level) for variant in made] == list(POINTS)
    assert {kind for kind, _ in POINTS} == set(KINDS)
    assert all(level != PERTURBATIONS[kind].identity for kind, level in POINTS)
    by_point = {(variant.kind, variant.level): variant for variant in made}
    for kind, level, expected in (
        ("gain", 2.0, perturbations.gain(noise, 2.0)),
        ("colour", 8.0, perturbations.colour(noise, 8.0, step)),
        ("turn", 20.0, (perturbations.turn(noise, 20.0), 0.0)),
        ("mirror", 1.0, (noise[:, ::-1], 0.0)),
        ("blur", 4.0, (perturbations.blur(noise, 4.0), 0.0)),
    ):
        variant = by_point[kind, level]  # type: ignore[index]
        np.testing.assert_array_equal(variant.pixels_CHW.permute(1, 2, 0).numpy(), expected[0])
        assert variant.clipped == expected[1]
        assert variant.pixels_CHW.dtype == torch.uint8
