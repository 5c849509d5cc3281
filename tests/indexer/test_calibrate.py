"""`indexer.calibrate` on photographs: which are queries, what becomes part of the index, and what a change of it leaves."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer import add, build, calibrate, compact, remove
from indexer.calibrate import CalibrateSettings
from indexer.index import open_index
from indexer.search.calibration import scale_of
from indexer.storage import artifact
from indexer.storage import calibration as stored
from tests.indexer.test_damaged_files import plant, sign
from training.errors import Mismatch, NotFound, NotReady


@pytest.fixture(scope="module")
def calibrated(index: Path, model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of 24 photographs, calibrated with 9; do not write to it."""
    folder = tmp_path_factory.mktemp("calibrated") / "index"
    shutil.copytree(index, folder, symlinks=True)
    calibrate.main(CalibrateSettings(model=model, data=images, index=folder))
    return folder


@pytest.fixture
def copied(calibrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(calibrated, tmp_path / "copy", symlinks=True))


def test_the_calibration_is_part_of_the_next_version(calibrated: Path, images: Path) -> None:
    store = open_index(calibrated)
    record = stored.read(store)
    halves = [int(hashlib.sha256(path.read_bytes()).hexdigest()[:8], 16) % 2 for path in (images / "test").rglob("*.jpg")]
    assert record.queries == (halves.count(0), halves.count(1))
    assert (store.version_number, record.index_version, record.items, record.next_id, record.unknown) == (2, 1, 24, 24, 0)
    assert [one.measure for one in record.distances] == ["euclidean", "hamming"]
    assert [one.pairs for one in record.distances[0].measurements] == ["first 10", "first 50", "all items"]
    vectors_ND = store.vectors(store.ids().tolist()).astype(np.float64)
    apart = np.sqrt(np.square(vectors_ND[:, None] - vectors_ND).sum(2))[np.triu_indices(24, 1)]
    np.testing.assert_allclose(record.distances[0].random, np.sort(apart), rtol=1e-3, atol=1e-3)
    assert (store.folder / artifact.RELIABILITY).read_bytes().startswith(b"\x89PNG")
    store.close()


def test_the_bar_counts_every_photograph(
    index: Path, model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(index, tmp_path / "index", symlinks=True))
    calibrate.main(CalibrateSettings(model=model, data=images, index=folder))
    assert "FC7 features of queries: 100%" in capsys.readouterr().err
    add.main(add.AddSettings(model=model, data=images, part="test", index=folder))
    assert "FC7 features: 100%" in capsys.readouterr().err


def test_indexed_photographs_and_those_that_were_trained_on_are_no_queries(
    index: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(index, tmp_path / "index", symlinks=True))
    with pytest.raises(NotReady, match=r"^0 photographs below .* 0 in one half and 0 in the other"):
        calibrate.main(CalibrateSettings(model=model, data=images, index=folder, part="train"))
    own = Path(shutil.copytree(model, tmp_path / "model"))
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (images / "test").rglob("*.jpg")]
    (own / "train.sha256").write_text("".join(f"{sha256}  x.jpg\n" for sha256 in hashes))
    with pytest.raises(NotReady, match="neither indexed nor trained on"):
        calibrate.main(CalibrateSettings(model=own, data=images, index=folder))
    assert open_index(folder).version_number == 1


def test_changes_of_the_index_take_the_calibration_over(copied: Path, model: Path, images: Path) -> None:
    before = (artifact.current(copied) / artifact.CALIBRATION).stat().st_ino
    remove.main(remove.RemoveSettings(index=copied, ids=[3]))
    add.main(add.AddSettings(model=model, data=images, part="test", index=copied))
    compact.main(compact.CompactSettings(index=copied))
    store = open_index(copied)
    assert (store.version_number, len(store)) == (5, 32)
    assert (store.folder / artifact.CALIBRATION).stat().st_ino == before
    assert stored.read(store).index_version == 1
    assert len(scale_of(store, "exact").sample_S) == len(scale_of(store, "code").sample_S) == 23
    store.close()


def test_an_index_of_another_layer_is_asked_with_that_layers_features(model: Path, images: Path, tmp_path: Path) -> None:
    settings = {"model": model, "data": images, "index": tmp_path / "index", "part": "train", "bits": 0, "layer": "fc6"}
    build.main(build.BuildSettings.model_validate(settings))
    calibrate.main(CalibrateSettings(model=model, data=images, index=tmp_path / "index"))
    store = open_index(tmp_path / "index")
    assert (store.manifest.layer, sum(stored.read(store).queries)) == ("fc6", 9)
    store.close()


def test_where_half_of_the_sample_is_gone_nothing_is_told(copied: Path) -> None:
    remove.main(remove.RemoveSettings(index=copied, ids=list(range(13))))
    store = open_index(copied)
    for _ in range(2):  # the reason is kept
        with pytest.raises(NotReady, match=r"13 of the 24 photographs .*indexer\.calibrate"):
            scale_of(store, "exact")
    store.close()


def test_an_index_without_calibration_says_what_makes_one(index: Path) -> None:
    store = open_index(index)
    with pytest.raises(NotFound, match=r"python -m indexer\.calibrate"):
        scale_of(store, "exact")
    store.close()


def test_an_index_that_was_built_anew_meanwhile_is_left_alone(
    copied: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = calibrate.measure

    def and_another_build(*arguments: object) -> object:
        record = measure(*arguments)  # type: ignore[arg-type]
        sign(copied, fingerprint="another")
        return record

    monkeypatch.setattr(calibrate, "measure", and_another_build)
    with pytest.raises(Mismatch, match="built anew meanwhile"):
        calibrate.main(CalibrateSettings(model=model, data=images, index=copied))
    assert artifact.current(copied).name == "2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "another"}, r"calibration\.json is of the model another, the index of"),
        ({"format": 2}, "format Input should be 1"),
        ({"sample": []}, "sample List should have at least 1"),
        ({"sample": [-1]}, r"sample\.0 Input should be greater"),
        ({"queries": [1]}, "queries"),
        ({"other": 1}, "other Extra inputs"),
        ({"distances": []}, "distances List should have at least 1"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(copied: Path, change: dict[str, object], message: str) -> None:
    content = json.loads((artifact.current(copied) / artifact.CALIBRATION).read_text())
    plant(copied, artifact.CALIBRATION, json.dumps({**content, **change}).encode())
    store = open_index(copied)
    with pytest.raises(Mismatch, match=message):
        stored.read(store)
    store.close()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("random", [2.0, 1.0], "distances and steps that rise"),
        ("steps", [0.0], "as many steps as chances"),
        ("measure", "taxicab", "measure"),
        ("random", [], "random List should have at least 1"),
        ("random", [float("nan")], "random"),
        ("measurements", [{}], "measurements"),
    ],
)
def test_distances_out_of_order_are_refused(copied: Path, field: str, value: object, message: str) -> None:
    content = json.loads((artifact.current(copied) / artifact.CALIBRATION).read_text())
    content["distances"][0][field] = value
    plant(copied, artifact.CALIBRATION, json.dumps(content).encode())
    store = open_index(copied)
    with pytest.raises(Mismatch, match=message):
        stored.read(store)
    store.close()


def test_whatever_bytes_are_planted_it_is_a_calibration_or_refused(copied: Path) -> None:
    rng = np.random.default_rng(4)
    path = artifact.current(copied) / artifact.CALIBRATION
    whole = path.read_bytes()
    store = open_index(copied)
    refused = 0
    for _ in range(300):
        start, cut = int(rng.integers(len(whole))), int(rng.integers(1, 9))
        path.write_bytes(whole[:start] + rng.bytes(int(rng.integers(0, 9))) + whole[start + cut :])
        try:
            stored.read(store)
        except Mismatch:
            refused += 1
    assert refused > 200
    for data in (b"", b"[]", b"null", whole[:-100], b"\xff" * 100, b"[" * 100_000):
        path.write_bytes(data)
        with pytest.raises(Mismatch, match="damaged"):
            stored.read(store)
    path.unlink()
    with pytest.raises(Mismatch, match="is not there"):
        stored.read(store)
    store.close()


def test_a_flipped_bit_of_a_calibration_is_found_when_the_index_is_opened(copied: Path) -> None:
    path = artifact.current(copied) / artifact.CALIBRATION
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
    for contents in (True, False):
        with pytest.raises(Mismatch, match=r"calibration\.json is not the file"):
            open_index(copied, contents=contents)
