"""Presets, schedules and colour noise against the paper and the 2012 code's log, worked by hand."""

import numpy as np
import pytest
import torch

from training.errors import BadSettings, BadValue
from training.network.alexnet import PROFILES
from training.program import parse
from training.run.colour import colour_noise
from training.run.recipe import TrainSettings
from training.run.schedule import plateaus, rates


def test_the_defaults_are_the_papers() -> None:
    settings = parse(TrainSettings, [])
    assert settings.network(1000) == PROFILES["paper"]
    assert (settings.batch_size, settings.lr, settings.momentum, settings.weight_decay) == (128, 0.01, 0.9, 5e-4)
    assert (settings.epochs, settings.init, settings.schedule, settings.max_gradient) == (90, "paper", "plateau", 0)


def test_a_preset_fills_in_what_is_not_given() -> None:
    settings = parse(TrainSettings, ["--preset", "source", "--epochs", "7", "--profile", "paper"])
    assert (settings.epochs, settings.profile, settings.bias_lr, settings.schedule) == (7, "paper", 0.02, "source")


def test_figure3_is_a_small_network_on_small_squares_and_conv1_has_its_own_recipe() -> None:
    settings = parse(TrainSettings, ["--preset", "figure3"])
    assert settings.network(100) == PROFILES["paper"].with_fields(
        classes=100, square_size=128, input_size=67, hidden=512, pixel_scale=(1 / 64,) * 3
    )
    assert (settings.conv1_std, settings.conv1_lr, settings.conv1_decay) == (0.0015, 4 * settings.lr, 4 * settings.weight_decay)
    assert parse(TrainSettings, ["--preset", "figure3", "--start", "m"]).conv1_std is None  # a model has its weights


@pytest.mark.parametrize(("preset", "lr", "conv1_lr"), [("quick", "0.003", 0.012), ("figure3", "0.02", 0.08)])
def test_a_presets_rate_of_conv1_keeps_its_proportion_to_a_rate_that_is_given(preset: str, lr: str, conv1_lr: float) -> None:
    assert parse(TrainSettings, ["--preset", preset, "--lr", lr]).conv1_lr == pytest.approx(conv1_lr)
    assert parse(TrainSettings, ["--preset", preset, "--lr", lr, "--conv1-lr", "0.5"]).conv1_lr == 0.5
    assert parse(TrainSettings, ["--lr", lr]).conv1_lr is None


@pytest.mark.parametrize("lr", ["fast", "-1", "nan", "inf"])
def test_a_rate_that_is_none_is_named_alone_beside_a_preset(lr: str) -> None:
    with pytest.raises(BadValue, match=r"^lr must be"):
        parse(TrainSettings, ["--preset", "quick", "--lr", lr])


def test_patch_pretraining_is_the_same_recipe_for_a_small_network_all_layers_of_which_learn() -> None:
    settings = parse(TrainSettings, ["--preset", "quick", "--frozen", "conv1"])
    own = {"square_size": 128, "input_size": 67, "hidden": 256}
    patches = settings.of_patches()
    assert patches.network(14) == PROFILES["paper"].with_fields(classes=14, pixel_scale=(1 / 64,) * 3, **own)
    assert patches.recorded() == settings.recorded() | own | {"epochs": settings.patch_epochs, "patch_epochs": 0, "frozen": []}
    started = parse(TrainSettings, ["--preset", "quick", "--start", "m"])
    assert (started.patch_epochs, started.conv1_lr, started.conv1_whitening) == (0, None, 0)


def test_conv1_learns_some_times_as_fast_as_the_schedule_has_it() -> None:
    groups = rates("source", 0.01, 68, 93, 5, [], chance=0.9).of_groups(bias_lr=None, conv1_times=4)
    assert groups == pytest.approx({"weights": 1e-4, "biases": 1e-4, "conv1.weights": 4e-5, "conv1.biases": 1e-5})


def test_knobs_change_the_profile() -> None:
    arguments = [
        "--nonlinearity",
        "tanh",
        "--lrn-after",
        "[]",
        "--pool-size",
        "2",
        "--columns",
        "1",
        "--no-exchange",
        "--dropout",
        "0",
        "--hidden",
        "9",
    ]
    config = parse(TrainSettings, arguments).network(10)
    assert (config.nonlinearity, config.lrn_after, config.pool_size, config.dropout) == ("tanh", (), 2, 0)
    assert (config.columns, config.exchange, config.maps, config.fc7_width) == (1, False, (48, 128, 192, 192, 256), 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "fast"], "preset must be 'paper', 'source', 'quick' or 'figure3', got 'fast'"),
        (["--validation", "0"], "schedule=plateau needs a validation share above 0"),
        (["--start", "m", "--pool-size", "2"], "pool_size comes with the model of start=m, so it cannot be 2"),
        (["--pool-size", "1"], "pool_size must be at least pool_stride=2, got 1"),
        (["--square-size", "128"], "input_size must be at most square_size=128, got 224"),
        (["--square-size", "200"], "square_size must be a multiple of 128, got '200'"),
        (["--start", "m", "--conv1-std", "0.01"], "conv1_std comes with the model of start=m, so it cannot be 0.01"),
        (["--start", "m", "--preset", "figure3", "--hidden", "9"], "hidden comes with the model of start=m, so it cannot be 9"),
        (["--start", "m", "--patch-epochs", "3"], "patch_epochs must be 0 with start=m, got 3"),
        (
            ["--patch-epochs", "3", "--pool-stride", "3", "--validation", "0.1", "--pool-size", "16"],
            "input_size must leave a pixel",
        ),
        (["--start", "m", "--profile", "owt"], "profile comes with the model of start=m, so it cannot be 'owt'"),
    ],
)
def test_a_wrong_setting_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises((BadValue, BadSettings), match=message):
        parse(TrainSettings, arguments)


@pytest.mark.parametrize(
    ("epoch", "lr", "conv1", "colour"),
    [(1, 0.01, 0.01, True), (22, 0.01, 0.01, True), (23, 0.001, 0.001, True), (51, 1e-4, 1e-4, True), (67, 1e-4, 1e-4, True),
     (68, 1e-4, 1e-5, False), (72, 1e-4, 0, False), (78, 1e-5, 0, False), (93, 1e-5, 0, False)],
)  # fmt: skip
def test_source_follows_the_log_of_2012(epoch: int, lr: float, conv1: float, colour: bool) -> None:
    now = rates("source", 0.01, epoch, 93, 5, [], chance=0.9)
    assert [now.lr, now.conv1_lr] == pytest.approx([lr, conv1])
    assert now.colour == colour
    groups = now.of_groups(bias_lr=0.02)
    assert groups == {"weights": now.lr, "biases": 0.02, "conv1.weights": now.conv1_lr, "conv1.biases": 0.02 if conv1 else 0}


def test_a_plateau_is_patience_epochs_without_a_new_best() -> None:
    errors = [0.9, 0.8, 0.8, 0.81, 0.7, 0.75, 0.7, 0.6, 0.6, 0.6, 0.6]
    assert [plateaus(errors[:n], patience=2, chance=0.95) for n in range(len(errors) + 1)] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("errors", "counts"),
    [
        ([0.9] * 8, [0] * 9),  # chance, for ever
        ([0.95, 0.9, 0.92, 0.91, 0.93], [0] * 6),  # better than at first, and still no better than one class
        (
            [0.9, 0.9, 0.9, 0.89, 0.9, 0.9, 0.9, 0.9],
            [0, 0, 0, 0, 0, 0, 1, 1, 2],
        ),  # counted from the first below it
        ([0.95, 0.8, 0.95, 0.95], [0, 0, 0, 0, 1]),  # and worse than chance again
    ],
)
def test_no_epoch_is_stale_before_the_error_is_below_that_of_naming_one_class(errors: list[float], counts: list[int]) -> None:
    assert [plateaus(errors[:n], patience=2, chance=0.9) for n in range(len(errors) + 1)] == counts


@pytest.mark.parametrize(
    ("arguments", "steps", "warned"),
    [
        ([], 9, "makes 810 steps (90 epochs of 9), and init=paper needs 10000 or more"),
        ([], 111, "makes 9990 steps"),
        ([], 112, None),
        (["--preset", "source"], 9, "makes 837 steps (93 epochs of 9), and init=source needs"),
        (["--preset", "source", "--init", "fan-in"], 9, None),
        (["--preset", "quick"], 9, None),
        (["--preset", "figure3"], 9, None),
        (["--start", "m"], 9, None),
    ],
)
def test_too_few_steps_for_the_papers_weights_name_the_preset_that_would_do(
    arguments: list[str], steps: int, warned: str | None
) -> None:
    warning = parse(TrainSettings, arguments).warning(steps)
    assert warning is None if warned is None else (warning and warned in warning and "--preset quick" in warning)


def test_plateau_divides_by_ten_three_times_at_most() -> None:
    errors = [0.5] * 20
    assert [rates("plateau", 0.01, n + 1, 90, 3, errors[:n], chance=0.6).lr for n in (0, 3, 4, 7, 10, 19)] == [
        pytest.approx(lr) for lr in (0.01, 0.01, 1e-3, 1e-4, 1e-5, 1e-5)
    ]


@pytest.fixture
def colours() -> tuple[np.ndarray, np.ndarray]:
    """Pixels on 0..255 with known principal directions, and their covariance."""
    rng = np.random.default_rng(0)
    mixing = np.array([[60.0, 10, 3], [58, -5, -6], [55, -8, 4]])
    pixels = rng.standard_normal((100_000, 3)) @ mixing.T
    return pixels, np.cov(pixels.T, bias=True)


def test_the_deviation_reading_adds_a_tenth_of_the_colours_own_spread_and_shrinks_the_sum(
    colours: tuple[np.ndarray, np.ndarray],
) -> None:
    noise = colour_noise(colours[1], "deviation")
    assert noise
    normals = torch.from_numpy(np.random.default_rng(1).standard_normal((200_000, 3), dtype=np.float32))
    x = torch.zeros(200_000, 3, 1, 1)
    noise.add(x, normals)
    covariance = np.cov(x[:, :, 0, 0].numpy().T, bias=True)
    np.testing.assert_allclose(covariance, colours[1] * (0.1 / 1.1) ** 2, rtol=0.02, atol=0.3)


def test_the_eigenvalue_reading_is_the_papers_formula_on_pixels_from_0_to_1(colours: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, covariance = colours
    noise = colour_noise(covariance, "eigenvalue")
    assert noise
    values, vectors = np.linalg.eigh(np.cov((pixels / 255).T, bias=True))
    vectors, values = vectors[:, ::-1], values[::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), [0, 1, 2]])  # a direction's sign is free
    alpha = np.array([0.3, -1.2, 0.7])
    expected = 255 * vectors @ (0.1 * alpha * values)
    x = torch.full((1, 3, 2, 2), 5.0)
    noise.add(x, torch.from_numpy(alpha[None].astype(np.float32)))
    np.testing.assert_allclose(x[0, :, 0, 1].numpy() - 5, expected, rtol=1e-3, atol=1e-3)
    assert colour_noise(covariance, "none") is None
