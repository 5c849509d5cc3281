"""Image folders: order, labels, parts, and what becomes of unreadable files; named data sets on made-up sources."""

import errno
import hashlib
import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from scipy.io import savemat

from tests.conftest import encoded, photograph, write_photographs
from training import datasets
from training.datasets import DatasetSettings
from training.errors import BadValue, FC7Error, ImageTooLarge, NotAnImage, NotReady
from training.images.folders import Example, Part, check_outside, has_parts, list_examples, read_photographs, stamp
from training.images.preprocess import ImageLimits, Photograph


def test_examples_are_ordered_and_labelled_by_their_folder(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/1.jpg", "a/deep/er/3.jpg", "loose.jpg", ".hidden/4.jpg", "a/.hidden.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [(example.path, example.label) for example in list_examples(tmp_path, "all")]
    assert found == [("a/deep/er/3.jpg", "a"), ("b/1.jpg", "b"), ("b/2.jpg", "b"), ("loose.jpg", "")]


def test_the_order_is_that_of_the_whole_paths(tmp_path: Path) -> None:
    names = ["a/1", "a.jpg", "a-b/1", "a b/2", "ab", "a/b/1", "a/b.x", "A/z", "\u00e9/1", "z/\U0001f600", "z/\uffee", "a/b/1.d/e"]
    names.append(os.fsdecode(b"z/\xe9"))
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    examples = list_examples(tmp_path, "all")
    assert [example.path for example in examples] == sorted(names)
    assert [examples[i] for i in range(-1, len(names) - 1)] == [list(examples)[-1], *list(examples)[:-1]]
    assert [e.label for e in examples] == [name.split("/")[0] if "/" in name else "" for name in sorted(names)]
    assert [e.path for e in examples[3:6]] == sorted(names)[3:6]
    assert [e.path for e in examples.take(np.array([5, 2]))] == [sorted(names)[5], sorted(names)[2]]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()

    def refuse(place: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", f"{place}/closed")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(NotReady, match=r"closed cannot be read: Permission denied; make it readable"):
        list_examples(tmp_path, "all")


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def listed(root: Path, part: Part) -> dict[str, str]:
    """Path -> class of the photographs of a part."""
    return {example.path: example.label for example in list_examples(root, part) if not example.reason}


def left_out(root: Path, part: Part = "all") -> dict[str, str]:
    """Path -> reason of what is left out."""
    return {example.path: example.reason for example in list_examples(root, part) if example.reason}


def test_an_unreadable_folder_is_left_out_and_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a/1.jpg", "closed/2.jpg", "b/deep/closed/3.jpg", "b/4.jpg")
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if folder.endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr("os.scandir", refuse)
    assert listed(tmp_path, "all") == {"a/1.jpg": "a", "b/4.jpg": "b"}
    assert left_out(tmp_path).keys() == {"b/deep/closed/", "closed/"}
    reads = read_photographs(tmp_path, list_examples(tmp_path, "all"), ImageLimits())
    reasons = {read.example.path: str(read.outcome) for read in reads}
    assert reasons["closed/"] == "cannot be read: Permission denied; make it readable, or move it out of the data set"


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir", "#recycle", "$RECYCLE.BIN", ".Trash-1000", "System Volume Information", "__MACOSX", "lost+found"),
        *("cat/@eaDir", "cat/1.jpg@x/#Recycle", "@EADIR", ".@__thumb", ".Trashes", "FOUND.000"),
    ],
)
def test_what_systems_keep_is_no_class_and_said(tmp_path: Path, name: str) -> None:
    write(tmp_path, "cat/1.jpg", f"{name}/2.jpg")
    assert listed(tmp_path, "all") == {"cat/1.jpg": "cat"}
    assert left_out(tmp_path) == {f"{name}/": "is kept by a system or a program for itself, and is left out"}


def test_files_that_systems_keep_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.jpg", "cat/Thumbs.db", "cat/desktop.ini", "#cats/2.jpg", "@home/3.jpg")
    assert listed(tmp_path, "all") == {"cat/1.jpg": "cat", "#cats/2.jpg": "#cats", "@home/3.jpg": "@home"}
    assert left_out(tmp_path).keys() == {"cat/Thumbs.db", "cat/desktop.ini"}


@pytest.mark.parametrize(
    "folders", [("bus", "car", "train"), ("bus", "Train"), ("bus", "train", "test"), ("train/x", "bus", "val")]
)
def test_train_is_a_class_among_classes(tmp_path: Path, folders: tuple[str, ...]) -> None:
    write(tmp_path, *(f"{folder}/{i}.jpg" for folder in folders for i in range(5)))
    expected = {f"{folder}/{i}.jpg": folder.partition("/")[0] for folder in folders for i in range(5)}
    assert listed(tmp_path, "all") == expected
    assert listed(tmp_path, "train") | listed(tmp_path, "test") == expected
    assert not left_out(tmp_path)


@pytest.mark.parametrize(
    ("train", "tests"),
    [
        ("train", ["test"]),
        ("Train", ["Test"]),
        ("TRAIN", ["Validation"]),
        ("train", ["valid", "test"]),
        ("train", ["val", "valid", "validation", "test"]),
        ("train", []),
    ],
)
def test_parts_go_by_their_names_in_any_case_and_what_lies_beside_is_said(tmp_path: Path, train: str, tests: list[str]) -> None:
    write(tmp_path, *(f"{part}/{name}.jpg" for part in (train, *tests) for name in ("cat/1", "dog/2")))
    training = {f"{train}/cat/1.jpg": "cat", f"{train}/dog/2.jpg": "dog"}
    testing = {f"{part}/{name}.jpg": name[:3] for part in tests for name in ("cat/1", "dog/2")}
    if tests:
        write(tmp_path, "extra/1.jpg", "loose.jpg", "@eaDir/1.jpg", ".hidden/1.jpg")
        assert listed(tmp_path, "test") == testing
        assert left_out(tmp_path, "train") == left_out(tmp_path, "test") == left_out(tmp_path)
        assert left_out(tmp_path).keys() == {"extra/", "loose.jpg", "@eaDir/"}
        assert left_out(tmp_path)["extra/"].startswith("lies beside the parts of the data set (")
    assert listed(tmp_path, "train") == training
    assert listed(tmp_path, "all") == training | testing


@pytest.mark.parametrize(
    "name",
    [
        *("Screenshot 9.41\u202fPM", "a\u00a0b", "a\u3000b", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u200fabc"),
        *(
            "\U0001f468\u200d\U0001f469\u200d\U0001f467",
            "\U0001fae9",
            "\u202eabc",
            "\ufeffa",
            "\U000e0041",
            "a\u2028b",
            "\ue000",
            "\u0378",
        ),
    ],
)
def test_names_are_whatever_unicode_has(tmp_path: Path, name: str) -> None:
    path = f"{name}/{name}.png"
    (tmp_path / name).mkdir()
    (tmp_path / path).write_bytes(encoded(photograph(1), "PNG"))
    (read,) = read_photographs(tmp_path, list_examples(tmp_path, "all"), ImageLimits())
    assert isinstance(read.outcome, Photograph)
    assert (read.example.path, read.example.label) == (path, name)


def test_a_shard_is_split_into_parts_as_it_would_be_unpacked(tmp_path: Path) -> None:
    layouts = [
        ["train/cat/1.jpg", "train/dog/2.jpg", "test/cat/3.jpg", "test/dog/deep/4.jpg"],
        ["train/cat/1.jpg", "valid/cat/2.jpg", "test/cat/3.jpg", "0.jpg"],
        ["Train/cat/1.jpg", "Test/cat/2.jpg", "notes/cat/3.jpg", "notes/cat/4.jpg", "0.jpg"],
        ["bus/1.jpg", "car/2.jpg", "train/3.jpg"],
        ["bus/1.jpg", "test/2.jpg", "train/3.jpg"],
        ["train/1.jpg", "train/2.jpg"],
        ["bus/1.jpg", "test/cat/2.jpg", "train/cat/3.jpg"],
        ["train/cat/1.jpg", "train/dog/2.jpg"],
        ["animals/cat/1.jpg", "plants/oak/2.jpg"],
        ["test/cat/1.jpg", "val/cat/2.jpg"],
    ]
    parts: list[Part] = ["train", "test", "all"]
    for number, layout in enumerate(layouts):
        folder, packed = tmp_path / f"{number}-folder", tmp_path / f"{number}-packed"
        write(folder, *layout)
        packed.mkdir()
        with tarfile.open(packed / "some.tar", "w") as tar:
            tar.add(folder, "")
        assert has_parts(folder) == has_parts(packed)
        for part in parts if has_parts(folder) else parts[2:]:  # without parts the bytes of a file decide, and all are alike here
            examples = [(f"some.tar/{example.path}", example.label, bool(example.reason)) for example in files(folder, part)]
            assert [(example.path, example.label, bool(example.reason)) for example in files(packed, part)] == examples


def files(root: Path, part: Part) -> list[Example]:
    try:
        return list(list_examples(root, part))
    except NotReady:
        return []


def test_parts_may_come_from_several_shards_and_folders(tmp_path: Path) -> None:
    write(tmp_path / "one", "train/cat/1.jpg", "notes/2.jpg")
    write(tmp_path / "data", "val/dog/3.jpg")
    shutil.make_archive(str(tmp_path / "data" / "some"), "tar", tmp_path / "one")
    assert listed(tmp_path / "data", "train") == {"some.tar/train/cat/1.jpg": "cat"}
    assert listed(tmp_path / "data", "test") == {"val/dog/3.jpg": "dog"}
    assert list(left_out(tmp_path / "data")) == ["some.tar/notes/"]
    assert "lies beside the parts" in left_out(tmp_path / "data")["some.tar/notes/"]


def test_control_characters_and_bytes_that_are_no_utf8_are_no_names(tmp_path: Path) -> None:
    names = ["a\nb.png", "\x1b[31m.png", "\x85.png", "\x7f.png", os.fsdecode(b"\xe9.png")]
    for name in names:
        (tmp_path / name).write_bytes(encoded(photograph(1), "PNG"))
    reads = list(read_photographs(tmp_path, list_examples(tmp_path, "all"), ImageLimits()))
    assert [str(read.outcome) for read in reads] == 5 * ["its name has control characters or bytes that are not UTF-8"]
    assert [read.example.shown for read in reads] == ["\\x1b[31m.png", "a\\nb.png", "\\x7f.png", "\\x85.png", "\\udce9.png"]


def test_what_acts_on_a_line_is_escaped_where_it_is_shown() -> None:
    for text, shown in (
        ("a\u202eb", "a\\u202eb"),
        ("a\u200db", "a\\u200db"),
        ("\U000e0041", "\\U000e0041"),
        ("a\u2028b", "a\\u2028b"),
    ):
        assert Example(text, "").shown == shown
    for text in ("Screenshot 9.41\u202fPM", "\u3000", "\U0001fae9", "\u0378", "\u00e9", "\\"):
        assert Example(text, "").shown == text


@pytest.mark.parametrize(
    ("folder", "inside"), [("index", True), ("train/index", True), (".index", False), ("../index", False), ("", True)]
)
def test_a_folder_whose_files_would_become_photographs_is_refused(tmp_path: Path, folder: str, inside: bool) -> None:
    root = tmp_path / "data"
    write(root, "cat/1.jpg", "train/1.jpg")
    if inside:
        with pytest.raises(BadValue, match="index must be a folder outside data="):
            check_outside("index", root / folder, root)
    else:
        check_outside("index", root / folder, root)


def test_beside_the_parts_of_a_data_set_other_folders_may_be(images: Path) -> None:
    check_outside("out", images / "index", images)
    with pytest.raises(BadValue, match="out must be a folder outside data="):
        check_outside("out", images / "train" / "index", images)


def test_links_that_lead_nowhere_or_to_themselves_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    assert [example.path for example in list_examples(tmp_path, "all")] == ["photo.jpg"]


def test_a_stamp_changes_with_the_files_and_only_then(tmp_path: Path) -> None:
    write_photographs(tmp_path, 2)
    examples = list_examples(tmp_path, "all")
    before = stamp(tmp_path, examples)
    assert stamp(tmp_path, list_examples(tmp_path, "all")) == before
    (tmp_path / "red/000.jpg").write_bytes(b"x")
    changed = stamp(tmp_path, examples)
    (tmp_path / "red/000.jpg").unlink()
    assert len({before, changed, stamp(tmp_path, examples), stamp(tmp_path, examples[1:])}) == 4


def test_train_and_test_folders_are_the_parts_where_they_exist(images: Path) -> None:
    assert len(list_examples(images, "train")) == 24
    tests = list_examples(images, "test")
    assert {example.label for example in tests} == {"blue", "green", "red"}
    assert all(example.path.startswith("test/") for example in tests)
    assert len(list_examples(images, "all")) == 33


def test_elsewhere_the_parts_follow_from_each_files_own_hash(tmp_path: Path) -> None:
    write_photographs(tmp_path, 30)
    tests = {example.path for example in list_examples(tmp_path, "test")}
    files = sorted(tmp_path.rglob("*.jpg"))
    expected = [p for p in files if int(hashlib.sha256(p.read_bytes()).hexdigest(), 16) % 5 == 0]
    assert tests == {path.relative_to(tmp_path).as_posix() for path in expected}
    assert 5 < len(tests) < 35
    assert tests.isdisjoint(example.path for example in list_examples(tmp_path, "train"))


def test_linked_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    write_photographs(tmp_path / "elsewhere", 2)
    root = tmp_path / "root"
    (root / "train").mkdir(parents=True)
    for name in ("first", "second"):
        (root / "train" / name).symlink_to(tmp_path / "elsewhere" / "red")
    (root / "train" / "loop").symlink_to(root)
    found = [example.path for example in list_examples(root, "train")]
    assert found == ["train/first/000.jpg", "train/first/001.jpg", "train/second/000.jpg", "train/second/001.jpg"]


def test_a_missing_or_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="no such folder"):
        list_examples(tmp_path / "nowhere", "all")
    with pytest.raises(NotReady, match="no files"):
        list_examples(tmp_path, "all")


def test_unreadable_files_are_results_in_their_place(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(encoded(photograph(1)))
    (tmp_path / "2.txt").write_text("hello")
    (tmp_path / "3.jpg").write_bytes(b"x" * 20_000)
    (tmp_path / "4.png").write_bytes(encoded(Image.new("RGB", (600, 600)), "PNG"))
    examples = list_examples(tmp_path, "all")
    (tmp_path / "5.jpg").symlink_to(tmp_path / "gone.jpg")
    limits = ImageLimits(max_image_bytes=10_000, max_image_pixels=250_000)
    reads = list(read_photographs(tmp_path, examples, limits))
    kinds = [type(read.outcome) for read in reads]
    assert kinds == [Photograph, NotAnImage, ImageTooLarge, ImageTooLarge]
    assert str(reads[2].outcome) == "image has 20000 bytes, more than max_image_bytes=10000"
    (tmp_path / "1.jpg").unlink()
    assert "No such file" in str(next(read_photographs(tmp_path, examples, limits)).outcome)


def test_groceries_lose_their_repeats_and_split_by_hash(tmp_path: Path) -> None:
    pictures = [f"photograph {i}".encode() for i in range(20)]
    rows = {"finegrained_cat": ["Kaiser"] * 40, "image_data": pictures + pictures}
    parquet.write_table(pa.table(rows), tmp_path / "table.parquet")
    items = list(datasets.grocery_items(tmp_path / "table.parquet"))
    assert [data for _, _, _, data in items] == pictures
    for part, label, name, data in items:
        digest = hashlib.sha256(data).hexdigest()
        assert label == "Kaiser"
        assert name == f"{digest[:16]}.jpg"
        assert part == ("test" if int(digest, 16) % 5 == 0 else "train")


def test_an_unknown_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        BadValue, match=r"data must be one of caltech101, cifar10, groceries, imagenet, imagenette, or a folder .* got 'mnist'"
    ):
        datasets.prepare("mnist", tmp_path / "out")


def test_a_folder_is_split_by_the_smallest_hashes_of_each_class(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for name, count in (("cat", 9), ("dog", 5)):
        (data / name / "deep").mkdir(parents=True)
        for i in range(count):
            (data / name / ("deep" if i == 4 else "") / f"{i}.jpg").write_bytes(f"{name} {i}".encode())
    (data / "dog" / "copy.jpg").write_bytes(b"cat 3")
    (data / "loose.jpg").write_bytes(b"loose")
    datasets.main(DatasetSettings(data=str(data), per_class=4, out=out))
    for name, count in (("cat", 9), ("dog", 5)):
        ranked = sorted((f"{name} {i}".encode() for i in range(count)), key=lambda data: hashlib.sha256(data).hexdigest())
        for part, expected in (("train", ranked[:4]), ("test", ranked[4:])):
            found = {p.read_bytes(): p for p in (out / part / name).rglob("*.jpg")}
            assert sorted(found) == sorted(expected)
            for path in found.values():
                assert path.samefile(data / path.relative_to(out / part))
    datasets.main(DatasetSettings(data=str(data), per_class=4, out=out))
    with pytest.raises(BadValue, match=r"out must be a new folder or a complete copy of .*data, 3 a class"):
        datasets.main(DatasetSettings(data=str(data), per_class=3, out=out))


def test_where_files_cannot_be_linked_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photographs(tmp_path / "data", 3)

    def refuse(*_args: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    datasets.split(tmp_path / "data", 2, tmp_path / "out")
    names = {p.relative_to(tmp_path / "data") for p in (tmp_path / "data").rglob("*.jpg")}
    copies = {p.relative_to(p.parents[1]): p for p in (tmp_path / "out").rglob("*.jpg")}
    assert set(copies) == names
    assert all(path.read_bytes() == (tmp_path / "data" / name).read_bytes() for name, path in copies.items())


def test_a_folder_that_cannot_be_split_as_asked_says_why(tmp_path: Path, images: Path) -> None:
    write_photographs(tmp_path / "data", 3)
    data, out = str(tmp_path / "data"), tmp_path / "out"
    (tmp_path / "data/red/000.jpg").unlink()
    with pytest.raises(NotReady, match=r"more than 2 different files .* fewer are in red \(2\)"):
        datasets.main(DatasetSettings(data=data, per_class=2, out=out))
    with pytest.raises(BadValue, match="per_class must be at least 1 to split"):
        datasets.main(DatasetSettings(data=data, out=out))
    with pytest.raises(BadValue, match=r"left out: groceries is a data set .* split as \./groceries"):
        datasets.main(DatasetSettings(per_class=2, out=out))
    with pytest.raises(BadValue, match="has a part `train` already"):
        datasets.main(DatasetSettings(data=str(images), per_class=2, out=out))
    with pytest.raises(BadValue, match="out must be a folder outside of"):
        datasets.main(DatasetSettings(data=data, per_class=1, out=tmp_path / "data" / "out"))
    with tarfile.open(tmp_path / "data/red/a.tar", "w") as tar:
        tar.add(tmp_path / "data/red/001.jpg", "1.jpg")
    with pytest.raises(NotReady, match=r"in a tar file \(red/a\.tar/1\.jpg\); extract it to split them"):
        datasets.split(tmp_path / "data", 1, out)
    assert not out.exists()


class FakeCifar10:
    """Four images in place of torchvision's download; everything after it is the real code."""

    classes = ("cat", "dog")

    def __init__(self, root: str, train: bool, download: bool) -> None:
        Path(root).mkdir(exist_ok=True)
        self.items = [(Image.new("RGB", (32, 32), (i, int(train), 0)), i % 2) for i in range(4)]

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return self.items[i]


def test_cifar10_becomes_lossless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.datasets.datasets.CIFAR10", FakeCifar10)
    datasets.prepare("cifar10", tmp_path / "out")
    assert [e.path for e in list_examples(tmp_path / "out", "test")] == [
        "test/cat/00000.png",
        "test/cat/00002.png",
        "test/dog/00001.png",
        "test/dog/00003.png",
    ]
    assert Image.open(tmp_path / "out/train/dog/00003.png").getpixel((0, 0)) == (3, 1, 0)


class FakeImagenette:
    """The folders of torchvision's extracted archive, without the download."""

    wnids = ("n01440764", "n02979186")
    classes = (("tench", "Tinca tinca"), ("cassette player",))

    def __init__(self, root: str, split: str, size: str, download: bool) -> None:
        for wnid in self.wnids:
            folder = Path(root) / "imagenette2-160" / split / wnid
            folder.mkdir(parents=True)
            (folder / f"{split}.JPEG").touch()


def test_imagenette_gets_readable_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.datasets.datasets.Imagenette", FakeImagenette)
    datasets.prepare("imagenette", tmp_path / "out")
    found = [(e.path, e.label) for e in list_examples(tmp_path / "out", "all")]
    assert found == [
        ("test/cassette player/val.JPEG", "cassette player"),
        ("test/tench/val.JPEG", "tench"),
        ("train/cassette player/train.JPEG", "cassette player"),
        ("train/tench/train.JPEG", "tench"),
    ]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".complete", "test", "train"]
    datasets.prepare("imagenette", tmp_path / "out")
    with pytest.raises(BadValue, match="a new folder or a complete copy of cifar10"):
        datasets.prepare("cifar10", tmp_path / "out")


def test_caltech101_is_extracted_without_its_background_and_its_second_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive is made here, and torchvision's way to the net replaced by it; what extracts it is torchvision's own."""
    classes = ("Faces", "Faces_easy", "BACKGROUND_Google", "yin_yang")
    photographs = {f"101_ObjectCategories/{name}/image_0001.jpg": encoded(photograph(i)) for i, name in enumerate(classes)}

    def archive(_url: str, root: str, filename: str, _md5: str) -> None:
        with zipfile.ZipFile(Path(root, filename), "w") as file:
            file.writestr("caltech-101/101_ObjectCategories.tar.gz", tar_of(photographs, "w:gz"))
            file.writestr("caltech-101/Annotations.tar", tar_of({"Annotations/Faces_2/annotation_0001.mat": b""}))

    monkeypatch.setattr("torchvision.datasets.utils.download_url", archive)
    out = tmp_path / "out"
    datasets.main(DatasetSettings(data="caltech101", out=out))
    assert sorted(path.name for path in out.iterdir()) == [".complete", "Faces", "yin_yang"]
    for name in ("Faces", "yin_yang"):
        assert (out / name / "image_0001.jpg").read_bytes() == photographs[f"101_ObjectCategories/{name}/image_0001.jpg"]
    assert [(e.path, e.label) for e in list_examples(out, "all")] == [
        ("Faces/image_0001.jpg", "Faces"),
        ("yin_yang/image_0001.jpg", "yin_yang"),
    ]
    monkeypatch.setattr("torchvision.datasets.utils.download_url", None)
    datasets.main(DatasetSettings(data="caltech101", out=out))


def test_a_failed_download_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("training.datasets.datasets.Imagenette", refuse)
    with pytest.raises(FC7Error, match="the download failed: no route to host"):
        datasets.prepare("imagenette", tmp_path / "out")
    assert not (tmp_path / "out").exists()


WNIDS = ("n01440764", "n01443537")


def tar_of(members: dict[str, bytes], mode: Literal["w", "w:gz"] = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small archives in the layout of ImageNet's, and torchvision's check for the real ones' MD5 switched off."""
    monkeypatch.setattr("torchvision.datasets.imagenet.check_integrity", lambda path, md5=None: Path(path).is_file())
    fields = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
    rows = [(1, WNIDS[0], "tench, Tinca tinca", "", 0), (2, WNIDS[1], "goldfish", "", 0), (3, "n00001740", "fish", "", 2)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, fields)})
    devkit = {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": b"2\n1\n2\n"}
    root = tmp_path / "imagenet"
    root.mkdir()
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(
        tar_of({f"ILSVRC2012_devkit_t12/data/{name}": data for name, data in devkit.items()}, "w:gz")
    )
    classes = {wnid: {f"{wnid}_{i}.JPEG": encoded(photograph(10 * c + i)) for i in range(2)} for c, wnid in enumerate(WNIDS)}
    train = {f"{wnid}.tar": tar_of(photographs) for wnid, photographs in classes.items()}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of(train))
    val = {f"ILSVRC2012_val_0000000{i}.JPEG": encoded(photograph(90 + i)) for i in (1, 2, 3)}
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of(val))
    return root


def test_imagenets_archives_become_parts_in_torchvisions_layout(archives: Path) -> None:
    for _ in range(2):
        datasets.main(DatasetSettings(data="imagenet", out=archives))
    beside = [("ILSVRC2012_devkit_t12.tar.gz", ""), ("ILSVRC2012_img_train.tar", ""), ("ILSVRC2012_img_val.tar", "")]
    train = [(f"train/{wnid}/{wnid}_{i}.JPEG", wnid) for wnid in WNIDS for i in range(2)]
    assert [(e.path, e.label) for e in list_examples(archives, "train")] == beside + train
    assert [(e.path, e.label) for e in list_examples(archives, "test")] == [
        *beside,
        (f"val/{WNIDS[0]}/ILSVRC2012_val_00000002.JPEG", WNIDS[0]),
        (f"val/{WNIDS[1]}/ILSVRC2012_val_00000001.JPEG", WNIDS[1]),
        (f"val/{WNIDS[1]}/ILSVRC2012_val_00000003.JPEG", WNIDS[1]),
    ]
    reads = list(read_photographs(archives, list_examples(archives, "all"), ImageLimits()))
    assert [isinstance(read.outcome, Photograph) for read in reads] == 3 * [False] + 7 * [True]


def test_an_interrupted_extraction_begins_its_part_again(archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("torchvision.datasets.imagenet.shutil.move", interrupt)
        with pytest.raises(KeyboardInterrupt):
            datasets.prepare("imagenet", archives)
    assert (archives / "train").is_dir()
    assert not (archives / "val").exists()
    datasets.prepare("imagenet", archives)
    assert len([example for example in list_examples(archives, "test") if not example.reason]) == 3
    assert not (archives / ".partial").exists()


def test_imagenet_without_its_archives_or_with_damaged_ones_says_so(archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(FC7Error, match=r"ImageNet cannot be extracted: The archive .* is corrupted"):
        datasets.prepare("imagenet", archives)
    (archives / "train").mkdir()
    (archives / "train" / "n01440764.tar").touch()
    with pytest.raises(BadValue, match="in which an extraction was interrupted; remove that folder"):
        datasets.prepare("imagenet", archives)
    (archives / "ILSVRC2012_img_val.tar").unlink()
    with pytest.raises(NotReady, match=r"of which ILSVRC2012_img_val\.tar are not in .*; the ImageNet project gives"):
        datasets.prepare("imagenet", archives)
