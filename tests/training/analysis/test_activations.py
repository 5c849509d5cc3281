"""What units say of a photograph, by plain convolutions and by hand; where maps stand in the picture."""

import threading

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.conftest import SmallConfig
from training.analysis.activations import MAP_LAYERS, MapLayer, Mosaic, activations, activity, mosaic
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise


def view(seed: int = 3, size: int = 224) -> torch.Tensor:
    """A made view."""
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 60, (3, size, size)).astype(np.float32))


def test_conv1_is_its_convolution_rectified_column_by_column(small_network: AlexNet) -> None:
    x_CHW = view()
    [first, second] = activations(small_network, x_CHW, "conv1")
    padded = F.pad(x_CHW[None] / 64, (0, 3, 0, 3))
    conv1 = small_network.conv1
    expected = F.conv2d(padded, conv1.weight, conv1.bias, stride=4).clamp(min=0)[0].detach().numpy()
    assert first.shape == second.shape == (4, 55, 55)
    np.testing.assert_allclose(np.concatenate([first, second]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("layer", "side"), [("conv2", 27), ("conv3", 13), ("conv4", 13), ("conv5", 13), ("fc6", 1), ("fc7", 1)])
def test_maps_of_a_layer_have_its_size_and_are_of_each_column(small_network: AlexNet, layer: MapLayer, side: int) -> None:
    units = {"conv2": 6, "conv3": 8, "conv4": 8, "conv5": 6, "fc6": 16, "fc7": 16}[layer]
    columns = activations(small_network, view(), layer)
    assert [maps_UHW.shape for maps_UHW in columns] == [(units, side, side)] * 2
    assert min(float(maps_UHW.min()) for maps_UHW in columns) >= 0


def test_fc7_is_the_feature(small_network: AlexNet) -> None:
    x_CHW = view()
    with torch.inference_mode():
        expected = small_network.features(x_CHW[None])[0].numpy()
    columns = activations(small_network, x_CHW, "fc7")
    np.testing.assert_allclose(np.concatenate(columns).ravel(), expected, rtol=1e-5, atol=1e-6)


def test_values_below_0_are_left_where_the_nonlinearity_leaves_them() -> None:
    net = AlexNet(SmallConfig(classes=3, nonlinearity="tanh"))
    initialise(net, "fan-in", seed=1)
    [first, _] = activations(net.eval(), view(), "conv3")
    assert -1 <= first.min() < 0 < first.max() <= 1


def test_another_threads_pass_of_the_same_network_is_not_taken_for_ours(small_network: AlexNet) -> None:
    def elsewhere() -> None:
        with torch.inference_mode():
            small_network.features(view(9)[None])

    def start(*_: object) -> None:
        thread = threading.Thread(target=elsewhere)
        begun.append(thread)
        if len(begun) == 1:
            thread.start()
            thread.join()

    begun: list[threading.Thread] = []
    alone = activations(small_network, view(), "conv2")
    with small_network.conv1.register_forward_hook(start):
        beside = activations(small_network, view(), "conv2")
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_strongest_are_named_first_with_where_they_peak() -> None:
    maps = np.zeros((4, 3, 3), np.float32)
    maps[2, 1, 2] = 5
    maps[0, 2, 0] = maps[3, 0, 1] = 2
    found = activity(maps, 3)
    assert (found.units, found.side, found.silent) == (4, 3, 1)
    assert [(unit.unit, unit.largest, unit.peak) for unit in found.strongest] == [(2, 5, (1, 2)), (0, 2, (2, 0)), (3, 2, (0, 1))]
    assert found.mean == pytest.approx(9 / 36)
    assert found.active == pytest.approx(3 / 36)
    assert found.strongest[0].mean == pytest.approx(5 / 9)
    assert found.strongest[0].active == pytest.approx(1 / 9)


@pytest.mark.parametrize("scaling", ["own", "together"])
def test_every_map_is_at_its_box_and_white_at_the_largest(scaling: str) -> None:
    rng = np.random.default_rng(5)
    maps = (rng.normal(size=(18, 5, 5)) * rng.uniform(0.1, 3, (18, 1, 1))).astype(np.float32)
    places = Mosaic.of(maps, "conv4", 2)
    pixels = np.asarray(mosaic(maps, places, "own" if scaling == "own" else "together"))
    assert pixels.shape == places.size == (2 * 11 + 1, 16 * 11 + 1)
    for unit, map_HW in enumerate(maps):
        left, top, right, bottom = places.box(unit)
        largest = map_HW.max() if scaling == "own" else maps.max()
        expected = np.round(np.maximum(map_HW, 0) / largest * 255)
        np.testing.assert_array_equal(pixels[top:bottom:2, left:right:2], expected)
        np.testing.assert_array_equal(pixels[top + 1 : bottom : 2, left + 1 : right : 2], expected)


def test_units_of_one_value_stand_side_by_side() -> None:
    maps = np.arange(100, dtype=np.float32).reshape(100, 1, 1)
    pixels = np.asarray(mosaic(maps, Mosaic.of(maps, "fc6", 1), "together"))
    np.testing.assert_array_equal(pixels.ravel()[:100], np.round(np.arange(100) / 99 * 255))
    assert pixels.shape == (2, 64)


def test_a_photograph_of_nothing_is_black(small_network: AlexNet) -> None:
    assert MAP_LAYERS == ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
    maps = np.zeros((3, 2, 2), np.float32)
    pixels = np.asarray(mosaic(maps, Mosaic.of(maps, "conv1", 1), "own"))
    assert set(pixels.ravel().tolist()) == {0, 96}
