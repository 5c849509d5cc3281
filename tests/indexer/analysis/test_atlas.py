"""The unit atlas: beside brute force, photograph by photograph; the same however it was built; refused where it is damaged."""

import json
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexer import add, compact, features, remove
from indexer.analysis.atlas import KEPT, AtlasMaker
from indexer.build import BuildSettings, main
from indexer.features import Activations, Extraction, FeatureBlock
from indexer.index import open_index
from indexer.storage import artifact, atlas
from indexer.storage.atlas import Atlas, LayerRecord
from tests.conftest import write_photographs
from tests.indexer.synthetic import block
from tests.indexer.test_damaged_files import plant
from tests.training.network.brute import activations
from training import checkpoint
from training.errors import Mismatch
from training.images.folders import list_examples
from training.images.preprocess import ImageLimits, centre_view, decode

LAYERS = {"conv1": LayerRecord(columns=2, units=3, side=4), "fc8": LayerRecord(columns=1, units=5, side=0)}


def build(model: Path, data: Path, index: Path, **changes: object) -> None:
    main(BuildSettings.model_validate({"model": model, "data": data, "index": index, "atlas": True, "bits": 0, **changes}))


def atlas_of(index: Path) -> Atlas:
    opened = open_index(index).atlas
    assert opened
    return opened


def bytes_of(index: Path) -> bytes:
    return (artifact.current(index) / artifact.ATLAS).read_bytes()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_every_unit_has_the_photographs_of_brute_force(tmp_path: Path, model: Path, images: Path, metric: str) -> None:
    """Of three photographs in four one is a copy of the one before, and rejected."""
    data = Path(shutil.copytree(images / "train", tmp_path / "data"))
    for path in sorted(data.rglob("*.jpg"))[::4]:
        shutil.copy(path, path.with_name(f"{path.stem}-copy.jpg"))
    (data / "red" / "none.jpg").write_bytes(b"no photograph")
    build(model, data, tmp_path / "index", metric=metric)
    store, loaded = open_index(tmp_path / "index"), checkpoint.load(model)
    opened = atlas_of(tmp_path / "index")
    assert opened.record.photographs == len(store) == 24
    brute: dict[str, list[torch.Tensor]] = {}
    for item in store.items(range(24)):
        pixels_CHW = decode((data / item.path).read_bytes(), ImageLimits()).pixels_CHW
        for layer, maps in activations(loaded.net, centre_view(pixels_CHW[None], loaded.mean_CHW, 224)).items():
            brute.setdefault(layer, []).append(maps[0])
    assert list(opened.layers) == list(brute)
    for layer, of_photographs in brute.items():
        found = opened.layers[layer]
        values_NUP = torch.stack(of_photographs).double().numpy().reshape(24, len(of_photographs[0]), -1)
        values_NU = values_NUP.max(2)
        assert found.ids_UK.shape == (values_NU.shape[1], KEPT)
        np.testing.assert_array_equal(found.active_U, (values_NU > 0).sum(0))
        np.testing.assert_allclose(found.mean_U, values_NU.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.maximum_U, values_NU.max(0), rtol=1e-4, atol=1e-5)
        for unit, ids_K in enumerate(found.ids_UK):
            count = KEPT if layer == "fc8" else min(KEPT, int((values_NU[:, unit] > 0).sum()))
            assert (ids_K >= 0).sum() == count
            expected = np.sort(values_NU[:, unit])[::-1][:count]
            np.testing.assert_allclose(found.activations_UK[unit, :count], expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(values_NU[ids_K[:count], unit], expected, rtol=1e-4, atol=1e-5)
            if found.positions_UK is not None:
                there = values_NUP[ids_K[:count], unit, found.positions_UK[unit, :count]]
                np.testing.assert_allclose(there, expected, rtol=1e-4, atol=1e-5)
            labels = [opened.record.labels[label] for label in found.labels_UK[unit, :count]]
            assert labels == [item.label for item in store.items(ids_K[:count].tolist())]


def blocks(rng: np.random.Generator, sizes: tuple[int, ...]) -> Iterator[FeatureBlock]:
    """Blocks of activations that are small whole numbers, and so often equal, negative and zero."""
    first = 0
    for size in sizes:
        values_NU = rng.integers(-2, 3, (size, 11)).astype(np.float32)
        values_NU[values_NU == 0] *= rng.choice([-1, 1])  # zeros of either sign are equal
        positions_NM = rng.integers(0, 16, (size, 6), np.int16)
        yield replace(block(np.zeros((size, 1), np.float32), first), activations=Activations(values_NU, positions_NM))
        first += size


@pytest.mark.parametrize("sizes", [(40,), (1, 20, 0, 3, 16), (5, 6), (0,)])
def test_equal_activations_are_in_order_of_id_however_the_blocks_are_cut(sizes: tuple[int, ...]) -> None:
    maker = AtlasMaker("m" * 64, LAYERS)
    made = list(blocks(np.random.default_rng(sum(sizes)), sizes))
    for part in made:
        maker.take(part)
    found = maker.atlas()
    values_NU = np.concatenate([part.activations.values_NU for part in made if part.activations])
    positions_NM = np.concatenate([part.activations.positions_NM for part in made if part.activations])
    for unit in range(11):
        layer, own = (found.layers["conv1"], unit) if unit < 6 else (found.layers["fc8"], unit - 6)
        column = values_NU[:, unit].tolist()
        order = sorted((i for i in range(len(column)) if unit >= 6 or column[i] > 0), key=lambda i: (-column[i], i))[:KEPT]
        short = KEPT - len(order)
        assert layer.ids_UK[own].tolist() == order + [-1] * short
        assert layer.activations_UK[own].tolist() == [column[i] for i in order] + [0.0] * short
        assert layer.labels_UK[own].tolist() == [i % 3 for i in order] + [-1] * short
        if layer.positions_UK is not None:
            assert layer.positions_UK[own].tolist() == [positions_NM[i, unit] for i in order] + [0] * short


def test_a_build_that_is_interrupted_and_one_that_is_shared_make_the_same_atlas(
    tmp_path: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BLOCK_ROWS", 5)
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    build(model, images / "train", whole)
    make, made = features.feature_block, []

    def interrupting(*given: Any) -> FeatureBlock:
        made.append(given)
        if len(made) == 3:
            raise KeyboardInterrupt
        return make(*given)

    monkeypatch.setattr(features, "feature_block", interrupting)
    with pytest.raises(KeyboardInterrupt):
        build(model, images / "train", interrupted)
    assert len(list((interrupted / "work").iterdir())) == 2
    examples, work = list_examples(images / "train", "all"), interrupted / "work"
    extraction = Extraction(checkpoint.load(model), images / "train", examples, ImageLimits(), False, work, with_activations=True)
    extraction.run(1, 2)  # the second of two ranks: of five blocks the second, which is there, and the fourth
    assert len(made) == 3 + 1
    build(model, images / "train", interrupted)
    assert len(made) == 3 + 1 + 2
    assert bytes_of(interrupted) == bytes_of(whole)


def test_an_atlas_changes_nothing_else_of_an_index(tmp_path: Path, model: Path, images: Path) -> None:
    for name, wanted in (("with", True), ("without", False)):
        build(model, images / "train", tmp_path / name, atlas=wanted)
    files = [artifact.read_manifest(artifact.current(tmp_path / name)).files for name in ("with", "without")]
    assert set(files[0]) - set(files[1]) == {artifact.ATLAS}
    for name in (artifact.VECTORS, artifact.THUMBNAILS, artifact.COMPONENTS):
        assert files[0][f"0/{name}"] == files[1][f"0/{name}"]
    assert open_index(tmp_path / "without").atlas is None


def test_the_versions_that_follow_take_an_atlas_over(tmp_path: Path, model: Path, images: Path) -> None:
    index = tmp_path / "index"
    build(model, images / "train", index)
    before, opened = bytes_of(index), open_index(index)
    write_photographs(tmp_path / "more", 1, first_seed=9000)
    add.main(add.AddSettings(model=model, data=tmp_path / "more", index=index))
    remove.main(remove.RemoveSettings(index=index, ids=[3]))
    assert opened.renewed().atlas is opened.atlas
    compact.main(compact.CompactSettings(index=index))
    assert bytes_of(index) == before
    assert atlas_of(index).record.photographs == 24 < open_index(index).manifest.next_id


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Atlas]:
    """The file of an atlas of 40 photographs."""
    maker = AtlasMaker("m" * 64, LAYERS)
    for part in blocks(np.random.default_rng(1), (40,)):
        maker.take(part)
    path = tmp_path_factory.mktemp("atlas") / artifact.ATLAS
    atlas.save(maker.atlas(), path)
    return path, maker.atlas()


def load(path: Path) -> Atlas:
    return atlas.load(path, "m" * 64, 40)


def test_what_was_saved_is_loaded(small: tuple[Path, Atlas]) -> None:
    loaded = load(small[0])
    assert loaded.record == small[1].record
    for name, layer in small[1].layers.items():
        for field, array in vars(layer).items():
            np.testing.assert_array_equal(getattr(loaded.layers[name], field), array)


def changed(small: tuple[Path, Atlas], **arrays: np.ndarray) -> Atlas:
    return replace(small[1], layers={**small[1].layers, "conv1": replace(small[1].layers["conv1"], **arrays)})


def with_value(array: np.ndarray, at: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[at] = value
    return array


@pytest.mark.parametrize(
    ("field", "at", "value", "message"),
    [
        ("ids_UK", (0, 0), 40, "ids out of bounds"),
        ("ids_UK", (0, 0), -2, "ids out of bounds"),
        ("ids_UK", (0, 0), -1, "ids behind none"),
        ("labels_UK", (0, 0), 3, "labels out of bounds"),
        ("labels_UK", (0, 0), -1, "labels out of bounds"),
        ("activations_UK", (0, 0), np.nan, "not finite"),
        ("activations_UK", (0, 5), 100, "out of order"),
        ("positions_UK", (0, 0), 16, "positions outside"),
        ("positions_UK", (0, 0), -1, "positions outside"),
        ("active_U", (0,), 41, "counts out of bounds"),
        ("mean_U", (0,), np.inf, "not finite"),
        ("maximum_U", (5,), np.nan, "not finite"),
    ],
)
def test_values_that_no_build_writes_are_refused(
    small: tuple[Path, Atlas], tmp_path: Path, field: str, at: tuple[int, ...], value: float, message: str
) -> None:
    array = getattr(small[1].layers["conv1"], field)
    atlas.save(changed(small, **{field: with_value(array, at, value)}), tmp_path / "a")
    with pytest.raises(Mismatch, match=f"conv1 of .* has .*{message}.*indexer.build --atlas"):
        load(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "of another format: format Input should be 1"),
        ({"fingerprint": "n" * 64}, "of the model nnnnnnnnnnnn, the index of mmmmmmmmmmmm"),
        ({"photographs": 41}, "of 41 photographs, the index has given 40 ids"),
        ({"kept": 15}, r"has the shape \(6, 16\), expected \(6, 15\)"),
        ({"layers": {}}, "other arrays than its header names"),
        ({"layers": {"conv1": LAYERS["conv1"].model_dump()}}, "other arrays"),
        ({"other": 1}, "other Extra inputs"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    small: tuple[Path, Atlas], tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    header = {**json.loads(small[1].record.model_dump_json()), **changes}
    atlas.save(replace(small[1], record=Header(json.dumps(header))), tmp_path / "a")  # type: ignore[arg-type]
    with pytest.raises(Mismatch, match=message):
        load(tmp_path / "a")


class Header:
    """A header that says what it is told to."""

    def __init__(self, text: str) -> None:
        self._text = text

    def model_dump_json(self) -> str:
        return self._text


def test_a_damaged_file_is_refused_or_read_and_never_anything_else(small: tuple[Path, Atlas], tmp_path: Path) -> None:
    data, rng, path = small[0].read_bytes(), np.random.default_rng(7), tmp_path / "a"
    header = 8 + struct.unpack("<Q", data[:8])[0]
    refusals = []
    for turn in range(300):
        damaged = bytearray(data)
        if turn % 3 == 0:
            damaged = damaged[: rng.integers(0, len(data))]
        for _ in range(turn % 4 if damaged else 0):
            damaged[rng.integers(0, min(header, len(damaged)))] ^= 1 << rng.integers(0, 8)
        path.write_bytes(damaged)
        try:
            load(path)
        except Mismatch as error:
            refusals.append(str(error))
    assert len(refusals) > 200
    assert all(str(path) in refusal for refusal in refusals)


def test_a_damaged_atlas_is_refused_when_the_index_is_opened(tmp_path: Path, model: Path, images: Path) -> None:
    index = tmp_path / "index"
    build(model, images / "train", index)
    data = bytes_of(index)
    flipped = bytearray(data)
    flipped[-1] ^= 1
    (artifact.current(index) / artifact.ATLAS).write_bytes(flipped)
    for contents in (False, True):
        with pytest.raises(Mismatch, match=r"atlas\.safetensors is not the file that manifest\.json describes"):
            open_index(index, contents=contents)
    plant(index, artifact.ATLAS, data[:-4])
    with pytest.raises(Mismatch, match=r"atlas\.safetensors is not an atlas of units, or a damaged one"):
        open_index(index)
    plant(index, artifact.ATLAS, data)
    assert open_index(index).atlas
