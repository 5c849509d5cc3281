"""Photographs in tar files: found, labelled and read as if they lay in folders; damaged and hostile shards harm nothing."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
import torch

from tests.conftest import encoded, photograph, write_photographs
from training.errors import FC7Error, NotReady
from training.images import folders as data_module
from training.images.folders import list_examples, read_bytes, read_photographs, stamp
from training.images.preprocess import ImageLimits, Photograph
from training.images.squares import Keep, prepare_squares

LIMITS = ImageLimits()


def write_tar(path: Path, members: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def listed(root: Path, part: data_module.Part = "all") -> list[tuple[str, str]]:
    return [(example.path, example.label) for example in list_examples(root, part)]


def reasons(root: Path) -> dict[str, str]:
    reads = read_photographs(root, list_examples(root, "all"), LIMITS)
    return {read.example.path: str(read.outcome) for read in reads if isinstance(read.outcome, FC7Error)}


def test_classes_come_from_cls_json_txt_or_the_members_first_folder(tmp_path: Path) -> None:
    members = {
        "000.jpg": b"a",
        "000.cls": b"2\n",
        "000.json": b'{"label": "not this"}',
        "001.seg.png": b"mask",
        "001.json": json.dumps({"cls": 0}).encode(),
        "001.jpeg": b"b",
        "002.txt": b" tabby cat ",
        "002.JPEG": b"c",
        "003.png": b"d",
        "003.json": b"[1]",
        "./tench/x.y.jpg": b"e",
        "./tench/x.z.jpg": b"f",
        "deep/1/7.webp": b"g",
        "notes.md": b"-",
        "tench/._8.jpg": b"a companion file of another system",
    }
    write_tar(tmp_path / "some.tar", members)
    (tmp_path / "classes.txt").write_text("goldfish\ntench\nshark\n")
    assert listed(tmp_path) == [
        ("some.tar/000.jpg", "shark"),
        ("some.tar/001.jpeg", "goldfish"),
        ("some.tar/002.JPEG", "tabby cat"),
        ("some.tar/003.png", ""),
        ("some.tar/deep/1/7.webp", "deep"),
        ("some.tar/tench/x.y.jpg", "tench"),
        ("some.tar/tench/x.z.jpg", "tench"),
    ]
    assert read_bytes(tmp_path, "some.tar/tench/x.z.jpg", LIMITS) == b"f"
    (tmp_path / "classes.txt").unlink()
    assert listed(tmp_path)[0] == ("some.tar/000.jpg", "2")
    (tmp_path / "classes.txt").write_text("goldfish\n")
    with pytest.raises(FC7Error, match=r"class number 2; .*classes\.txt names 1, from 0"):
        list_examples(tmp_path, "all")


def test_shards_and_folders_give_the_same_photographs(tmp_path: Path) -> None:
    write_photographs(tmp_path / "folders", 4)
    files = sorted((tmp_path / "folders").rglob("*.jpg"))
    members = {path.relative_to(tmp_path / "folders").as_posix(): path.read_bytes() for path in files}
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        root = tmp_path / str(format)
        write_tar(root / "a.tar", members, format)
        reads = [list(read_photographs(folder, list_examples(folder, "all"), LIMITS)) for folder in (tmp_path / "folders", root)]
        for plain, packed in zip(*reads, strict=True):
            assert packed.example.path == f"a.tar/{plain.example.path}"
            assert (packed.example.label, packed.sha256, packed.size) == (plain.example.label, plain.sha256, plain.size)
            assert isinstance(plain.outcome, Photograph)
            assert isinstance(packed.outcome, Photograph)
            assert torch.equal(packed.outcome.pixels_CHW, plain.outcome.pixels_CHW)


LAYOUT = (
    *("animals/cat/1.jpg", "animals/dog/deep/2.jpg", "plants/3.jpg", "loose.jpg"),
    *("caf\u00e9/4.jpg", "cafe\u0301/5.jpg", "7/6.jpg", "@eaDir/7.jpg", "plants/Thumbs.db"),
)


def test_a_folder_and_a_tar_of_it_have_the_same_classes_and_leave_out_the_same(tmp_path: Path) -> None:
    folder, packed = tmp_path / "folder", tmp_path / "packed"
    for name in LAYOUT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    write_tar(packed / "a.tar", dict.fromkeys(LAYOUT, b""))
    (packed / "classes.txt").write_text("zero\n")
    expected = {
        "animals/cat/1.jpg": "animals",
        "animals/dog/deep/2.jpg": "animals",
        "plants/3.jpg": "plants",
        "loose.jpg": "",
        "caf\u00e9/4.jpg": "caf\u00e9",
        "cafe\u0301/5.jpg": "caf\u00e9",
        "7/6.jpg": "7",
    }
    plain = [example for example in list_examples(folder, "all") if not example.reason]
    assert {example.path: example.label for example in plain} == expected
    assert {path.removeprefix("a.tar/"): label for path, label in listed(packed) if path != "a.tar"} == expected
    assert reasons(packed)["a.tar"] == "1 members are left out: they are kept by a system or a program for itself"


def test_a_shard_in_a_class_is_of_that_class_unless_it_says_another(tmp_path: Path) -> None:
    write_tar(tmp_path / "dog/a.tar", {"x/1.jpg": b"1", "2.jpg": b"2", "2.cls": b"wolf"})
    assert listed(tmp_path) == [("dog/a.tar/2.jpg", "wolf"), ("dog/a.tar/x/1.jpg", "dog")]


@pytest.mark.parametrize(
    "label", ["n\u00e4e\u202f1", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u200fabc", "\U0001fae9", "a\u3000b"]
)
def test_labels_are_whatever_unicode_has(tmp_path: Path, label: str) -> None:
    members = {"1.jpg": b"1", "1.cls": label.encode(), "2.jpg": b"2", "2.cls": b"a\x07b", "3.jpg": b"3", "3.cls": b"\xff"}
    write_tar(tmp_path / "a.tar", members)
    assert listed(tmp_path) == [("a.tar", ""), ("a.tar/1.jpg", label), ("a.tar/2.jpg", ""), ("a.tar/3.jpg", "")]
    assert reasons(tmp_path)["a.tar"] == "2 members that end in .cls name no class: they are not one line of text"


def test_long_names_are_found_in_every_format(tmp_path: Path) -> None:
    name = "class/" + "x" * 150 + "\u00e9.jpg"
    write_tar(tmp_path / "gnu.tar", {name: b"1"}, tarfile.GNU_FORMAT)
    write_tar(tmp_path / "pax.tar", {name: b"2"})
    assert listed(tmp_path) == [(f"gnu.tar/{name}", "class"), (f"pax.tar/{name}", "class")]


def test_parts_are_folders_of_shards_or_words_in_their_names_or_hashes(tmp_path: Path) -> None:
    one = {"1.jpg": b"1", "1.cls": b"cat"}
    for name in ("folders/train/a.tar", "folders/val/b.tar", "folders/ILSVRC_train.tar"):
        write_tar(tmp_path / name, one)
    beside = ("ILSVRC_train.tar", "")
    assert listed(tmp_path / "folders", "train") == [beside, ("train/a.tar/1.jpg", "cat")]
    assert listed(tmp_path / "folders", "test") == [beside, ("val/b.tar/1.jpg", "cat")]
    for name in ("words/imagenet-train-000001.tar", "words/imagenet-val-0.tar", "words/test_1.tar", "words/strain.tar"):
        write_tar(tmp_path / name, one)
    assert listed(tmp_path / "words", "train") == [("imagenet-train-000001.tar/1.jpg", "cat"), ("strain.tar", "")]
    tests = ["imagenet-val-0.tar/1.jpg", "strain.tar", "test_1.tar/1.jpg"]
    assert [path for path, _ in listed(tmp_path / "words", "test")] == tests
    assert "lies beside the parts" in reasons(tmp_path / "words")["strain.tar"]
    assert len(listed(tmp_path / "words")) == 4
    many = {f"cat/{i}.jpg": str(i).encode() for i in range(40)}
    write_tar(tmp_path / "hashed" / "x.tar", many)
    expected = {f"x.tar/{name}" for name, data in many.items() if int(hashlib.sha256(data).hexdigest(), 16) % 5 == 0}
    assert {path for path, _ in listed(tmp_path / "hashed", "test")} == expected
    assert {path for path, _ in listed(tmp_path / "hashed", "train")} == {f"x.tar/{name}" for name in many} - expected
    write_tar(tmp_path / "classes/train/dog/a.tar", {"1.jpg": b"1"})
    assert listed(tmp_path / "classes", "train") == [("train/dog/a.tar/1.jpg", "dog")]


def test_a_damaged_shard_gives_what_is_before_the_damage_and_is_named(tmp_path: Path) -> None:
    members = {f"cat/{i}.jpg": bytes([i]) * 700 for i in range(4)}
    whole = write_tar(tmp_path / "whole.tar", members, tarfile.USTAR_FORMAT).read_bytes()
    step = 512 + 1024
    (tmp_path / "at-a-member.tar").write_bytes(whole[: 2 * step])
    (tmp_path / "in-a-header.tar").write_bytes(whole[: 2 * step + 100])
    (tmp_path / "in-an-image.tar").write_bytes(whole[: 2 * step + 900])
    (tmp_path / "overwritten.tar").write_bytes(whole[: 2 * step] + b"?" * step + whole[3 * step :])
    (tmp_path / "no-tar.tar").write_bytes(b"?" * 5000)
    (tmp_path / "empty.tar").touch()
    paths = [path for path, _ in listed(tmp_path)]
    for name in ("at-a-member", "in-a-header", "in-an-image", "overwritten"):
        assert [path for path in paths if path.startswith(name)] == [
            f"{name}.tar",
            f"{name}.tar/cat/0.jpg",
            f"{name}.tar/cat/1.jpg",
        ]
    for name, reason in reasons(tmp_path).items():
        if name.count("/") == 0:
            assert "is damaged" in reason or "is cut short" in reason
            assert f"{0 if name in ('no-tar.tar', 'empty.tar') else 2} images before it are used" in reason
    assert "whole.tar" not in paths


def test_a_shard_that_shrinks_after_it_was_listed_is_a_reason_and_no_other_photograph(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", {f"cat/{i}.jpg": encoded(photograph(i)) for i in range(3)})
    examples = list_examples(tmp_path, "all")
    before = stamp(tmp_path, examples)
    write_tar(shard, {"cat/0.jpg": encoded(photograph(7))})
    assert stamp(tmp_path, examples) != before
    outcomes = [read.outcome for read in read_photographs(tmp_path, examples, LIMITS)]
    assert isinstance(outcomes[0], Photograph)
    assert [str(outcome) for outcome in outcomes[1:]] == ["a.tar has no image cat/1.jpg", "a.tar has no image cat/2.jpg"]
    shard.unlink()
    assert "No such file" in str(next(read_photographs(tmp_path, examples, LIMITS)).outcome)


def test_hostile_members_lead_nowhere(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside.jpg").write_bytes(encoded(photograph(1)))
    with tarfile.open(root / "a.tar", "w") as tar:
        for name in ("../outside.jpg", "/etc/passwd.jpg", "a/../../outside.jpg", "cat/good.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"123"))
        for kind, name in ((tarfile.SYMTYPE, "s"), (tarfile.LNKTYPE, "h"), (tarfile.CHRTYPE, "c"), (tarfile.DIRTYPE, "d")):
            info = tarfile.TarInfo(f"cat/{name}.jpg")
            info.type, info.linkname = kind, "../outside.jpg"
            tar.addfile(info)
        huge = tarfile.TarInfo("cat/huge.jpg")
        huge.size = 2**60
        tar.addfile(huge)
    assert listed(root) == [("a.tar", ""), ("a.tar/cat/good.jpg", "cat")]
    assert "is cut short: it ends within 'cat/huge.jpg'; 1 images before it are used" in reasons(root)["a.tar"]
    for member in ("../outside.jpg", "cat/s.jpg", "cat/../../outside.jpg", "/etc/passwd.jpg"):
        with pytest.raises(FC7Error, match="has no image"):
            read_bytes(root, f"a.tar/{member}", LIMITS)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "outside.jpg", "root"]


def test_a_size_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"cat/1.jpg": b"x" * 2000})
    read = next(read_photographs(tmp_path, list_examples(tmp_path, "all"), ImageLimits(max_image_bytes=1999)))
    assert str(read.outcome) == "image has 2000 bytes, more than max_image_bytes=1999"


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst"])
def test_a_compressed_shard_says_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / name).write_bytes(b"...")
    assert "decompress it to .tar" in reasons(tmp_path)[f"cat/{name}"]
    with pytest.raises(NotReady, match=r"decompress it to \.tar"):
        prepare_squares(tmp_path, list_examples(tmp_path, "all"), tmp_path / ".work", LIMITS)


def test_a_folder_named_like_a_shard_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.tar").mkdir()
    (tmp_path / "x.tar" / "1.jpg").write_bytes(b"1")
    assert listed(tmp_path) == [("x.tar/1.jpg", "x.tar")]
    assert read_bytes(tmp_path, "x.tar/1.jpg", LIMITS) == b"1"


def test_training_reads_shards_kept_or_decoded_anew(tmp_path: Path) -> None:
    write_photographs(tmp_path / "data", 2)
    files = sorted((tmp_path / "data").rglob("*.jpg"))
    members = {path.relative_to(tmp_path / "data").as_posix(): path.read_bytes() for path in files}
    write_tar(tmp_path / "shards" / "a.tar", members)
    modes: tuple[tuple[str, Keep], ...] = (("data", "auto"), ("shards", "always"), ("shards", "never"))
    plain, always, never = (
        prepare_squares(tmp_path / root, list_examples(tmp_path / root, "all"), tmp_path / keep, LIMITS, keep)
        for root, keep in modes
    )
    everything = torch.arange(6)
    for squares in (always, never):
        assert squares.classes == plain.classes
        assert torch.equal(squares.labels_N, plain.labels_N)
        assert torch.equal(squares.read(everything).pixels_BCHW, plain.read(everything).pixels_BCHW)
