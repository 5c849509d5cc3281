"""The presets trained on a few photographs: pixels, rates and weights of every step against the paper and the log of 2012."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.conftest import SMALL_MAPS, write_squares
from training import train
from training.network.alexnet import PROFILES, Masks
from training.network.columns import PlacedNet
from training.run.feed import Feed
from training.run.recipe import TrainSettings
from training.run.sgd import PaperSGD
from training.run.whitening import whiten

SEED = 3
ORDER, CROPS, COLOURS = 0, 1, 3  # purposes of random numbers, as training/run/draws.py numbers them
EVERY = 37  # rows and columns of a view are compared
WATCHED = ("conv1.weight", "conv1.bias", "conv4.weight", "conv4.bias", "fc8.weight", "fc8.bias")
# From epoch; learning rate of weights, of conv1's weights, of conv1's biases, and whether colours are shifted, as logged in 2012
LOG_OF_2012 = [
    (1, 1e-2, 1e-2, 2e-2, True),
    (23, 1e-3, 1e-3, 2e-2, True),
    (51, 1e-4, 1e-4, 2e-2, True),
    (68, 1e-4, 1e-5, 2e-2, False),
    (72, 1e-4, 0.0, 0.0, False),
    (78, 1e-5, 0.0, 0.0, False),
]

Noise = Callable[[NDArray[np.float64], NDArray[np.float32]], NDArray[np.float64]]  # pixels (H, W, 3), draws (3,) -> pixels


@dataclass
class Steps:
    """What the network was given in each step of training, and what the step made of its weights."""

    pixels: list[NDArray[np.float32]] = field(default_factory=list)  # every 37th of each row and column
    gradients: list[dict[str, NDArray[np.float32] | None]] = field(default_factory=list)
    before: list[dict[str, NDArray[np.float32]]] = field(default_factory=list)
    after: list[dict[str, NDArray[np.float32]]] = field(default_factory=list)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Small networks in place of the profiles, and a record of every step that trains one."""
    kept, parameters = Steps(), dict[str, torch.nn.Parameter]()
    forward, step = PlacedNet.forward, PaperSGD.step

    def recorded_forward(net: PlacedNet, x_BCHW: Tensor, masks: Masks | None = None) -> Tensor:
        if net.training:
            parameters.update({name.removeprefix("parts.0."): parameter for name, parameter in net.named_parameters()})
            kept.pixels.append(x_BCHW[:, :, ::EVERY, ::EVERY].numpy().copy())
        return forward(net, x_BCHW, masks)

    def weights() -> dict[str, NDArray[np.float32]]:
        return {name: parameters[name].detach().numpy().copy() for name in WATCHED}

    def recorded_step(optimizer: PaperSGD) -> None:
        gradients = {name: parameters[name].grad for name in WATCHED}
        kept.gradients.append({name: None if g is None else g.numpy().copy() for name, g in gradients.items()})
        kept.before.append(weights())
        step(optimizer)
        kept.after.append(weights())

    for name in ("paper", "source"):
        small = {"maps": SMALL_MAPS, "hidden": 16, "pixel_scale": (1 / 64,) * 3}
        monkeypatch.setitem(PROFILES, name, PROFILES[name].model_copy(update=small))
    monkeypatch.setattr(PlacedNet, "forward", recorded_forward)
    monkeypatch.setattr(PaperSGD, "step", recorded_step)
    return kept


@pytest.fixture
def squares(tmp_path: Path) -> NDArray[np.uint8]:
    """21 photographs in tmp_path/data, by the order of their paths: (N, 256, 256, 3)."""
    return write_squares(tmp_path / "data" / "train", 7)


def train_on(folder: Path, **values: object) -> list[dict[str, float]]:
    """Trains on folder/data in float32; the rows of the epochs."""
    fixed = {"data": folder / "data", "out": folder / "out", "precision": "float32", "seed": SEED}
    train.main(TrainSettings.model_validate({**fixed, **values}))
    return [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]


def stream(purpose: int, epoch: int, step: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([SEED, purpose, epoch, step])))


def directions(squares: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues, descending, and eigenvectors, as columns, of the covariance of all pixels on 0..255."""
    values, vectors = np.linalg.eig(np.cov(squares.reshape(-1, 3).T.astype(np.float64), bias=True))
    order = np.argsort(values)[::-1]
    vectors = vectors[:, order]
    return values[order], vectors * np.sign([max(column, key=abs) for column in vectors.T])


def without_noise(pixels_HWC: NDArray[np.float64], _normals_3: NDArray[np.float32]) -> NDArray[np.float64]:
    return pixels_HWC


def noise_of_the_paper(squares: NDArray[np.uint8]) -> Noise:
    """[p1, p2, p3][a1 l1, a2 l2, a3 l3] on pixels from 0 to 1 (paper, section 4.1), brought back to 0..255."""
    values, vectors = directions(squares)
    return lambda pixels_HWC, normals_3: pixels_HWC + 255 * (vectors @ (0.1 * normals_3 * values / 255**2))


def noise_of_2012(squares: NDArray[np.uint8]) -> Noise:
    """A tenth of the standard deviation along each direction, and the sum divided by 1.1."""
    values, vectors = directions(squares)
    return lambda pixels_HWC, normals_3: (pixels_HWC + vectors @ (0.1 * normals_3 * np.sqrt(values))) / 1.1


def views(
    squares: NDArray[Any], trained_on: list[int], epoch: int, batch_size: int, noise: Noise, size: int = 224
) -> list[NDArray[np.float64]]:
    """What the network must be given in each step of an epoch, from the documented streams of random numbers."""
    mean, margin = squares.mean(0), squares.shape[1] - size
    order = np.array(trained_on)[stream(ORDER, epoch).permutation(len(trained_on))]
    batches = []
    for step in range(-(-len(order) // batch_size)):
        picks = order[step * batch_size : (step + 1) * batch_size]
        draws = stream(CROPS, epoch, step)
        tops, lefts = draws.integers(margin + 1, size=(2, len(picks)))
        mirrored = draws.random(len(picks)) < 0.5
        normals = stream(COLOURS, epoch, step).standard_normal((len(picks), 3), dtype=np.float32)
        batch = []
        for pick, top, left, mirror, normal in zip(picks, tops, lefts, mirrored, normals, strict=True):
            columns = np.arange(left, left + size)[:: -1 if mirror else 1][::EVERY]
            place = np.ix_(np.arange(top, top + size, EVERY), columns)
            batch.append(noise(squares[pick][place] - mean[place], normal))
        batches.append(np.stack(batch).transpose(0, 3, 1, 2))
    return batches


def assert_updates_follow(steps: Steps, rates: list[dict[str, float]], conv1_decay: float = 5e-4) -> None:
    """Replays v = 0.9 v - 0.0005 lr w - lr g, w = w + v (paper, section 5) in float64 over every step."""
    for name in WATCHED:
        decay = {"conv1.weight": conv1_decay}.get(name, 0.0 if name.endswith("bias") else 5e-4)
        velocity = np.zeros_like(steps.before[0][name], np.float64)
        for step, lr in enumerate(rates):
            w, gradient = steps.before[step][name].astype(np.float64), steps.gradients[step][name]
            if not lr[name]:
                assert gradient is None
                np.testing.assert_array_equal(steps.after[step][name], steps.before[step][name])
                continue
            assert gradient is not None
            velocity = 0.9 * velocity - decay * lr[name] * w - lr[name] * gradient
            rounding = 2.0**-23 * np.abs(w).max()
            np.testing.assert_allclose(
                steps.after[step][name] - w, velocity, rtol=1e-3, atol=rounding, err_msg=f"{name} in {step}"
            )


def assert_pixels_are(given: list[NDArray[np.float32]], expected: list[NDArray[np.float64]]) -> None:
    assert len(given) == len(expected)
    for pixels, by_hand in zip(given, expected, strict=True):
        np.testing.assert_allclose(pixels, by_hand, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_paper_shifts_colours_and_divides_the_rate_at_each_plateau(
    tmp_path: Path, squares: NDArray[np.uint8], steps: Steps
) -> None:
    # the weights of the paper would stay at chance, where the rate does not fall
    rows = train_on(tmp_path, epochs=36, batch_size=8, init="fan-in", validation=0.3)
    hashes = [
        int(hashlib.sha256(path.read_bytes()).hexdigest()[-16:], 16) for path in sorted(tmp_path.glob("data/train/*/*.bmp"))
    ]
    trained_on = [i for i, value in enumerate(hashes) if value >= 0.3 * 2**64]
    classes = [i // 7 for i in range(21) if i not in trained_on]
    assert len(classes) == 6
    chance = 1 - max(map(classes.count, classes)) / len(classes)
    noise = noise_of_the_paper(squares)
    assert_pixels_are(steps.pixels, [v for epoch in range(1, 37) for v in views(squares, trained_on, epoch, 8, noise)])
    rates, lr, best, stale = list[float](), 0.01, 2.0, 0
    for row in rows:
        rates.append(lr)
        best, stale = (row["top1_error"], 0) if row["top1_error"] < best else (best, stale + (best < chance))
        if stale == 5 and lr > 2e-5:  # a tenth, three times at most
            lr, stale = lr / 10, 0
    # six photographs held out have four bests below chance at most: 36 epochs have more than three plateaus
    assert rates[-1] == pytest.approx(1e-5)
    assert [row["lr"] for row in rows] == pytest.approx(rates)
    assert_updates_follow(steps, [dict.fromkeys(WATCHED, lr) for lr in rates for _ in range(2)])


@pytest.mark.slow
def test_source_shifts_colours_until_epoch_67_and_freezes_conv1_from_72(
    tmp_path: Path, squares: NDArray[np.uint8], steps: Steps
) -> None:
    train_on(tmp_path, preset="source", init="fan-in")  # the initial weights of 2012 hardly move conv1 in 93 steps
    trained_on, noise = list(range(len(squares))), noise_of_2012(squares)
    expected, rates = [], []
    for epoch in range(1, 94):
        _, lr, conv1, conv1_bias, coloured = max(row for row in LOG_OF_2012 if row[0] <= epoch)
        expected += views(squares, trained_on, epoch, 128, noise if coloured else without_noise)
        rates.append(dict.fromkeys(WATCHED, lr) | dict.fromkeys(("conv4.bias", "fc8.bias"), 0.02))
        rates[-1] |= {"conv1.weight": conv1, "conv1.bias": conv1_bias}
    assert_pixels_are(steps.pixels, expected)
    assert_updates_follow(steps, rates)


def test_figure3_whitens_the_gradient_of_conv1_on_small_crops_and_gives_it_its_own_start_rate_and_decay(
    tmp_path: Path, squares: NDArray[np.uint8], steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = np.random.default_rng(5).normal(size=(363, 363)) / 19
    before = list[NDArray[np.float32]]()

    def given(feed: Feed, exponent: float) -> Tensor:
        assert (exponent, feed.chosen_N.tolist()) == (0.2, list(range(21)))
        return torch.from_numpy(matrix).float()

    def recorded(weight_KCHW: Tensor, matrix_PP: Tensor) -> None:
        assert weight_KCHW.grad is not None
        before.append(weight_KCHW.grad.numpy().copy())
        whiten(weight_KCHW, matrix_PP)

    monkeypatch.setattr(train, "whitening", given)
    monkeypatch.setattr("training.run.loop.whiten", recorded)
    train_on(tmp_path, preset="figure3", epochs=6, batch_size=8, hidden=16)
    halved = squares.reshape(21, 128, 2, 128, 2, 3).mean((2, 4))
    expected = [v for epoch in range(1, 7) for v in views(halved, list(range(21)), epoch, 8, without_noise, size=67)]
    assert_pixels_are(steps.pixels, expected)
    assert 0.9 < steps.before[0]["conv1.weight"].std() / 0.0015 < 1.1
    for raw, gradients in zip(before, steps.gradients, strict=True):
        product = raw.reshape(-1, 363).astype(np.float64) @ matrix
        gradient = gradients["conv1.weight"]
        assert gradient is not None
        np.testing.assert_allclose(gradient.reshape(-1, 363), product, rtol=1e-4, atol=1e-5 * np.abs(product).max())
    lrs = [0.005 * (1 + np.cos(np.pi * epoch / 6)) for epoch in range(6) for _ in range(3)]
    assert_updates_follow(steps, [dict.fromkeys(WATCHED, lr) | {"conv1.weight": 4 * lr} for lr in lrs], conv1_decay=2e-3)
