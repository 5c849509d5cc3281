"""One run: it learns, it goes on where it stopped, and arms share what a seed draws."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.claims.conftest import write_packed
from training.claims import measuring, pixels, trainer
from training.claims.arm import Arm, RunResult, RunSpec
from training.claims.networks import CALTECH, CIFAR, EXTREME, NO_LRN, changed
from training.claims.pixels import Pixels
from training.images.preprocess import TEN_VIEWS
from training.network.alexnet import AlexNet
from training.network.cifar import CifarConfig, CifarNet

Parts = tuple[Pixels, Pixels]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Photographs that colour tells apart."""
    path = tmp_path_factory.mktemp("packed") / "cifar.safetensors"
    write_packed(path, 32, 60, 20)
    return pixels.load(path)


def spec(arm: Arm, epochs: int = 3, *, pilot: bool = False, images: int = 60, rate: float = 0.01) -> RunSpec:
    return RunSpec(arm=arm, rate=rate, seed=0, epochs=epochs, images=images, tests=1000, pilot=pilot)


def made(
    parts: Parts, run: RunSpec, state: Path, stopping: Callable[[], bool] = lambda: False
) -> tuple[RunResult, measuring.Net]:
    return trainer.run(run, parts, state, stopping, ("a machine", "a commit"))


def test_a_run_learns_colours(parts: Parts, tmp_path: Path) -> None:
    result, _ = made(parts, spec(CIFAR, epochs=12), tmp_path / "state")
    assert result.curve[-1].error < 0.1 < result.curve[0].error
    assert result.curve[-1].clean_loss < result.curve[0].clean_loss
    assert (result.error, result.test.photographs, result.train.photographs) == (0.0, 20, 60)


def test_a_run_that_was_stopped_ends_with_the_same_figures_and_weights(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, net = made(parts, spec(CIFAR), tmp_path / "one")
    monkeypatch.setattr(trainer, "_SAVE_S", 0.0)
    steps = iter([False, True])
    with pytest.raises(measuring.Stopped):
        made(parts, spec(CIFAR), tmp_path / "two", lambda: next(steps))
    assert (tmp_path / "two").is_file()
    rest, again = made(parts, spec(CIFAR), tmp_path / "two")
    assert rest.curve == whole.curve
    assert (rest.test, rest.train) == (whole.test, whole.train)
    for name, weights in net.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])


@pytest.mark.parametrize("wrong", [b"", b"junk", None])
def test_a_run_whose_state_is_damaged_begins_anew(
    parts: Parts, tmp_path: Path, wrong: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, _ = made(parts, spec(CIFAR), tmp_path / "state")
    if wrong is None:  # another network's
        made(parts, spec(NO_LRN["CIFAR net"].model_copy(update={"net": {"pool_size": 1, "pool_stride": 1}})), tmp_path / "state")
    else:
        (tmp_path / "state").write_bytes(wrong)
    again, _ = made(parts, spec(CIFAR), tmp_path / "state")
    assert again.curve == whole.curve
    assert f"{tmp_path / 'state'} is not the state of its run" in capsys.readouterr().err


def test_a_pilot_never_sees_the_test_part_and_is_measured_on_what_it_is_not_trained_on(parts: Parts, tmp_path: Path) -> None:
    train, test = parts
    nothing = Pixels(test.squares_NCSS[:0], test.labels_N[:0])
    result, _ = made((train, nothing), spec(CIFAR, pilot=True), tmp_path / "state")
    assert (result.test.photographs, result.train.photographs) == (12, 48)


def test_a_run_that_waits_for_an_error_ends_there_at_a_constant_rate(parts: Parts, tmp_path: Path) -> None:
    waiting = spec(CIFAR.model_copy(update={"until_error": 0.25}), epochs=40)
    assert waiting.rate_in(1) == waiting.rate_in(39) == waiting.rate
    assert spec(CIFAR, epochs=4).rate_in(3) == pytest.approx(0.005)
    result, _ = made(parts, waiting, tmp_path / "state")
    assert all(epoch.error >= 0.25 for epoch in result.curve[:-1])
    assert result.curve[-1].error < 0.25


def test_a_network_that_diverges_counts_as_guessing(parts: Parts, tmp_path: Path) -> None:
    result, _ = made(parts, spec(CIFAR.model_copy(update={"start": "paper"}), epochs=40, rate=1e6), tmp_path / "state")
    assert len(result.curve) < 40
    assert result.test.centre >= 12


def test_arms_begin_with_the_same_weights_where_their_shapes_are_the_same() -> None:
    def start(arm: Arm) -> dict[str, torch.Tensor]:
        return trainer._new(spec(arm), 3, torch.device("cpu")).net.state_dict()

    for base, other in ((CIFAR, NO_LRN["CIFAR net"]), (CALTECH, NO_LRN["AlexNet-67"]), (CALTECH, changed(CALTECH, **EXTREME))):
        assert all(torch.equal(weights, start(other)[name]) for name, weights in start(base).items())


def test_the_extreme_case_divides_by_the_length_over_all_maps() -> None:
    net = CifarNet(CifarConfig.model_validate({"lrn": True, "pool_size": 1, "pool_stride": 1, "input_size": 8, **EXTREME}))
    h = torch.rand(1, 64, 8, 8) + 0.1
    torch.testing.assert_close(net._lower(h), h / h.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_ten_views_are_counted_beside_the_centre(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a network that names the class by the first pixel of its view."""
    _, test = parts
    net = CifarNet(CifarConfig(classes=3, input_size=24))
    net.initialise("fan-in", 0)
    mean_CSS = test.mean_CSS()
    found = measuring.errors(net, test, mean_CSS, lambda: False, ten=True, float32=False)
    with torch.no_grad(), measuring.half(torch.device("cpu"), float32=False):
        views = [net(x).float().softmax(1) for x in pixels.fixed_views(test.squares_NCSS, mean_CSS, 24, ten=True)]
        centre = net(test.squares_NCSS[:, :, 4:28, 4:28] - mean_CSS[:, 4:28, 4:28]).float().softmax(1)
    assert len(views) == len(TEN_VIEWS)
    one_B, ten_B = centre.argmax(1) != test.labels_N, torch.stack(views).mean(0).argmax(1) != test.labels_N
    assert (found.centre, found.ten) == (int(one_B.sum()), int(ten_B.sum()))
    assert (found.only_centre, found.only_ten) == (int((one_B & ~ten_B).sum()), int((ten_B & ~one_B).sum()))


@pytest.mark.parametrize("float32", [False, True])
def test_an_arm_in_float32_trains_and_is_measured_so(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, float32: bool
) -> None:
    monkeypatch.setattr(measuring, "in_bfloat16", lambda *_: True)
    seen: set[tuple[bool, torch.dtype]] = set()
    hook = torch.nn.modules.module.register_module_forward_hook(lambda layer, _, out: seen.add((layer.training, out.dtype)))
    try:
        made(parts, spec(CIFAR.model_copy(update={"float32": float32}), epochs=1), tmp_path / "state")
    finally:
        hook.remove()
    assert {training for training, dtype in seen if dtype is torch.bfloat16} == (set() if float32 else {True, False})


def test_operations_are_two_for_each_weight_and_position() -> None:
    net = CifarNet(CifarConfig())
    by_hand = 32**2 * 64 * 75 + 16**2 * 64 * 1600 + 8**2 * 32 * 576 + 8**2 * 32 * 288 + 10 * 2048
    assert measuring.operations(net) == 2 * by_hand


def test_alexnet_67_is_the_network_of_preset_figure3(parts: Parts) -> None:
    net = AlexNet(CALTECH.alexnet(101))
    assert (net.config.hidden, net.config.input_size, net.config.square_size, net.config.columns) == (512, 67, 128, 2)
    assert net.config.lrn_after == (1, 2)
