"""The network: its size, its two columns against two networks written out by hand, its ceil, a golden feature."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.conftest import SmallConfig
from training.network.alexnet import AlexNet, AlexNetConfig
from training.network.initialisation import initialise


def test_has_the_papers_number_of_parameters() -> None:
    with torch.device("meta"):
        net = AlexNet(AlexNetConfig())
    assert sum(parameter.numel() for parameter in net.parameters()) == 60_965_224


def test_224_pixels_give_55_positions_as_ceil_counts_them() -> None:
    net = AlexNet(SmallConfig())
    seen: list[tuple[int, ...]] = []
    net.conv1.register_forward_hook(lambda _module, _inputs, out: seen.append(tuple(out.shape)))
    net(torch.zeros(1, 3, 224, 224))
    assert seen == [(1, 8, 55, 55)]


def column_lrn(a: Tensor) -> Tensor:
    squares = F.pad(a**2, (0, 0, 0, 0, 2, 2))
    window = sum(squares[:, i : i + a.shape[1]] for i in range(5))
    return a / (2 + 1e-4 * window) ** 0.75


def two_columns(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The paper's figure 2 by hand: each column holds its own tensors and hears the other at conv3, fc6, fc7, fc8 only."""

    def part(name: str, column: int) -> tuple[Tensor, Tensor]:
        return weights[f"{name}.weight"].chunk(2)[column], weights[f"{name}.bias"].chunk(2)[column]

    padded = F.pad(x, (0, 3, 0, 3))
    columns = []
    for c in (0, 1):
        h = F.max_pool2d(column_lrn(F.relu(F.conv2d(padded, *part("conv1", c), stride=4))), 3, 2)
        columns.append(F.max_pool2d(column_lrn(F.relu(F.conv2d(h, *part("conv2", c), padding=2))), 3, 2))
    columns = [F.relu(F.conv2d(torch.cat(columns, 1), *part("conv3", c), padding=1)) for c in (0, 1)]
    for c in (0, 1):
        h = F.relu(F.conv2d(columns[c], *part("conv4", c), padding=1))
        columns[c] = F.max_pool2d(F.relu(F.conv2d(h, *part("conv5", c), padding=1)), 3, 2).flatten(1)
    for name in ("fc6", "fc7"):
        columns = [F.relu(F.linear(torch.cat(columns, 1), *part(name, c))) for c in (0, 1)]
    return F.linear(torch.cat(columns, 1), weights["fc8.weight"], weights["fc8.bias"])


def test_grouped_network_equals_two_separate_columns_outputs_and_gradients(small_network: AlexNet) -> None:
    x = 50 * torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    by_hand = {name: p.detach().clone().requires_grad_() for name, p in small_network.named_parameters()}
    expected, actual = two_columns(by_hand, x / 64), small_network(x)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    target = torch.tensor([0, 2, 1])
    F.cross_entropy(expected, target).backward()
    F.cross_entropy(actual, target).backward()
    for name, parameter in small_network.named_parameters():
        torch.testing.assert_close(parameter.grad, by_hand[name].grad, rtol=1e-5, atol=1e-5)


def test_fc7_is_rectified_and_without_dropout_in_evaluation(small_network: AlexNet) -> None:
    x = 50 * torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    features = small_network.features(x)
    assert features.shape == (2, 32)
    assert features.min() >= 0
    torch.testing.assert_close(features, small_network.features(x), rtol=0, atol=0)
    torch.testing.assert_close(small_network(x), small_network.fc8(features))


def test_paper_weights_are_small_and_biased_as_in_section_5() -> None:
    net = AlexNet(SmallConfig())
    initialise(net, "paper", seed=0)
    for layer, bias in zip(net.layers(), (0, 1, 0, 1, 1, 1, 1, 0), strict=True):
        assert layer.bias is not None
        assert layer.bias.unique().tolist() == [bias]
    torch.testing.assert_close(net.fc8.weight.std().item(), 0.01, rtol=0.02, atol=0)


def test_conv1_starts_with_the_deviation_given_and_the_other_layers_as_without_it() -> None:
    net, usual = AlexNet(SmallConfig()), AlexNet(SmallConfig())
    initialise(net, "fan-in", seed=2, conv1_std=0.0015)
    initialise(usual, "fan-in", seed=2)
    torch.testing.assert_close(net.conv1.weight.std().item(), 0.0015, rtol=0.05, atol=0)
    assert usual.conv1.weight.std() > 0.07  # sqrt(2 / 363)
    for name, weights in net.state_dict().items():
        assert name == "conv1.weight" or torch.equal(weights, usual.state_dict()[name])


def test_golden_fc7_of_the_full_network() -> None:
    net = AlexNet(AlexNetConfig(classes=10, pixel_scale=(1 / 64,) * 3))
    initialise(net, "fan-in", seed=0)
    ramp = torch.linspace(-120, 120, 224)
    x = torch.stack([ramp.expand(224, 224), ramp[:, None].expand(224, 224), -ramp.expand(224, 224)])[None]
    with torch.no_grad():
        features = net.eval().features(x)[0]
    assert features.shape == (4096,)
    torch.testing.assert_close(features[GOLDEN_POSITIONS], torch.tensor(GOLDEN), rtol=1e-3, atol=1e-4)


GOLDEN_POSITIONS = [0, 1, 6, 2047, 2051, 2052, 2054, 4095]
GOLDEN = [0.099874, 1.166029, 0.881963, 0.016627, 0.45208, 0.889672, 1.040824, 0.101875]
