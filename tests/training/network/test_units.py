"""What excites each unit most, and where, beside the formulas written out; the features stay what they are."""

import pytest
import torch

from tests.conftest import SmallConfig
from tests.training.network.brute import activations
from training.network.alexnet import LAYERS, AlexNet, AlexNetConfig
from training.network.initialisation import initialise
from training.network.units import excite, layer_shapes

CONFIGS = {
    "paper": SmallConfig(classes=3, input_size=99),
    "owt": SmallConfig(classes=3, input_size=99, columns=1, conv1_pad=2, conv1_ceil=False, lrn_after=()),
    "source": SmallConfig(classes=3, input_size=99, conv1_nonlinearity_last=True, map_norm_alpha=1e-3),
    "tanh": SmallConfig(classes=3, input_size=99, nonlinearity="tanh"),
    "abs-tanh": SmallConfig(classes=3, input_size=99, nonlinearity="abs-tanh"),
    "smallest": SmallConfig(classes=3, input_size=67),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_strongest_activations_and_their_places_are_those_of_the_formulas(config: AlexNetConfig) -> None:
    net = AlexNet(config).eval()
    initialise(net, "fan-in", seed=4)
    x_BCHW = torch.randn(3, 3, config.input_size, config.input_size, generator=torch.Generator().manual_seed(5)) * 60
    with torch.inference_mode():
        stages, found = excite(net, x_BCHW)
        assert torch.equal(stages["fc7"], net.features(x_BCHW))
        expected = activations(net, x_BCHW)
    shapes, start, map_start = layer_shapes(config), 0, 0
    assert list(shapes) == list(LAYERS)
    for layer, shape in shapes.items():
        count = shape.columns * shape.units
        values_BU = found.values_BU[:, start : start + count]
        start += count
        if shape.side:
            maps = expected[layer]
            assert maps.shape[1:] == (count, shape.side, shape.side)
            torch.testing.assert_close(values_BU, maps.amax((2, 3)), rtol=1e-4, atol=1e-5)
            at_BU = found.positions_BM[:, map_start : map_start + count]
            map_start += count
            there = maps.flatten(2).gather(2, at_BU[:, :, None])[:, :, 0]
            torch.testing.assert_close(there, values_BU, rtol=1e-4, atol=1e-5)
        else:
            torch.testing.assert_close(values_BU, expected[layer], rtol=1e-4, atol=1e-5)
    assert found.values_BU.shape == (3, start)
    assert found.positions_BM.shape == (3, map_start)


def test_of_equal_activations_the_first_place_counts_and_no_hook_stays(small_network: AlexNet) -> None:
    with torch.inference_mode():
        _, found = excite(small_network, torch.zeros(1, 3, 224, 224))
    assert (found.positions_BM[:, : 2 * 4] == 0).all()  # conv1 of a grey photograph is the same everywhere
    assert not any(layer._forward_hooks for layer in small_network.layers())
