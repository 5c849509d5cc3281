"""A model on disk: it comes back as it was, and a pair of files that disagree is refused by name."""

from pathlib import Path

import pytest
import torch

from training import checkpoint
from training.errors import Mismatch, NotReady
from training.network.alexnet import AlexNet
from training.record import ErrorRates, ModelMetrics, WeightsRecord

RECORD = WeightsRecord(source="/weights", sha256="5" * 64, bytes=4, note="random")
ERRORS = [ErrorRates(views=1, photographs=4, top1_error=0.5, top5_error=0.25)]


@pytest.fixture
def folder(tmp_path: Path, small_network: AlexNet) -> Path:
    mean = torch.full((3, 256, 256), 100.0)
    checkpoint.save(tmp_path, small_network, ["a", "b", "c"], mean, RECORD)
    return tmp_path


def test_a_model_comes_back_with_all_it_needs(folder: Path, small_network: AlexNet, pixels_BCHW: torch.Tensor) -> None:
    model = checkpoint.load(folder)
    x = pixels_BCHW[..., 16:240, 16:240].float() - 100
    with torch.no_grad():
        torch.testing.assert_close(model.fc7(pixels_BCHW), small_network.features(x))
        torch.testing.assert_close(model.probabilities(pixels_BCHW), small_network(x).softmax(1))
    assert model.classes == ["a", "b", "c"]
    assert model.training == RECORD


def test_ten_views_average_probabilities(folder: Path, pixels_BCHW: torch.Tensor) -> None:
    model = checkpoint.load(folder)
    views = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    crops = [pixels_BCHW[..., top : top + 224, left : left + 224].float() - 100 for top, left in views]
    every = torch.stack([model.net(v).softmax(1) for crop in crops for v in (crop, crop.flip(-1))])
    torch.testing.assert_close(model.probabilities(pixels_BCHW, 10), every.mean(0))


def test_the_fingerprint_follows_the_weights_and_not_the_metrics(folder: Path, small_network: AlexNet) -> None:
    before = checkpoint.load(folder).fingerprint
    checkpoint.write_errors(folder, "test", ERRORS)
    assert checkpoint.load(folder).fingerprint == before
    assert checkpoint.load(folder).metrics == ModelMetrics(test=ERRORS)
    checkpoint.save(folder, small_network, ["a", "b", "c"], torch.zeros(3, 256, 256))
    assert checkpoint.load(folder).fingerprint != before


def test_nothing_there_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"python -m training\.train"):
        checkpoint.load(tmp_path)


def test_one_flipped_byte_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Mismatch, match="its SHA-256 differs"):
        checkpoint.load(folder)
    path.write_bytes(data[:-1])
    with pytest.raises(Mismatch, match=r"has \d+ bytes, model.json says \d+"):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"format": 1', '"format": 9', "has format 9, this program reads format 1"),
        ('"b",', "", "names 2 classes, its network has 3"),
        ('"config"', '"konfig"', "is not a model description"),
        ('"bytes": 4', '"bytes": "four"', "is not a model description: training"),
        ('"metrics": {', '"metrics": {"dev": []', "is not a model description: metrics.dev"),
        ('"hidden": 16', '"hidden": 18', "does not hold the network"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(folder: Path, old: str, new: str, message: str) -> None:
    path = folder / "model.json"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(Mismatch, match=message):
        checkpoint.load(folder)


def test_a_model_with_untrained_layers_is_only_opened_to_train_it(folder: Path, small_network: AlexNet) -> None:
    mean = torch.full((3, 256, 256), 100.0)
    checkpoint.save(folder, small_network, ["a", "b", "c"], mean, untrained=["fc6", "fc7", "fc8"])
    with pytest.raises(NotReady, match=r"^fc6, fc7 and fc8 of .* are not trained; `python -m training\.train --start"):
        checkpoint.load(folder)
    checkpoint.write_errors(folder, "test", ERRORS)
    assert checkpoint.load(folder, untrained_too=True).classes == ["a", "b", "c"]
    checkpoint.save(folder, small_network, ["a", "b", "c"], mean, untrained=["fc8"])
    with pytest.raises(NotReady, match=r"^fc8 of .* is not trained"):
        checkpoint.load(folder)
    checkpoint.save(folder, small_network, ["a", "b", "c"], mean)
    assert checkpoint.load(folder).classes == ["a", "b", "c"]
