"""`indexer.add`, `indexer.remove` and `indexer.compact` on photographs."""

import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from indexer.add import AddSettings
from indexer.add import main as add
from indexer.build import BuildSettings
from indexer.build import main as build
from indexer.compact import CompactSettings
from indexer.compact import main as compact
from indexer.index import open_index
from indexer.remove import RemoveSettings
from indexer.remove import main as remove
from indexer.storage import artifact
from indexer.storage.draft import Draft
from indexer.store import Query
from tests.conftest import SmallConfig
from training import checkpoint, files
from training.errors import BadSettings, BadValue, Busy, FC7Error, Mismatch, NotFound
from training.files import exclusively
from training.network.alexnet import AlexNet
from training.program import parse


@pytest.fixture
def copied(index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index, tmp_path / "copy", symlinks=True))


def test_photographs_are_added_found_removed_and_taken_out(
    copied: Path, model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = tmp_path / "more"
    shutil.copytree(images / "test", more)
    (more / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    shutil.copy(images / "train" / "red" / "000.jpg", more / "red" / "known.jpg")
    add(AddSettings(model=model, data=more, index=copied))
    out = capsys.readouterr().out
    assert "rejected red/broken.jpg" in out
    assert "9 photographs added, 1 there already, 1 rejected" in out
    grown = open_index(copied)
    assert (len(grown), grown.manifest.rejected, artifact.rejects(grown)[0].path) == (33, 1, "red/broken.jpg")
    for item in grown.items(range(24, 33)):
        assert grown.original(item) == more / item.path
        assert grown.search(grown.vectors([item.id]), Query(k=1)).of(0)[0][:2] == (item.id, 0.0)
    add(AddSettings(model=model, data=more, index=copied))
    assert "0 photographs added, 10 there already" in capsys.readouterr().out
    remove(RemoveSettings(index=copied, data=images / "test" / "red"))
    remove(RemoveSettings(index=copied, ids=[0, 1]))
    assert "2 items removed: version 4 holds 28" in capsys.readouterr().out
    compact(CompactSettings(index=copied))
    assert "5 removed items taken out and 2 segments made one" in capsys.readouterr().out
    left = open_index(copied)
    assert left.ids().tolist() == [i for i in range(33) if i not in (0, 1, 30, 31, 32)]
    assert [item.label for item in left.items([24, 27])] == ["blue", "green"]


def test_an_added_photograph_has_the_feature_and_code_that_building_gives_it(copied: Path, model: Path, images: Path) -> None:
    store = open_index(copied)
    original = store.items([10])[0]
    vector, code = store.vectors([10]), store.codes([10])
    store.remove([10])
    add(AddSettings(model=model, data=images, index=copied, part="train"))
    again = open_index(copied)
    [new] = again.holding([original.sha256]).values()
    assert new == 24
    assert abs(again.vectors([new]) - vector).max() < 1e-4
    assert (again.codes([new]) == code).mean() == 1


def test_another_model_is_refused_and_nothing_is_added(copied: Path, images: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "other", AlexNet(SmallConfig(classes=3)), ["a", "b", "c"], torch.zeros(3, 256, 256))
    with pytest.raises(Mismatch, match="was made with the model"):
        add(AddSettings(model=tmp_path / "other", data=images, index=copied))
    assert len(open_index(copied)) == 24


def test_one_writer_at_a_time(copied: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE_S", 0.0)
    with exclusively(copied):
        with pytest.raises(Busy, match="another process is writing"):
            add(AddSettings(model=model, data=images, index=copied))
        with pytest.raises(Busy, match="another process is writing"):
            remove(RemoveSettings(index=copied, ids=[1]))
        with pytest.raises(Busy, match="another process is writing"):
            compact(CompactSettings(index=copied))


def test_an_interrupted_addition_changes_nothing(
    copied: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **facts: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Draft, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add(AddSettings(model=model, data=images, index=copied, part="test"))
    monkeypatch.undo()
    assert len(open_index(copied)) == 24
    add(AddSettings(model=model, data=images, index=copied, part="test"))
    assert len(open_index(copied)) == 33


def test_what_cannot_be_removed_is_named_and_nothing_is(copied: Path, images: Path) -> None:
    with pytest.raises(NotFound, match="no item has the id 99"):
        remove(RemoveSettings(index=copied, ids=[1, 99]))
    with pytest.raises(NotFound, match=r"none of the 9 files below .* is an item of the index"):
        remove(RemoveSettings(index=copied, data=images / "test"))
    with pytest.raises(BadSettings, match="give ids or data"):
        parse(RemoveSettings, [])
    with pytest.raises(BadValue, match="ids"):
        parse(RemoveSettings, ["--ids", "x"])
    assert len(open_index(copied)) == 24


def test_an_index_without_items_cannot_be_compacted(copied: Path) -> None:
    remove(RemoveSettings(index=copied, ids=list(range(24))))
    with pytest.raises(FC7Error, match=r"every item of .* has been removed"):
        compact(CompactSettings(index=copied))


def test_what_lies_in_a_tar_is_removed_by_its_bytes_too(copied: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "red.tar", "w") as tar:
        tar.add(images / "train" / "red", "red")
    remove(RemoveSettings(index=copied, data=tmp_path / "shards"))
    left = open_index(copied)
    assert {item.label for item in left.items(left.ids().tolist())} == {"blue", "green"}


def test_an_index_below_the_photographs_is_refused_before_it_would_index_its_own_files(
    copied: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(images / "test", tmp_path / "data"))
    with pytest.raises(BadValue, match="index must be a folder outside data="):
        build(BuildSettings(model=model, data=data, index=data / "index"))
    assert not (data / "index").exists()
    inside = Path(shutil.copytree(copied, data / "index", symlinks=True))
    with pytest.raises(BadValue, match="index must be a folder outside data="):
        add(AddSettings(model=model, data=data, index=inside))
