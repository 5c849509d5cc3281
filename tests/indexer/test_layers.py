"""The layer that an index is made of: its features by hand, builds, additions, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer import add as adding
from indexer import build, evaluate
from indexer.index import open_index
from indexer.storage import artifact
from tests.conftest import write_photographs
from training import checkpoint
from training.checkpoint import FeatureLayer
from training.errors import Mismatch
from training.images.preprocess import ImageLimits, centre_view, decode

LAYERS: tuple[FeatureLayer, ...] = ("fc6", "conv5")


def by_hand(model: Path, pixels_BCHW: torch.Tensor, layer: FeatureLayer) -> torch.Tensor:
    """The features of a layer, module by module."""
    loaded = checkpoint.load(model)
    net = loaded.net
    values: list[tuple[torch.Tensor, torch.Tensor]] = []
    handles = [net.fc6.register_forward_hook(lambda _, given, out: values.append((given[0], out)))]
    net(centre_view(pixels_BCHW, loaded.mean_CHW, net.config.input_size, net.config.square_size))
    handles[0].remove()
    [(pooled_BD, fc6_BD)] = values
    if layer == "fc6":
        return fc6_BD.relu()
    maps = net.config.columns * net.config.maps[4]
    return torch.stack([values_D.view(maps, -1).mean(1) for values_D in pooled_BD])


@pytest.mark.parametrize("layer", LAYERS)
def test_the_features_of_a_layer_are_its_values_and_fc7_stays_fc7(
    model: Path, pixels_BCHW: torch.Tensor, layer: FeatureLayer
) -> None:
    loaded = checkpoint.load(model)
    at_layer = loaded.at(layer)
    features_BD = at_layer.features(pixels_BCHW)
    torch.testing.assert_close(features_BD, by_hand(model, pixels_BCHW, layer))
    assert at_layer.width == features_BD.shape[1]
    torch.testing.assert_close(at_layer.fc7(pixels_BCHW), loaded.features(pixels_BCHW))
    answers_BD, chances_BK = at_layer.answers(list(pixels_BCHW), [1] * len(pixels_BCHW))
    torch.testing.assert_close(answers_BD, features_BD)
    torch.testing.assert_close(chances_BK, loaded.probabilities(pixels_BCHW))
    assert len({loaded.at(one).fingerprint for one in ("fc7", *LAYERS)}) == 3
    assert at_layer.at("fc7").fingerprint == loaded.fingerprint == checkpoint.read_description(model).fingerprint()


@pytest.mark.parametrize("layer", LAYERS)
def test_an_index_of_a_layer_is_built_added_to_and_measured_by_it(
    tmp_path: Path, model: Path, images: Path, layer: FeatureLayer
) -> None:
    folder, more = tmp_path / "index", tmp_path / "more"
    settings = build.BuildSettings(model=model, data=images, index=folder, part="train", bits=0, layer=layer)
    build.main(settings)
    write_photographs(more, 1, first_seed=9000)
    adding.main(adding.AddSettings(model=model, data=more, index=folder))
    store = open_index(folder)
    assert (store.manifest.layer, len(store)) == (layer, 27)
    assert store.fingerprint == checkpoint.load(model).at(layer).fingerprint
    items = store.items([0, 26])
    pixels_BCHW = torch.stack([decode((Path(item.root) / item.path).read_bytes(), ImageLimits()).pixels_CHW for item in items])
    np.testing.assert_allclose(store.vectors([0, 26]), by_hand(model, pixels_BCHW, layer).numpy(), rtol=1e-4, atol=1e-5)
    report = evaluate.evaluate(
        checkpoint.load(model).at(layer), store, evaluate.EvaluateSettings(model=model, data=images, index=folder, out=tmp_path)
    )
    name = {"fc6": "FC6", "conv5": "conv5"}[layer]
    assert [one.name for one in report.methods][:2] == [f"{name}, Euclidean", f"{name}, cosine"]
    assert report.classifier_top1 == pytest.approx(_top1(model, images))


def _top1(model: Path, images: Path) -> float:
    loaded = checkpoint.load(model)
    paths = sorted((images / "test").glob("*/*.jpg"))
    pixels_BCHW = torch.stack([decode(path.read_bytes(), ImageLimits()).pixels_CHW for path in paths])
    best = loaded.probabilities(pixels_BCHW).argmax(1)
    return float(np.mean([loaded.classes[one] == path.parent.name for one, path in zip(best, paths, strict=True)]))


def test_an_interrupted_build_of_one_layer_does_not_go_on_with_features_of_another(
    tmp_path: Path, model: Path, images: Path
) -> None:
    build.main(build.BuildSettings(model=model, data=images, index=tmp_path, part="train", bits=0))
    [fc7] = [open_index(tmp_path).vectors([0])]
    build.main(build.BuildSettings(model=model, data=images, index=tmp_path, part="train", bits=0, layer="fc6"))
    assert not np.allclose(open_index(tmp_path).vectors([0]), fc7)


def test_a_layer_that_is_not_known_and_a_pair_that_does_not_agree_are_refused(tmp_path: Path, model: Path, images: Path) -> None:
    build.main(build.BuildSettings(model=model, data=images, index=tmp_path, part="train", bits=0, layer="fc6"))
    store = open_index(tmp_path)
    loaded = checkpoint.load(model)
    with pytest.raises(Mismatch, match="was made with the model"):
        artifact.check_pair(store, loaded.fingerprint, loaded.width)
    text = (store.folder / artifact.MANIFEST).read_text()
    artifact.write_manifest(store.folder, json.dumps(json.loads(text) | {"layer": "conv4"}))
    with pytest.raises(Mismatch, match=r"is not a manifest: layer Input should be 'fc7', 'fc6' or 'conv5'"):
        open_index(tmp_path)
    artifact.write_manifest(store.folder, json.dumps(json.loads(text) | {"layer": "conv5"}))
    other = open_index(tmp_path)
    bound = replace(loaded, layer=other.manifest.layer)
    with pytest.raises(Mismatch, match="was made with the model"):
        artifact.check_pair(other, bound.fingerprint, bound.width)


def test_an_index_from_before_there_were_layers_is_of_fc7(tmp_path: Path, model: Path, images: Path) -> None:
    build.main(build.BuildSettings(model=model, data=images, index=tmp_path, part="train", bits=0))
    folder = open_index(tmp_path).folder
    manifest = json.loads((folder / artifact.MANIFEST).read_text())
    del manifest["layer"]
    artifact.write_manifest(folder, json.dumps(manifest))
    assert open_index(tmp_path).manifest.layer == "fc7"
