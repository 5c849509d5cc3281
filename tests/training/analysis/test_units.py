"""Receptive fields: what lies outside one changes nothing, and every corner of it changes the unit."""

import pytest
import torch

from tests.conftest import SmallConfig
from tests.training.network.brute import activations
from training.analysis.units import field
from training.network.alexnet import PROFILES, AlexNet, AlexNetConfig, Layer
from training.network.units import layer_shapes

CONFIGS = {
    "paper": SmallConfig(classes=2),
    "owt": SmallConfig(classes=2, columns=1, conv1_pad=2, conv1_ceil=False, lrn_after=()),
    "source": SmallConfig(classes=2, conv1_nonlinearity_last=True, map_norm_alpha=1e-2),
    "small squares": SmallConfig(classes=2, input_size=67, square_size=128),
}


def positive(config: AlexNetConfig) -> AlexNet:
    """A network in which whatever a unit hears reaches it: all weights are above 0, and nothing is rectified."""
    net = AlexNet(config).double().eval()
    for name, tensor in net.state_dict().items():
        tensor.copy_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1 + 0.01)
    return net.requires_grad_(False)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "conv4", "conv5"])
def test_a_unit_sees_its_field_to_the_corners_and_nothing_else(config: AlexNetConfig, layer: Layer) -> None:
    net, side = positive(config), layer_shapes(config)[layer].side
    start = (config.square_size - config.input_size) // 2
    rng = torch.Generator().manual_seed(2)
    ramp = torch.linspace(0, 1, config.input_size, dtype=torch.float64)
    for place in {0, side - 1, side * (side - 1), side**2 - 1, side**2 // 2, side + 1, 2 * side // 3}:
        left, top, right, bottom = (edge - start for edge in field(config, layer, place))
        assert 0 <= left < right <= config.input_size
        assert 0 <= top < bottom <= config.input_size
        pictures = []
        for y, down in ((top, ramp.flip(0)), (bottom - 1, ramp)):
            for x, across in ((left, ramp.flip(0)), (right - 1, ramp)):
                before = (down[:, None] + across[None, :]).expand(3, -1, -1)  # brightest there, so that pooling chooses it
                outside = before + torch.rand(before.shape, generator=rng, dtype=torch.float64)
                outside[:, top:bottom, left:right] = before[:, top:bottom, left:right]
                pictures += [before, outside]
                for change in (1, 1000):
                    pictures.append(before.clone())
                    pictures[-1][:, y, x] += change
        maps = activations(net, torch.stack(pictures))[layer].flatten(2)[:, :, place].unflatten(0, (4, 4))
        torch.testing.assert_close(maps[:, 1], maps[:, 0], rtol=1e-12, atol=0)
        assert ((maps[:, 2:] - maps[:, :1]).abs() > 1e-9 * maps[:, :1]).flatten(1).any(1).all()


@pytest.mark.parametrize(("layer", "size"), [("conv1", 11), ("conv2", 51), ("conv3", 99), ("conv4", 131), ("conv5", 163)])
def test_the_fields_of_the_paper_are_as_large_as_known(layer: Layer, size: int) -> None:
    side = layer_shapes(PROFILES["paper"])[layer].side
    left, top, right, bottom = field(PROFILES["paper"], layer, side // 2 * (side + 1))
    assert (right - left, bottom - top) == (size, size)


@pytest.mark.parametrize("layer", ["fc6", "fc7", "fc8"])
def test_a_unit_of_a_fully_connected_layer_sees_the_whole_view(layer: Layer) -> None:
    assert field(PROFILES["paper"], layer, 0) == (16, 16, 240, 240)
