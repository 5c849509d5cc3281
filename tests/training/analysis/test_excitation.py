"""A kernel's strongest activation is found where the pattern that it looks for lies."""

import numpy as np
import pytest
import torch

from tests.conftest import SmallConfig
from tests.training.analysis.made import bars
from training.analysis import excitation
from training.network.alexnet import AlexNet


@pytest.mark.parametrize("square", [256, 128])
def test_the_place_is_that_of_the_pattern_and_the_activation_its_product(square: int) -> None:
    net = AlexNet(SmallConfig(classes=3, input_size=67, square_size=square))
    kernel = bars(0.15, 30, (1.0, -0.4, 0.2))
    with torch.no_grad():
        net.conv1.weight[5] = torch.from_numpy(kernel)
        assert net.conv1.bias is not None
        net.conv1.bias[5] = 0.25
    side = 256 // square
    pixels, mean = np.full((2, 3, 256, 256), 100, np.uint8), np.full((3, 256, 256), 90, np.float32)
    pattern = np.round(40 * kernel).astype(int).repeat(side, 1).repeat(side, 2)
    for photograph, (top, left) in enumerate(((40, 84), (116, 0))):
        window = (slice(None), slice(side * top, side * (top + 11)), slice(side * left, side * (left + 11)))
        pixels[photograph][window] = 100 + pattern
    values, places = excitation.strongest(net, torch.from_numpy(mean), torch.from_numpy(pixels), 5)
    assert places.tolist() == [[40, 84], [116, 0]]
    expected = ((np.round(40 * kernel) + 10) / 64 * kernel).sum() + 0.25
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-5)
