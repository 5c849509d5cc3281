"""Moves, distances and intervals against what is known by hand, and what LRN adds against its formula written out."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from tests.conftest import SmallConfig
from training.analysis import invariance, perturbations
from training.analysis.invariance import Distances, Features, Space
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise


def linear(pixels_BCHW: torch.Tensor) -> Features:
    """A network without nonlinearity: sums of quarters of the square."""
    return np.asarray(F.avg_pool2d(pixels_BCHW.float(), 128).flatten(1).numpy())


def darkish() -> torch.Tensor:
    """Multiples of 4 to 96, brighter on the left."""
    pixels = np.random.default_rng(5).integers(0, 25, (3, 256, 256), np.uint8) * 4
    pixels[:, :, 128:] = pixels[:, :, 128:] // 8 * 4
    return torch.from_numpy(pixels)


def test_a_linear_network_moves_by_the_gain_and_never_turns() -> None:
    pixels = darkish()
    square = pixels.permute(1, 2, 0).numpy()
    gains = (1.0, 0.25, 0.5, 1.5, 2.0)  # of multiples of 4 to 96: nothing is rounded or clipped
    made = [torch.from_numpy(perturbations.gain(square, gain)[0].transpose(2, 0, 1).copy()) for gain in gains]
    moves = Space().moves(linear(torch.stack([pixels, *made])), 0)
    np.testing.assert_allclose(moves["l2"], [abs(gain - 1) for gain in gains], atol=1e-6)
    np.testing.assert_allclose(moves["angle"], 0, atol=1e-4)
    assert set(moves) == {"l2", "angle"}


def test_a_bias_moves_a_linear_network_by_the_bias_over_its_length() -> None:
    pixels = darkish()
    brighter = torch.from_numpy(perturbations.bias(pixels.numpy(), 30.0)[0])
    f0 = linear(pixels[None])[0].astype(float)
    f = f0 + 30
    moves = Space().moves(linear(torch.stack([pixels, brighter])), 0)
    assert moves["l2"][0] == pytest.approx(30 * math.sqrt(12) / np.linalg.norm(f0), rel=1e-5)
    assert moves["angle"][0] == pytest.approx(np.degrees(np.arccos(f @ f0 / np.linalg.norm(f) / np.linalg.norm(f0))), rel=1e-3)


def test_unperturbed_variants_have_exactly_the_feature_of_the_photograph(small_network: AlexNet) -> None:
    pixels = torch.from_numpy(np.random.default_rng(6).integers(0, 256, (3, 256, 256), np.uint8))
    square = pixels.permute(1, 2, 0).numpy()
    still = [
        perturbations.gain(square, 1.0)[0],
        perturbations.bias(square, 0.0)[0],
        perturbations.turn(square, 0.0),
        perturbations.mirror(perturbations.mirror(square)),
    ]
    rows = torch.stack([pixels, *(torch.from_numpy(made.transpose(2, 0, 1).copy()) for made in still)])
    with torch.inference_mode():
        alone = [small_network.features(row[None, :, :224, :224].float() - 110).numpy()[0] for row in rows]
    for feature in alone[1:]:
        np.testing.assert_array_equal(feature, alone[0])
    np.testing.assert_array_equal(invariance.l2(np.stack(alone), alone[0]), 0)
    np.testing.assert_array_equal(invariance.angle(np.stack(alone), alone[0]), 0)


def test_small_and_large_angles_are_right() -> None:
    angles = np.radians([0.0, 1e-5, 1.0, 90.0, 180.0])
    features = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32) * 7
    reference = np.array([2.0, 0.0], np.float32)
    np.testing.assert_allclose(invariance.angle(features, reference), np.degrees(angles), rtol=1e-5, atol=1e-9)
    assert invariance.angle(np.zeros((1, 2), np.float32), reference).tolist() == [90.0]


def test_bits_and_overlap_are_counted_as_by_hand() -> None:
    codes = np.array([[0b10110000, 0b1], [0, 0], [0b11111111, 0b11]], np.uint8)
    code = np.array([0b10100000, 0b1], np.uint8)
    by_hand = [sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(row, code, strict=True)) for row in codes]
    assert invariance.bits(codes, code).tolist() == by_hand == [1, 3, 7]
    first = np.array([1, 2, 3, 4])
    others = np.array([[4, 3, 2, 1], [1, 2, 9, 8], [5, 6, 7, 8]])
    assert invariance.overlap(others, first).tolist() == [1.0, 0.5, 0.0]


def test_the_nearest_are_those_of_brute_force_without_the_photograph_itself() -> None:
    rng = np.random.default_rng(7)
    features = rng.normal(size=(40, 6)).astype(np.float32)
    features[20] = features[3]  # a copy, which stays
    queries = np.concatenate([features[[3]], rng.normal(size=(4, 6)).astype(np.float32)])
    found = invariance.nearest(features, queries, 3)
    for query, ids in zip(queries, found, strict=True):
        distances = [(math.dist(query, row), i) for i, row in enumerate(features) if i != 3]
        assert ids.tolist() == [i for _, i in sorted(distances)[:10]]
    assert found[0, 0] == 20


def test_distances_are_means_over_photographs_of_their_class_and_of_others() -> None:
    matrix = np.array([[0, 1, 4, 8], [2, 0, 6, 6], [5, 7, 0, 3], [9, 9, 9, 0]], float)
    found = invariance.between(matrix, ["a", "a", "b", "c"])
    assert found == Distances(same=(1 + 2) / 2, other=(6 + 6 + 5 + 9) / 4)
    assert invariance.between(matrix, ["a", "b", "c", "d"]).same is None
    assert invariance.between(matrix, ["a"] * 4).other is None
    both = invariance.mean_distances([Distances(1.0, 2.0), Distances(3.0, 6.0)])
    assert both == Distances(2.0, 4.0)
    assert invariance.mean_distances([Distances(1.0, 2.0), Distances(None, 6.0)]) == Distances(None, 4.0)


def test_distances_of_a_space_have_every_measure_that_it_has() -> None:
    features = np.array([[3.0, 0], [3, 3], [0, 3]], np.float32)
    space = Space(
        encode=lambda rows_ND: (rows_ND[:, :1] > 0).astype(np.uint8),
        neighbors=lambda rows_ND, number: np.array([[number, 7]] * len(rows_ND)),
    )
    found = space.distances(features, ["a", "a", "b"])
    assert found["angle"].same == pytest.approx(45)
    assert found["angle"].other == pytest.approx((90 + 45 + (90 + 45) / 2) / 3)
    assert found["l2"].same == pytest.approx((1 + 1 / math.sqrt(2)) / 2)
    assert found["bits"] == Distances(0.0, 1.0)
    assert found["overlap"] == Distances(0.5, 0.5)
    other = found["l2"].other
    assert other
    assert found["share"] == Distances((1 + 1 / math.sqrt(2)) / 2 / other, 1.0)


def test_intervals_over_photographs_are_the_normal_ones_and_over_networks_students() -> None:
    rng = np.random.default_rng(8)
    values = rng.normal([1.0, 5.0], [0.2, 2.0], (3, 400, 2))
    for point, spread in enumerate(invariance.spreads(values)):
        of_photographs = values[:, :, point].mean(0)
        half = 1.96 * of_photographs.std(ddof=1) / 20
        assert spread.mean == pytest.approx(values[:, :, point].mean())
        np.testing.assert_allclose(spread.photographs, [spread.mean - half, spread.mean + half], atol=0.15 * half)
        means = values[:, :, point].mean(1)
        expected = stats.t.interval(0.95, 2, means.mean(), stats.sem(means))
        assert spread.networks
        np.testing.assert_allclose(spread.networks, expected)
    assert invariance.spreads(values[:1])[0].networks is None


def test_a_difference_is_paired_so_that_what_photographs_share_is_not_in_its_interval() -> None:
    rng = np.random.default_rng(9)
    shared = rng.normal(0, 10, (1, 50, 1))
    second = {"l2": shared + rng.normal(0, 0.01, (1, 50, 1)), "angle": shared}
    first = {"l2": shared + 1}
    found = invariance.compared(first, second)  # type: ignore[arg-type]
    assert set(found) == {"l2"}
    low, high = found["l2"][0].photographs
    assert 0.98 < low < found["l2"][0].mean < high < 1.02


@pytest.mark.parametrize("across", [False, True])
def test_what_lrn_adds_is_its_sum_of_squares_as_a_share_of_k(across: bool) -> None:
    net = AlexNet(SmallConfig(classes=3, lrn_alpha=0.7, lrn_k=1.5, lrn_size=3, lrn_across=across, input_size=67))
    initialise(net, "fan-in", seed=2)
    x = torch.from_numpy(np.random.default_rng(10).normal(0, 40, (2, 3, 67, 67)).astype(np.float32))
    found = invariance.divisors(net.eval(), x)
    assert set(found) == {1, 2}
    with torch.inference_mode():
        short = net.config.conv1_short()
        a = F.relu(net.conv1(F.pad(x * net.scale_C[:, None, None], (0, short, 0, short)))).double().numpy()
    maps = a.shape[1]
    added = np.zeros_like(a)
    for c in range(maps):
        near = [j for j in range(maps) if abs(j - c) <= 1 and (across or j // (maps // 2) == c // (maps // 2))]
        added[:, c] = 0.7 / 1.5 * np.square(a[:, near]).sum(1)
    assert found[1].median == pytest.approx(np.median(added[a > 0]), rel=1e-3)
    assert found[1].highest == pytest.approx(np.percentile(added[a > 0], 99), rel=1e-3)
    assert not any(net.conv1._forward_hooks)
