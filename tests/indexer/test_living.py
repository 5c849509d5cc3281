"""An index over its life: uploads, moves, rebuilds, copies of a file, removals, and files that change behind its back."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.add import AddSettings
from indexer.add import main as add
from indexer.build import BuildSettings
from indexer.build import main as build
from indexer.evaluate import EvaluateSettings
from indexer.evaluate import main as evaluate
from indexer.features import feature_block
from indexer.index import Index, open_index
from indexer.remove import RemoveSettings
from indexer.remove import main as remove
from indexer.storage import artifact
from indexer.storage.originals import SourceFolders
from indexer.store import MODES, Item, Query
from tests.conftest import encoded, photograph, write_photographs
from training import checkpoint
from training.errors import FC7Error, Gone, Mismatch, NotFound, NotReady
from training.files import exclusively
from training.images.folders import Example, read_photographs
from training.images.preprocess import ImageLimits


@pytest.fixture
def copied(index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index, tmp_path / "copy", symlinks=True))


def upload(index: Path, model: Path, data: bytes, label: str = "") -> int:
    """Puts a photograph where the service puts what was sent, and adds it: its id."""
    folder = index / "uploads"
    folder.mkdir(exist_ok=True)
    name = f"{hashlib.sha256(data).hexdigest()}.jpeg"
    (folder / name).write_bytes(data)
    reads = read_photographs(folder, [Example(name, label)], ImageLimits())
    _, [item] = open_index(index).add([feature_block(checkpoint.load(model), reads, False)], folder)
    return item


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_uploads_move_with_the_index(copied: Path, model: Path, tmp_path: Path) -> None:
    data = encoded(photograph(71))
    item = upload(copied, model, data)
    moved = copied.rename(tmp_path / "moved")
    store = open_index(moved)
    original = store.original(store.items([item])[0])
    assert isinstance(original, Path)
    assert original.read_bytes() == data
    assert original.parent == (moved / "uploads").resolve()
    remove(RemoveSettings(index=moved, ids=[item]))
    assert files_of(moved / "uploads") == []


def test_a_build_into_an_index_keeps_its_uploads(copied: Path, model: Path, images: Path) -> None:
    first, second = encoded(photograph(72)), encoded(photograph(73))
    upload(copied, model, first, "red")
    upload(copied, model, second)
    remove(RemoveSettings(index=copied, ids=[3]))
    build(BuildSettings(model=model, data=images, index=copied, part="train"))
    store = open_index(copied)
    assert store.ids().tolist() == list(range(26))
    items = store.items([24, 25])
    assert [item.label for item in items] == ["red", ""]
    for item, data in zip(items, (first, second), strict=True):
        original = store.original(item)
        assert isinstance(original, Path)
        assert original.read_bytes() == data
        assert store.search(store.vectors([item.id]), Query(k=1)).of(0)[0][:2] == (item.id, 0.0)
    remove(RemoveSettings(index=copied, ids=[24]))
    assert files_of(copied / "uploads") == [items[1].path]


def test_uploads_whose_version_cannot_be_read_stop_a_build(copied: Path, model: Path, images: Path) -> None:
    upload(copied, model, encoded(photograph(74)))
    (artifact.current(copied) / "manifest.json").write_text("{}")
    with pytest.raises(NotReady, match="holds 1 uploaded photographs"):
        build(BuildSettings(model=model, data=images, index=copied, part="train"))
    assert len(files_of(copied / "uploads")) == 1


def test_of_equal_files_one_is_an_item_and_removal_leaves_nothing_of_it(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = tmp_path / "data", tmp_path / "index"
    shutil.copytree(images / "train", data)
    shutil.copy(data / "blue" / "000.jpg", data / "red" / "again.jpg")
    build(BuildSettings(model=model, data=data, index=folder))
    assert "rejected red/again.jpg: is a copy of blue/000.jpg, which is indexed" in capsys.readouterr().out
    store = open_index(folder)
    assert (len(store), store.manifest.rejected) == (24, 1)
    vector = store.vectors([0])
    (tmp_path / "gone").mkdir()
    shutil.copy(data / "red" / "again.jpg", tmp_path / "gone" / "x.jpg")
    remove(RemoveSettings(index=folder, data=tmp_path / "gone"))
    left = open_index(folder)
    assert len(left) == 23
    sha256 = hashlib.sha256((data / "red" / "again.jpg").read_bytes()).hexdigest()
    assert left.holding([sha256]) == {}
    for mode in ("exact", "code", "two-stage"):
        assert 0 not in left.search(vector, Query(k=24, mode=mode)).ids_QK
    assert left.search(vector, Query(k=1)).of(0)[0][1] > 0


def test_an_upload_that_a_build_found_to_be_a_copy_goes_with_its_item(
    copied: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    data = encoded(photograph(75))
    upload(copied, model, data)
    folder = Path(shutil.copytree(images / "train", tmp_path / "data"))
    (folder / "red" / "again.jpg").write_bytes(data)
    build(BuildSettings(model=model, data=folder, index=copied))
    store = open_index(copied)
    assert (len(store), store.manifest.rejected) == (25, 1)
    remove(RemoveSettings(index=copied, ids=list(store.holding([hashlib.sha256(data).hexdigest()]).values())))
    assert files_of(copied / "uploads") == []
    assert (folder / "red" / "again.jpg").read_bytes() == data


def test_a_file_that_cannot_be_read_does_not_stop_a_removal(
    copied: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(images / "train" / "red", tmp_path / "data"))
    read = Path.open

    def refused(path: Path, *args: object, **options: object) -> object:
        if path.name == "003.jpg":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refused)  # a mode of 000 stops no root
    remove(RemoveSettings(index=copied, data=data))
    out = capsys.readouterr().out
    assert "1 of 8 files cannot be read" in out
    assert "003.jpg" in out
    assert "7 items removed" in out
    store = open_index(copied)
    assert [item.path for item in store.items(store.ids().tolist()) if item.label == "red"] == ["train/red/003.jpg"]


def test_an_emptied_index_answers_with_nothing_and_takes_photographs_again(copied: Path, model: Path, images: Path) -> None:
    vector = open_index(copied).vectors([0])
    remove(RemoveSettings(index=copied, ids=list(range(24))))
    empty = open_index(copied)
    assert (len(empty), empty.ids().tolist()) == (0, [])
    assert empty.vectors([]).shape == (0, empty.width)
    assert empty.codes([]).shape == (0, empty.bits // 8)
    assert empty.items([]) == []
    for mode in MODES:
        hits = empty.search(vector, Query(k=5, mode=mode, radius=2 if mode == "ball" else None))
        assert hits.of(0) == []
    assert empty.search(np.empty((0, empty.width), np.float32), Query(k=5)).ids_QK.shape[0] == 0
    with pytest.raises(NotReady, match="holds no items; there is nothing to compare queries with"):
        evaluate(EvaluateSettings(model=model, data=images, index=copied))
    with pytest.raises(NotFound, match="none of the 33 files below"):
        remove(RemoveSettings(index=copied, data=images))
    add(AddSettings(model=model, data=images, index=copied, part="test"))
    grown = open_index(copied)
    assert grown.ids().tolist() == list(range(24, 33))
    assert grown.search(grown.vectors([30]), Query(k=1)).of(0)[0][:2] == (30, 0.0)


def test_the_same_bad_file_is_one_reject_however_often_it_is_added(copied: Path, model: Path, tmp_path: Path) -> None:
    data = tmp_path / "more"
    data.mkdir()
    (data / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    for seed in (81, 82, 83):
        (data / f"{seed}.jpg").write_bytes(encoded(photograph(seed)))
        add(AddSettings(model=model, data=data, index=copied))
    store = open_index(copied)
    assert (len(store), store.manifest.rejected) == (27, 1)
    assert [reject.path for reject in artifact.rejects(store)] == ["bad.jpg"]
    (data / "bad.jpg").write_bytes(encoded(photograph(84)))
    add(AddSettings(model=model, data=data, index=copied))
    mended = open_index(copied)
    assert (len(mended), mended.manifest.rejected, artifact.rejects(mended)) == (28, 0, [])


def test_an_addition_of_bad_files_alone_records_them_once(
    copied: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "more"
    (data / "red").mkdir(parents=True)
    (data / "red" / "bad\u202e.jpg").write_bytes(b"\xff\xd8\xff nothing")
    for number in range(3):
        add(AddSettings(model=model, data=data if number < 2 else data / "red", index=copied))  # the same file by another folder
        assert "0 photographs added, 0 there already, 1 rejected" in capsys.readouterr().out
        store = open_index(copied)
        assert (len(store), store.manifest.rejected, store.version_number) == (24, 1, 2 if number < 2 else 3)
        [reject] = artifact.rejects(store)
        assert reject.path.endswith(r"bad\u202e.jpg")
    (data / "red" / "bad\u202e.jpg").write_bytes(encoded(photograph(85)))
    add(AddSettings(model=model, data=data, index=copied))
    mended = open_index(copied)
    assert (len(mended), mended.manifest.rejected, artifact.rejects(mended)) == (25, 0, [])


def test_a_bad_file_that_becomes_a_copy_of_an_item_is_no_reject_any_more(
    copied: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    data = tmp_path / "more"
    data.mkdir()
    (data / "bad.jpg").write_bytes(b"nothing")
    add(AddSettings(model=model, data=data, index=copied))
    assert open_index(copied).manifest.rejected == 1
    shutil.copy(images / "train" / "red" / "000.jpg", data / "bad.jpg")
    add(AddSettings(model=model, data=data, index=copied))
    store = open_index(copied)
    assert (len(store), store.manifest.rejected, artifact.rejects(store)) == (24, 0, [])


def test_no_reject_is_a_copy_of_what_has_been_removed(model: Path, images: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "index"
    shutil.copytree(images / "train" / "red", data / "red")
    shutil.copy(data / "red" / "000.jpg", data / "red" / "again.jpg")
    shutil.copy(data / "red" / "001.jpg", data / "red" / "one more.jpg")
    (data / "bad.jpg").write_bytes(b"nothing")
    build(BuildSettings(model=model, data=data, index=folder, bits=0))
    store = open_index(folder)
    assert [reject.path for reject in artifact.rejects(store)] == ["bad.jpg", "red/again.jpg", "red/one more.jpg"]
    remove(RemoveSettings(index=folder, ids=[0, 5]))
    left = open_index(folder)
    assert [reject.path for reject in artifact.rejects(left)] == ["bad.jpg", "red/one more.jpg"]
    assert (len(left), left.manifest.rejected) == (6, 2)


def test_an_upload_that_no_item_names_is_swept_and_nothing_else_is(copied: Path, model: Path) -> None:
    item = upload(copied, model, encoded(photograph(91)))
    uploads = copied / "uploads"
    name = open_index(copied).items([item])[0].path
    (uploads / f"{'0' * 64}.jpeg").write_bytes(b"left by a process that was killed")
    (uploads / f".{'1' * 64}.png.0a1b2c3d.partial").write_bytes(b"half")
    others = ["README.txt", f"{'2' * 63}.jpeg", f"{'3' * 64}.jpeg.bak", "photograph.jpeg"]
    for other in others:
        (uploads / other).write_text("somebody's own")
    remove(RemoveSettings(index=copied, ids=[0]))
    assert files_of(uploads) == sorted([name, *others])


def test_an_uploads_folder_that_is_a_link_is_not_swept(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / f"{'0' * 64}.jpeg").write_bytes(b"of another index")
    (copied / "uploads").symlink_to(tmp_path / "elsewhere")
    remove(RemoveSettings(index=copied, ids=[0]))
    assert len(files_of(tmp_path / "elsewhere")) == 1


def assert_outside(store: Index, item: Item) -> None:
    with pytest.raises(NotFound, match="leads out of the folders that the index was made from"):
        store.original(item)


def test_a_catalogue_leads_to_no_file_outside_the_sources_and_the_uploads(copied: Path, tmp_path: Path) -> None:
    store = open_index(copied)
    item = store.items([0])[0]
    assert store.original(item) is not None
    passwd = Path("/etc/passwd").read_bytes()
    host = replace(item, root="/etc", path="passwd", size=len(passwd), sha256=hashlib.sha256(passwd).hexdigest())
    assert_outside(store, host)
    data = b"a secret"
    sha256 = hashlib.sha256(data).hexdigest()
    secret = replace(item, size=len(data), sha256=sha256)
    (copied / "uploads").mkdir()
    (copied / "secret").write_bytes(data)
    (tmp_path / "secret").write_bytes(data)
    (copied / "uploads" / "secret").write_bytes(data)
    (copied / "uploads" / f"{sha256}.jpeg").symlink_to(tmp_path / "secret")
    paths = ["../secret", "../../secret", str(tmp_path / "secret"), "secret", "./secret", f"{sha256}.jpeg", "", "a\0b"]
    for path in paths:
        assert_outside(store, replace(secret, root="uploads", path=path))
    up = os.path.relpath(tmp_path / "secret", item.root)
    assert (Path(item.root) / up).read_bytes() == data
    assert_outside(store, replace(secret, path=up))


def test_removing_an_item_deletes_no_file_that_is_not_an_upload(copied: Path, images: Path) -> None:
    remove(RemoveSettings(index=copied, ids=[0, 1]))
    assert len(files_of(images / "train" / "blue")) == 8


@pytest.mark.parametrize("keeps_its_size", [True, False])
def test_a_file_that_has_become_another_is_not_given(model: Path, images: Path, tmp_path: Path, keeps_its_size: bool) -> None:
    data, folder = tmp_path / "data", tmp_path / "index"
    shutil.copytree(images / "train", data)
    build(BuildSettings(model=model, data=data, index=folder))
    store = open_index(folder)
    [item] = store.items([0])
    assert store.original(item) == data / item.path
    before = (data / item.path).read_bytes()
    (data / item.path).write_bytes(b"x" * len(before) if keeps_its_size else b"text")
    with pytest.raises(Gone, match="the file of item 0, has become another since it was indexed"):
        store.original(item)
    (data / item.path).unlink()
    with pytest.raises(NotFound, match="the file of item 0, is gone"):
        store.original(item)
    (data / item.path).write_bytes(before)
    assert store.original(item) == data / item.path


@pytest.mark.parametrize("name", [".lock", ".turn"])
def test_a_lock_that_is_a_link_is_refused_and_its_target_stays(copied: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.write_text("somebody's own")
    (copied / name).unlink(missing_ok=True)
    (copied / name).symlink_to(target)
    with pytest.raises(Mismatch, match="is not a file of ours"), exclusively(copied):
        raise AssertionError
    with pytest.raises(Mismatch, match="is not a file of ours"):
        remove(RemoveSettings(index=copied, ids=[0]))
    assert target.read_text() == "somebody's own"
    assert len(open_index(copied)) == 24


def annex(root: Path, objects: Path, seed: int = 0) -> None:
    """A folder as git-annex keeps it: each photograph a link to a file in a folder of its own, named by its hash."""
    write_photographs(root, 2, seed)
    for file in sorted(root.rglob("*.jpg")):
        key = f"SHA256E-s{file.stat().st_size}--{hashlib.sha256(file.read_bytes()).hexdigest()}.jpg"
        place = objects / key[-9:-7] / key[-7:-5] / key
        place.mkdir(parents=True)
        file.rename(place / key)
        file.symlink_to(os.path.relpath(place / key, file.parent))


def hub(root: Path, seed: int = 0) -> Path:
    """A model hub's cache of one data set: the snapshot, whose files are links to blobs beside the snapshots."""
    snapshot, blobs = root / "snapshots" / "0a1b", root / "blobs"
    write_photographs(snapshot / "data", 2, seed)
    blobs.mkdir()
    for file in sorted(snapshot.rglob("*.jpg")):
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        file.symlink_to(os.path.relpath(blob, file.parent))
    return snapshot


@pytest.mark.parametrize("kind", ["annex within", "annex elsewhere", "hub", "folders", "tar"])
def test_photographs_that_links_lead_to_are_given(
    model: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder, elsewhere = tmp_path / "data", tmp_path / "index", tmp_path / "elsewhere"
    linked = [str(elsewhere)]
    match kind:
        case "annex within":
            annex(data, data / ".git" / "annex" / "objects")
            linked = []
        case "annex elsewhere":
            annex(data, elsewhere)
            linked = sorted({str(file.resolve().parent) for file in data.rglob("*.jpg")})
        case "hub":
            data = hub(tmp_path / "hub")
            linked = [str(tmp_path / "hub" / "blobs")]
        case "folders":
            write_photographs(elsewhere, 2)
            data.mkdir()
            for name in ("blue", "green", "red"):
                (data / name).symlink_to(elsewhere / name)
            linked = [str(elsewhere / name) for name in ("blue", "green", "red")]
        case "tar":
            write_photographs(tmp_path / "loose", 2)
            data.mkdir()
            elsewhere.mkdir()
            shutil.make_archive(str(elsewhere / "some"), "tar", tmp_path / "loose")
            (data / "link.tar").symlink_to(elsewhere / "some.tar")
    build(BuildSettings(model=model, data=data, index=folder, bits=0))
    store = open_index(folder)
    assert sorted(store.manifest.linked) == linked
    assert capsys.readouterr().out.count("links lead to photographs in ") == len(linked)
    for item in store.items(range(6)):
        original = store.original(item)
        content = original if isinstance(original, bytes) else original.read_bytes()
        assert hashlib.sha256(content).hexdigest() == item.sha256


def test_added_photographs_that_links_lead_to_are_given(
    copied: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = hub(tmp_path / "hub", seed=40)
    add(AddSettings(model=model, data=snapshot, index=copied))
    store = open_index(copied)
    assert store.manifest.linked == [str(tmp_path / "hub" / "blobs")]
    for item in store.items(range(24, 30)):
        assert store.original(item) == (snapshot / item.path).resolve()
    assert f"links lead to photographs in {tmp_path / 'hub' / 'blobs'}" in capsys.readouterr().out
    annex(tmp_path / "more", tmp_path / "objects", seed=50)
    add(AddSettings(model=model, data=tmp_path / "more", index=copied))
    out = capsys.readouterr().out
    assert out.count("links lead to photographs in ") == out.count(str(tmp_path / "objects")) == 6
    assert len(open_index(copied).manifest.linked) == 7


def test_a_link_that_leads_elsewhere_than_when_it_was_indexed_is_not_followed(model: Path, tmp_path: Path) -> None:
    snapshot, folder = hub(tmp_path / "hub"), tmp_path / "index"
    build(BuildSettings(model=model, data=snapshot, index=folder, bits=0))
    store = open_index(folder)
    item, other = store.items([0, 1])
    link = snapshot / item.path
    before = link.readlink()

    def lead_to(target: Path) -> None:
        link.unlink()
        link.symlink_to(target)

    data = link.read_bytes()
    secret = tmp_path / "secret"
    secret.write_bytes(data)  # the same bytes, where nobody said that they may be read
    lead_to(secret)
    assert_outside(store, item)
    lead_to(Path("/etc/passwd"))
    assert_outside(store, item)
    (tmp_path / "hub" / "blobs2").mkdir()  # no folder of the manifest's, though its name begins with one
    (tmp_path / "hub" / "blobs2" / "x").write_bytes(data)
    lead_to(tmp_path / "hub" / "blobs2" / "x")
    assert_outside(store, item)
    lead_to((snapshot / other.path).resolve())
    with pytest.raises(Gone, match="has become another"):
        store.original(item)
    lead_to(tmp_path / "nowhere")
    with pytest.raises(NotFound, match="is gone"):
        store.original(item)
    lead_to(link)
    with pytest.raises(NotFound, match="is gone"):
        store.original(item)
    lead_to(before)
    assert store.original(item) == link.resolve()
    passwd = Path("/etc/passwd").read_bytes()
    host = replace(item, root="/etc", path="passwd", size=len(passwd), sha256=hashlib.sha256(passwd).hexdigest())
    assert_outside(store, host)


def test_a_source_that_moves_and_leaves_a_link_is_followed(model: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "index"
    write_photographs(data, 2)
    build(BuildSettings(model=model, data=data, index=folder, bits=0))
    data.rename(tmp_path / "moved")
    data.symlink_to(tmp_path / "moved")
    store = open_index(folder)
    [item] = store.items([3])
    assert store.original(item) == tmp_path / "moved" / item.path


def test_of_many_folders_that_links_lead_to_the_deepest_give_way_to_those_above_them(tmp_path: Path) -> None:
    root = tmp_path.resolve() / "data"
    root.mkdir()
    targets = [Path("/annex/objects", f"{i % 7:02d}", f"{i % 31:02d}", str(i), "1.jpg") for i in range(300)]
    targets += [Path("/pictures", str(i), "1.jpg") for i in range(40)]
    for number, target in enumerate(targets):
        (root / f"{number}.jpg").symlink_to(target)
    places = SourceFolders()
    places.take(str(root), [f"{number}.jpg" for number in range(len(targets))])
    assert places.sources == [str(root)]
    assert len(places.linked) <= 100
    for target in targets:
        assert any(target.is_relative_to(folder) for folder in places.linked)
    assert {Path(folder).parts[1] for folder in places.linked} == {"annex", "pictures"}
    assert {f"/pictures/{i}" for i in range(40)} <= set(places.linked)


def test_links_never_open_the_whole_disk(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").symlink_to("/1.jpg")
    places = SourceFolders()
    places.take(str(tmp_path), ["1.jpg"])
    assert places.linked == ["/1.jpg"]
    for number in range(101):
        (tmp_path / f"{number}.png").symlink_to(f"/{number}/{number}.png")
    with pytest.raises(FC7Error, match="links lead to photographs in /"):
        places.take(str(tmp_path), [f"{number}.png" for number in range(101)])
    places = SourceFolders()
    (tmp_path / "2.jpg").symlink_to(os.fsdecode(b"/pictures/of \xe9/2.jpg"))
    places.take(str(tmp_path), ["2.jpg"])
    assert places.linked == ["/pictures"]
