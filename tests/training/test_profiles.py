"""The four profiles against published sizes and against networks written out with PyTorch's own layers; knobs; the table."""

import pytest
import torch
from torch import nn
from torchvision.models import alexnet

from tests.conftest import SMALL_MAPS, SmallConfig
from training import profiles
from training.network.alexnet import PROFILES, AlexNet, AlexNetConfig
from training.network.initialisation import initialise


@pytest.mark.parametrize(
    ("profile", "parameters"), [("paper", 60_965_224), ("source", 60_965_224), ("caffe", 60_965_224), ("owt", 61_100_840)]
)
def test_a_profile_has_its_published_number_of_parameters_and_4096_features(profile: str, parameters: int) -> None:
    config = PROFILES[profile]  # type: ignore[index]
    with torch.device("meta"):
        net = AlexNet(config)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert (config.profile, config.fc7_width, config.sizes()[-1]) == (profile, 4096, 6)


def test_owt_is_torchvisions_network() -> None:
    theirs = alexnet(num_classes=7).eval()
    net = AlexNet(PROFILES["owt"].model_copy(update={"classes": 7})).eval()
    with torch.no_grad():
        for ours, (_, parameter) in zip(net.parameters(), theirs.named_parameters(), strict=True):
            ours.copy_(parameter)
        x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(net(x / net.scale_C[:, None, None]), theirs(x), rtol=1e-5, atol=1e-5)


def pytorch_layers(config: AlexNetConfig, norm: nn.Module, conv1: list[nn.Module]) -> nn.Sequential:
    """BVLC's order of layers, from PyTorch's own; weights in the order of ours."""
    c1, c2, c3, c4, c5 = (2 * maps for maps in config.maps)
    return nn.Sequential(
        *conv1, nn.Conv2d(c1, c2, 5, padding=2, groups=2), nn.ReLU(), norm, nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(), nn.Conv2d(c3, c4, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(c4, c5, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Flatten(),
        nn.Linear(c5 * 36, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, config.classes),
    )  # fmt: skip


@pytest.mark.parametrize("size", [224, 227])  # 227 is Caffe's; the ONNX zoo's file takes 224 and pools with ceil
def test_caffe_normalises_over_all_maps_and_floors_conv1(size: int) -> None:
    update = {"classes": 3, "maps": SMALL_MAPS, "hidden": 16, "input_size": size}
    config = PROFILES["caffe"].model_copy(update=update)
    net = AlexNet(config).eval()
    initialise(net, "fan-in", seed=0)
    norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
    theirs = pytorch_layers(config, norm, [nn.Conv2d(3, 8, 11, 4), nn.ReLU(), norm, nn.MaxPool2d(3, 2, ceil_mode=True)])
    compare(net, theirs, size)


def test_source_rectifies_after_pooling_and_normalises_within_maps() -> None:
    class WithinMap(nn.Module):
        def forward(self, a: torch.Tensor) -> torch.Tensor:
            window = nn.functional.unfold(a**2, 5, padding=2).view(*a.shape[:2], 25, *a.shape[2:]).sum(2)
            return a / (1 + 0.001 / 25 * window) ** 0.75

    class PerColumn(nn.Module):
        def forward(self, a: torch.Tensor) -> torch.Tensor:
            norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)
            return torch.cat([norm(part) for part in a.chunk(2, 1)], 1)

    config = PROFILES["source"].model_copy(update={"classes": 3, "maps": SMALL_MAPS, "hidden": 16})
    net = AlexNet(config).eval()
    initialise(net, "fan-in", seed=0)
    conv1 = [nn.ZeroPad2d((0, 3, 0, 3)), nn.Conv2d(3, 8, 11, 4), PerColumn(), nn.MaxPool2d(3, 2), nn.ReLU()]
    compare(net, pytorch_layers(config, nn.Sequential(PerColumn(), WithinMap()), conv1), 224)


def compare(net: AlexNet, theirs: nn.Sequential, size: int) -> None:
    x = 50 * torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for ours, parameter in zip(net.parameters(), theirs.parameters(), strict=True):
            parameter.copy_(ours)
        torch.testing.assert_close(net(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("nonlinearity", "function"),
    [("relu", torch.relu), ("tanh", torch.tanh), ("abs-tanh", lambda x: torch.tanh(x).abs()), ("sigmoid", torch.sigmoid)],
)
def test_the_nonlinearity_follows_every_layer_but_the_last(nonlinearity: str, function: object) -> None:
    net = AlexNet(SmallConfig(classes=3, nonlinearity=nonlinearity, lrn_after=())).eval()
    initialise(net, "fan-in", seed=0)
    x = 50 * torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    assert callable(function)
    pool = nn.MaxPool2d(3, 2)
    h = nn.functional.pad(x / 64, (0, 3, 0, 3))
    h = pool(function(net.conv2(pool(function(net.conv1(h))))))
    h = pool(function(net.conv5(function(net.conv4(function(net.conv3(h))))))).flatten(1)
    torch.testing.assert_close(net(x), net.fc8(function(net.fc7(function(net.fc6(h))))))


def test_columns_that_never_talk_only_meet_at_the_logits() -> None:
    net = AlexNet(SmallConfig(classes=3, exchange=False)).eval()
    initialise(net, "fan-in", seed=0)
    x = 50 * torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    before = net.features(x).detach()
    with torch.no_grad():
        net.conv1.weight[4:] += 0.1
    after = net.features(x).detach()
    torch.testing.assert_close(after[:, :16], before[:, :16], rtol=0, atol=0)
    assert not torch.equal(after[:, 16:], before[:, 16:])


def test_pooling_without_overlap_counts_positions_by_rounding_up_as_in_2012() -> None:
    net = AlexNet(SmallConfig(classes=3, pool_size=2, pool_stride=2))
    assert net.upper(net.lower(torch.zeros(1, 3, 224, 224))).shape == (1, 2 * 6 * 7 * 7)


def test_pooling_that_leaves_out_cut_windows_is_pytorchs_default() -> None:
    net = AlexNet(SmallConfig(classes=3, conv1_ceil=False, pool_floor=(1, 2), lrn_after=())).eval()
    initialise(net, "fan-in", seed=0)
    x = 50 * torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    assert net.features(x).shape == (2, 32)
    h = nn.functional.max_pool2d(torch.relu(net.conv1(x / 64)), 3, 2)
    torch.testing.assert_close(net.lower(x), nn.functional.max_pool2d(torch.relu(net.conv2(h)), 3, 2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lrn_size": 4}, "lrn_size must be odd, got 4"),
        ({"pool_floor": (3,)}, "pool_floor must name layers of 1, 2 and 5"),
        ({"lrn_after": (0, 2)}, "lrn_after must name layers from 1 to 5"),
        ({"pool_size": 2, "pool_stride": 3}, "pool_size must be at least pool_stride=3, got 2"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_by_name(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AlexNetConfig.model_validate(wrong)


def test_the_table_gives_every_difference_a_row_and_a_source() -> None:
    dumps = [config.model_dump(exclude={"profile"}) for config in PROFILES.values()]
    differing = [name for name in dumps[0] if any(dump[name] != dumps[0][name] for dump in dumps)]
    rows = {row[0]: row[1:] for row in profiles.profile_rows()}
    assert set(profiles.SOURCES) == set(differing)
    for name in differing:
        assert rows[name][-1] == profiles.SOURCES[name] != ""
    assert rows[""][:4] == ["paper", "source", "caffe", "owt"]
    assert rows["lrn_alpha"][:4] == ["0.0001", "2e-05", "2e-05", "-"]
    assert rows["parameters"][:4] == ["60,965,224", "60,965,224", "60,965,224", "61,100,840"]
    assert rows["FC7 width"][:4] == ["4096"] * 4
    assert rows["pixels fed"][2] == "227 x 227"
    # torchvision's own figures, and BVLC's accuracy of 57.1 / 80.2
    assert rows["error top-1 / top-5, %"][2:4] == ["42.9 / 19.8, centre", "43.48 / 20.93, centre"]


@pytest.mark.parametrize(
    "knob",
    [
        *({"nonlinearity": "tanh"}, {"lrn_after": ()}, {"lrn_after": (1,)}, {"pool_size": 2, "pool_stride": 2}),
        *({"columns": 1}, {"exchange": False}, {"dropout": 0.0}),
    ],
)
def test_a_knob_of_the_table_is_a_field_that_turns(knob: dict[str, object]) -> None:
    assert set(knob) <= set(profiles.KNOBS)
    assert AlexNetConfig.model_validate(knob) != AlexNetConfig()


def test_networks_of_the_run_log_are_expressed_as_fields() -> None:
    half, apart = profiles.RUNS["145-half"], profiles.RUNS["150"]
    assert (half.fc7_width, apart.fc7_width) == (4096, 8192)
    # the paper's and one of a single column have nearly as many parameters (section 3.2, footnote 2)
    [_, row, _] = profiles.run_rows()
    assert row[:3] == ["145-half", "columns=1 maps=(48,128,192,192,256) hidden=4096", "59,798,312"]
    c = [3, 48, 128, 192, 192, 256]
    kernels = sum(after * (before * k * k + 1) for before, after, k in zip(c[:-1], c[1:], (11, 5, 3, 3, 3), strict=True))
    assert kernels + 4096 * (256 * 36 + 1) + 4096 * 4097 + 1000 * 4097 == 59_798_312


def test_the_command_prints_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    profiles.main(profiles.ProfilesSettings())
    printed = capsys.readouterr().out
    for name in (*profiles.SOURCES, *profiles.KNOBS, *profiles.RUNS):
        assert f"\n{name} " in printed
