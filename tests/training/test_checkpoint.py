"""A model on disk: it comes back as it was, and a pair of files that disagree is refused by name."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import SmallConfig
from training import checkpoint
from training.errors import Mismatch, NotFinite, NotReady
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise
from training.record import ErrorRates, ModelMetrics, TrainingRecord, WeightsRecord

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


def test_a_model_of_squares_of_128_sees_block_means_and_its_fingerprint_says_so(
    tmp_path: Path, folder: Path, pixels_BCHW: torch.Tensor
) -> None:
    net = AlexNet(SmallConfig(classes=3, square_size=128, input_size=67))
    initialise(net, "fan-in", seed=1)
    mean_CHW = torch.linspace(0, 200, 3 * 256 * 256).view(3, 256, 256)
    checkpoint.save(tmp_path / "small", net, ["a", "b", "c"], mean_CHW)
    model = checkpoint.load(tmp_path / "small")
    halves = (pixels_BCHW - mean_CHW).view(4, 3, 128, 2, 128, 2).mean((3, 5))
    with torch.no_grad():
        centre = net.eval()(halves[..., 30:97, 30:97]).softmax(1)
        places = [(0, 0), (0, 61), (61, 0), (61, 61), (30, 30)]
        crops = [halves[..., top : top + 67, left : left + 67] for top, left in places]
        ten = torch.stack([net(view).softmax(1) for crop in crops for view in (crop, crop.flip(-1))])
        torch.testing.assert_close(model.fc7(pixels_BCHW), net.features(halves[..., 30:97, 30:97]))
    torch.testing.assert_close(model.probabilities(pixels_BCHW), centre)
    torch.testing.assert_close(model.probabilities(pixels_BCHW, 10), ten.mean(0))
    torch.testing.assert_close(model.answers(list(pixels_BCHW), [1] * 4)[1], centre)
    torch.testing.assert_close(model.answers(list(pixels_BCHW[:2]), [1, 10])[1], torch.cat([centre[:1], ten[:, 1]]))
    for path, resize in ((folder, 256), (tmp_path / "small", 128)):
        description = json.loads((path / "model.json").read_text())
        assert description["config"].pop("square_size") == resize
        parts = {"weights": description["weights_sha256"], "config": description["config"], "resize": resize, "layer": "fc7"}
        expected = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        assert checkpoint.load(path).fingerprint == expected  # as it was before a square had a size


def test_a_description_without_a_size_of_squares_is_of_256(folder: Path) -> None:
    before = checkpoint.load(folder).fingerprint
    description = json.loads((folder / "model.json").read_text())
    del description["config"]["square_size"]
    (folder / "model.json").write_text(json.dumps(description))
    assert checkpoint.load(folder).fingerprint == before


@pytest.mark.parametrize("conv1_std", [None, 0.0064])
def test_the_network_before_training_has_the_weights_that_its_recipe_draws(
    folder: Path, small_network: AlexNet, conv1_std: float | None
) -> None:
    config = small_network.config
    record = TrainingRecord(
        settings={"init": "paper", "conv1_std": conv1_std},
        photographs=1,
        held_out=0,
        rejected=0,
        seconds=1,
        precision="float32",
        placement="cpu",
        machine="",
        torch="",
    )
    checkpoint.save(folder, small_network, ["a", "b", "c"], torch.zeros(3, 256, 256), record)
    net = checkpoint.untrained(checkpoint.load(folder), seed=3).net
    expected = AlexNet(config)
    initialise(expected, "paper", seed=3)
    if conv1_std:
        expected.conv1.weight.data *= conv1_std / 0.01
    for name, weights in net.state_dict().items():
        torch.testing.assert_close(weights, expected.state_dict()[name], rtol=1e-6, atol=0)
    assert not net.training


def test_a_model_names_the_photographs_that_it_was_trained_on_or_none(tmp_path: Path) -> None:
    assert checkpoint.trained_on(tmp_path) is None
    lines = [f"{'0' * 64}  train/a/b  c.jpg\n", f"{'1' * 64}  train/a/ä.jpg\n"]
    (tmp_path / "train.sha256").write_text("".join(lines), "utf-8")
    assert checkpoint.trained_on(tmp_path) == {"0" * 64, "1" * 64}


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


def rewrite(folder: Path, **changes: torch.Tensor) -> None:
    """Other tensors in a model's file, and the description of that file."""
    path, description = folder / "model.safetensors", folder / "model.json"
    save_file(load_file(path) | {name.replace("__", "."): tensor for name, tensor in changes.items()}, path)
    fields = json.loads(description.read_text())
    fields |= {"weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "weights_bytes": path.stat().st_size}
    description.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("preprocess__mean", torch.zeros(3, 1, 1), r"preprocess\.mean is F32 \(3, 1, 1\), expected F32 \(3, 256, 256\)"),
        ("preprocess__mean", torch.full((3, 256, 256), 1e4), r"preprocess\.mean of .* has values outside 0\.\.255"),
        ("preprocess__mean", torch.full((3, 256, 256), torch.nan), r"preprocess\.mean of .* not finite numbers"),
        ("conv3__bias", torch.tensor([0.0] * 15 + [torch.inf]), r"conv3\.bias of .* not finite numbers"),
        ("conv3__bias", torch.zeros(16, dtype=torch.float64), r"conv3\.bias is F64 \(16,\), expected F32 \(16,\)"),
        ("fc9__bias", torch.zeros(16), r"has an unexpected tensor fc9\.bias"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder: Path, name: str, value: torch.Tensor, message: str) -> None:
    rewrite(folder, **{name: value})
    with pytest.raises(Mismatch, match=message):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("conv1_pad", 10**12),
        ("hidden", 10**9),
        ("maps", [4, 6, 8, 8, 10**7]),
        ("maps", [4, 6, 0, 8, 6]),
        ("classes", 10**9),
        ("lrn_size", 10**9 + 1),
        ("pool_size", 10**9),
        ("lrn_k", 0.0),
        ("pixel_scale", [0.0, 1.0, 1.0]),
        ("lrn_after", [1] * 10**5),
    ],
)
def test_a_field_out_of_bounds_is_named(folder: Path, field: str, value: object) -> None:
    path = folder / "model.json"
    fields = json.loads(path.read_text())
    fields["config"][field] = value
    path.write_text(json.dumps(fields))
    with pytest.raises(Mismatch, match=rf"is not a model description: config\.{field}"):
        checkpoint.load(folder)


def test_a_larger_network_is_refused_before_it_is_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "model.json"
    path.write_text(path.read_text().replace('"hidden": 16', '"hidden": 9000'))
    built = []
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda layer: built.append(layer.weight.device.type))
    with pytest.raises(Mismatch, match=r"fc6\.bias is F32 \(32,\), expected F32 \(18000,\)"):
        checkpoint.load(folder)
    assert set(built) == {"meta"}


def test_features_and_probabilities_that_are_not_finite_are_no_answer(folder: Path, pixels_BCHW: torch.Tensor) -> None:
    rewrite(folder, fc8__weight=torch.full((3, 32), 3e38))
    with pytest.raises(NotFinite, match="no finite probability for"):
        checkpoint.load(folder).probabilities(pixels_BCHW)
    rewrite(folder, fc7__weight=torch.full((32, 32), 3e38), fc6__bias=torch.full((32,), 1e30))
    model = checkpoint.load(folder)
    with pytest.raises(NotFinite, match="no finite FC7 feature") as caught:
        model.fc7(pixels_BCHW)
    assert caught.value.positions == list(range(len(pixels_BCHW)))
    with pytest.raises(NotFinite):
        model.answers(list(pixels_BCHW), [1] * len(pixels_BCHW))
