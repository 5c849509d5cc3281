"""The four-layer network: its shapes, its starts, and where its LRN stands."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from training.network.cifar import CifarConfig, CifarNet


@pytest.mark.parametrize(("size", "pooled"), [(32, 8), (24, 6)])
def test_shapes_are_those_of_the_layers_file(size: int, pooled: int) -> None:
    net = CifarNet(CifarConfig(input_size=size))
    assert [tuple(layer.weight.shape) for layer in net.layers()] == [
        (64, 3, 5, 5), (64, 64, 5, 5), (32, 64, 3, 3), (32, 32, 3, 3), (10, 32 * pooled**2),
    ]  # fmt: skip
    assert net(torch.zeros(2, 3, size, size)).shape == (2, 10)


def test_starts_have_their_standard_deviations() -> None:
    net = CifarNet(CifarConfig())
    for start, expected in (
        ("paper", (1e-4, 0.01, 0.04, 0.04, 0.01)),
        ("fan-in", tuple(1 / math.sqrt(n) for n in (75, 1600, 576, 288, 2048))),
    ):
        net.initialise(start, 0)  # type: ignore[arg-type]
        for layer, std in zip(net.layers(), expected, strict=True):
            assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
            assert layer.bias is not None
            assert not layer.bias.any()


@pytest.mark.parametrize("nonlinearity", ["relu", "tanh", "abs-tanh"])
@pytest.mark.parametrize("lrn", [False, True])
def test_it_computes_what_its_layers_say(nonlinearity: str, lrn: bool) -> None:
    config = CifarConfig.model_validate({"input_size": 12, "nonlinearity": nonlinearity, "lrn": lrn, "pixel_scale": 0.5})
    net = CifarNet(config)
    net.initialise("fan-in", 0)
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    acts: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": F.relu,
        "tanh": torch.tanh,
        "abs-tanh": lambda h: torch.tanh(h).abs(),
    }
    act = acts[nonlinearity]
    h = 0.5 * x
    for layer in (net.conv1, net.conv2):
        h = act(layer(h))
        if lrn:
            h = F.local_response_norm(h, 5, alpha=0.001, beta=0.75, k=1.0)  # which divides alpha by the size
        h = F.max_pool2d(h, 3, 2, ceil_mode=True)
    expected = net.fc(act(net.conv4(act(net.conv3(h)))).flatten(1))
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
