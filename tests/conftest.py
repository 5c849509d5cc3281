"""Small photographs, a small network, and a model and an index made of them, shared by the whole suite."""

import io
import os
import secrets
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from indexer import build, calibrate
from training import checkpoint
from training.network.alexnet import PROFILES, AlexNet, AlexNetConfig
from training.network.initialisation import initialise

SMALL_MAPS = (4, 6, 8, 8, 6)
SmallConfig = partial(AlexNetConfig, maps=SMALL_MAPS, hidden=16, pixel_scale=(1 / 64,) * 3)
SEED_VARIABLE = "FC7_TEST_SEED"
# of the requests that tests make up, another every time; set in the environment it makes the same again
SEED = int(os.environ.setdefault(SEED_VARIABLE, str(secrets.randbelow(2**32))))
COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 40, 50)}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how to make up the same requests again; a header would be left out with -q."""
    terminalreporter.write_line(f"made-up requests: {SEED_VARIABLE}={SEED}")


def photograph(seed: int, colour: tuple[int, int, int] = (128, 128, 128), size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A smooth random picture of one tint, different for every seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 40, (6, 8, 3)) + np.asarray(colour)
    return Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    """The image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def damaged_fax() -> bytes:
    """A fax, as a TIFF, of which a part has been overwritten: libtiff finds errors in it, and Pillow goes on."""
    data = bytearray(encoded(photograph(1, size=(400, 300)).convert("1"), "TIFF", compression="group4"))
    start, end = len(data) // 4, len(data) // 2
    data[start:end] = np.random.default_rng(3).bytes(end - start)
    return bytes(data)


def write_photographs(folder: Path, count: int, first_seed: int = 0) -> None:
    """`count` photographs for each of three classes, as folder/<class>/<i>.jpg."""
    for c, (name, colour) in enumerate(sorted(COLOURS.items())):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            data = encoded(photograph(first_seed + 1000 * c + i, colour))
            (folder / name / f"{i:03d}.jpg").write_bytes(data)


def write_squares(folder: Path, count: int) -> NDArray[np.uint8]:
    """As `write_photographs`, of 256 x 256 pixels, in files whose hashes are the same everywhere: uint8 (N, 256, 256, 3)."""
    rng = np.random.default_rng(11)
    squares = []
    for name, colour in sorted(COLOURS.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            coarse = rng.integers(-40, 41, (8, 8, 1)) + rng.integers(-20, 21, (8, 8, 3)) + np.asarray(colour)
            fine = rng.integers(-10, 11, (256, 256, 3))  # no two pixels alike: the largest in a window does not hang on rounding
            squares.append((np.kron(coarse, np.ones((32, 32, 1), int)) + fine).clip(0, 255).astype(np.uint8))
            Image.fromarray(squares[-1]).save(folder / name / f"{i:03d}.bmp")
    return np.stack(squares)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder with train (3 x 8) and test (3 x 3) parts; do not write to it."""
    root = tmp_path_factory.mktemp("images")
    write_photographs(root / "train", 8)
    write_photographs(root / "test", 3, first_seed=500)
    return root


@pytest.fixture
def small_network() -> AlexNet:
    """A network of the paper's shape with few maps, in evaluation mode."""
    net = AlexNet(SmallConfig(classes=3))
    initialise(net, "fan-in", seed=1)
    return net.eval()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small untrained model of three classes; do not write to it."""
    folder = tmp_path_factory.mktemp("model")
    net = AlexNet(SmallConfig(classes=3))
    initialise(net, "fan-in", seed=1)
    checkpoint.save(folder, net, sorted(COLOURS), torch.full((3, 256, 256), 110.0))
    return folder


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory, model: Path, images: Path) -> Path:
    """An index of the training part of `images`, made with `model`; do not write to it."""
    folder = tmp_path_factory.mktemp("index")
    build.main(build.BuildSettings(model=model, data=images, index=folder, part="train"))
    return folder


@pytest.fixture(scope="session")
def atlas_index(tmp_path_factory: pytest.TempPathFactory, model: Path, images: Path) -> Path:
    """The same with a unit atlas, and without codes; do not write to it."""
    folder = tmp_path_factory.mktemp("atlas-index")
    build.main(build.BuildSettings(model=model, data=images, index=folder, part="train", bits=0, atlas=True))
    return folder


@pytest.fixture(scope="session")
def calibrated(index: Path, model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index, and what its distances mean; do not write to it."""
    folder = tmp_path_factory.mktemp("calibrated") / "index"
    shutil.copytree(index, folder, symlinks=True)
    calibrate.main(calibrate.CalibrateSettings(model=model, data=images, index=folder))
    return folder


@pytest.fixture
def few_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the training command build the small network."""
    monkeypatch.setitem(PROFILES, "paper", SmallConfig())


@pytest.fixture
def pixels_BCHW() -> torch.Tensor:
    """Four photographs as the network's preprocessing takes them: uint8 (4, 3, 256, 256)."""
    pictures = [np.asarray(photograph(seed, size=(256, 256))) for seed in range(4)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
