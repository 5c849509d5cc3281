"""From a folder to a published index: what is in it, what is left out, what a kill or a mismatch does."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from indexer import artifact, evaluate, extract
from indexer.build import BuildSettings, main
from indexer.catalog import Catalog
from tests.conftest import write_photographs
from training import checkpoint
from training.errors import Busy, Mismatch, NotFound, NotReady
from training.files import exclusively
from training.preprocess import ImageLimits, decode


def build(model: Path, data: Path, index: Path, **changes: object) -> None:
    main(BuildSettings.model_validate({"model": model, "data": data, "index": index, **changes}))


def test_every_photograph_is_in_the_index_with_its_own_feature(index: Path, model: Path, images: Path) -> None:
    opened, loaded = artifact.open_index(index), checkpoint.load(model)
    paths = sorted(path.relative_to(images).as_posix() for path in (images / "train").rglob("*.jpg"))
    assert opened.catalog.column("path") == paths
    assert len(opened.vectors) == len(opened.catalog) == opened.manifest.kept == 24
    for item in opened.catalog.items(range(24)):
        data = (images / item.path).read_bytes()
        assert item.sha256 == hashlib.sha256(data).hexdigest()
        assert (item.label, item.size, item.width, item.height) == (item.path.split("/")[1], len(data), 96, 72)
        x = decode(data, ImageLimits()).pixels_CHW[None, :, 16:240, 16:240].float() - 110
        with torch.no_grad():
            feature = loaded.net.features(x)[0].numpy()
        np.testing.assert_allclose(opened.vectors.vector(item.id), feature, rtol=1e-4, atol=1e-5)


def test_thumbnails_show_their_own_photograph(index: Path, images: Path) -> None:
    opened = artifact.open_index(index)
    for item in opened.catalog.items([0, 11, 23]):
        thumbnail = Image.open(io.BytesIO(opened.thumbnail(item)))
        assert thumbnail.size == (160, 160)
        square = decode((images / item.path).read_bytes(), ImageLimits()).pixels_CHW.permute(1, 2, 0).numpy()
        expected = np.asarray(Image.fromarray(square).resize((160, 160)), np.float64)
        assert np.abs(np.asarray(thumbnail, np.float64) - expected).mean() < 4


def test_bad_files_are_reported_with_reasons_and_the_rest_is_indexed(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    write_photographs(data, 2)
    whole = (data / "red/000.jpg").read_bytes()
    (data / "red/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (data / "notes.txt").write_text("not an image")
    (data / "large.jpg").write_bytes(b"x" * 200_001)
    (data / "empty.png").touch()
    Path(os.fsdecode(os.fsencode(data) + b"/latin-1-\xe9.jpg")).write_bytes(whole)
    Image.new("RGB", (1000, 600)).save(data / "huge.png")
    build(model, data, tmp_path / "index", max_image_bytes=200_000, max_image_pixels=500_000)
    opened = artifact.open_index(tmp_path / "index")
    assert (opened.manifest.kept, opened.manifest.rejected) == (6, 6)
    reasons = {row["path"]: row["reason"] for row in artifact.rejects(opened)}
    assert sorted(reasons) == ["empty.png", "huge.png", "large.jpg", r"latin-1-\udce9.jpg", "notes.txt", "red/truncated.jpg"]
    assert reasons["large.jpg"] == "image has 200001 bytes, more than max_image_bytes=200000"
    assert reasons["huge.png"] == "image is 1000 x 600 pixels, more than max_image_pixels=500000"
    assert "truncated" in reasons["red/truncated.jpg"]
    assert "6 photographs indexed, 6 rejected" in capsys.readouterr().out.splitlines()[-1]


def test_nothing_to_index_is_an_error_and_the_old_version_stays(tmp_path: Path, model: Path, images: Path) -> None:
    index = tmp_path / "index"
    build(model, images, index)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.jpg").write_text("not an image")
    with pytest.raises(NotReady, match="none of the 1 files"):
        build(model, bad, index)
    assert artifact.open_index(index).version == 1


def test_with_nothing_there_the_commands_that_make_it_are_named(tmp_path: Path, model: Path) -> None:
    with pytest.raises(NotReady, match=r"python -m training\.train"):
        build(tmp_path / "none", tmp_path, tmp_path / "index")
    with pytest.raises(NotReady, match="no data set at"):
        build(model, tmp_path / "none", tmp_path / "index")
    with pytest.raises(NotReady, match=r"python -m indexer\.build"):
        artifact.open_index(tmp_path / "index")


def test_versions_replace_each_other_and_the_last_two_are_kept(tmp_path: Path, model: Path, images: Path) -> None:
    for version in (1, 2, 3):
        build(model, images, tmp_path)
        assert artifact.open_index(tmp_path).version == version
    assert sorted(p.name for p in (tmp_path / "versions").iterdir()) == ["2", "3"]
    assert (tmp_path / "current").readlink() == Path("versions/3")
    assert not (tmp_path / "work").exists()


def test_an_opened_index_answers_on_while_newer_versions_drop_it(tmp_path: Path, model: Path, images: Path) -> None:
    build(model, images, tmp_path)
    opened = artifact.open_index(tmp_path)
    item, vector = opened.catalog.item(3), opened.vectors.vector(3).copy()
    thumbnail = opened.thumbnail(item)
    for _ in range(3):
        build(model, images, tmp_path)
    assert not opened.folder.exists()
    np.testing.assert_array_equal(opened.vectors.vector(3), vector)
    assert opened.catalog.item(3) == item
    assert opened.thumbnail(item) == thumbnail


KILLED_BUILD = """
import os, signal, sys
from indexer import build, extract

extract.SHARD = 4
extract_one, done = extract._extract, 0
def dying_extract(*args):
    global done
    done += 1
    if done == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return extract_one(*args)

extract._extract = dying_extract
build.main(build.BuildSettings.model_validate_json(sys.argv[1]))
"""


def test_a_killed_build_goes_on_where_it_was_and_ends_the_same(
    tmp_path: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "SHARD", 4)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    build(model, images, whole, part="train")
    settings = BuildSettings(model=model, data=images, index=killed, part="train")
    run = subprocess.run([sys.executable, "-c", KILLED_BUILD, settings.model_dump_json()], check=False)
    assert run.returncode == -signal.SIGKILL
    assert len(list((killed / "work").iterdir())) == 3
    kept = {path.name for path in (killed / "work").iterdir()}
    written, write = set(), extract._write

    def recorded(path: Path, shard: extract.Shard) -> None:
        written.add(path.name)
        write(path, shard)

    monkeypatch.setattr(extract, "_write", recorded)
    main(settings)
    assert len(written) == 3
    assert written.isdisjoint(kept)
    for name in (artifact.FLOAT, artifact.THUMBNAILS, artifact.REJECTS):
        assert (killed / "current" / name).read_bytes() == (whole / "current" / name).read_bytes()
    one, other = (Catalog(folder / "current" / artifact.CATALOG) for folder in (killed, whole))
    assert one.items(range(24)) == other.items(range(24))


def test_a_copy_that_followed_links_is_refused_before_anything_is_written(copied: Path, model: Path, images: Path) -> None:
    folder = (copied / "current").resolve()
    (copied / "current").unlink()
    shutil.copytree(folder, copied / "current")
    with pytest.raises(Mismatch, match="is not a link to versions"):
        artifact.open_index(copied)
    with pytest.raises(Mismatch, match="is not a link to versions"):
        build(model, images, copied)
    assert [path.name for path in (copied / "versions").iterdir()] == ["1"]


def test_two_builds_of_one_index_do_not_mix(tmp_path: Path, model: Path, images: Path) -> None:
    with exclusively(tmp_path), pytest.raises(Busy, match="another process is writing"):
        build(model, images, tmp_path)


@pytest.fixture
def copied(index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index, tmp_path / "copy", symlinks=True))


@pytest.mark.parametrize("name", [artifact.CATALOG, artifact.FLOAT, artifact.THUMBNAILS])
def test_one_flipped_byte_in_any_file_is_refused_by_name(copied: Path, name: str) -> None:
    path = copied / "current" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Mismatch, match=rf"{name} is not the file that manifest\.json describes"):
        artifact.open_index(copied)
    path.unlink()
    with pytest.raises(Mismatch, match=rf"{name} has 0 bytes, manifest\.json says \d+"):
        artifact.open_index(copied)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 7, "has format 7, this program reads format 1"),
        ("kept", 23, "holds 24 items, manifest.json says 23"),
        ("width", 33, "has vectors of 32 components, manifest.json says 33"),
        ("files", {}, "does not list catalog.sqlite"),
        ("kept", "many", "is not a manifest: kept"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(copied: Path, field: str, value: object, message: str) -> None:
    path = copied / "current" / artifact.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(Mismatch, match=message):
        artifact.open_index(copied)
    path.unlink()
    with pytest.raises(Mismatch, match=r"has no manifest\.json"):
        artifact.open_index(copied)


def test_an_index_of_another_model_is_refused(index: Path) -> None:
    with pytest.raises(Mismatch, match="the model at hand is 0123456789ab"):
        artifact.check_pair(artifact.open_index(index), "0123456789abcdef")


@pytest.mark.parametrize("path", ["../outside.jpg", "/etc/passwd", "link.jpg", "../outside.tar/1.jpg", "link.tar/1.jpg"])
def test_a_path_that_leads_out_of_the_collection_is_not_served(tmp_path: Path, index: Path, path: str) -> None:
    opened = artifact.open_index(index)
    root = tmp_path / "collection"
    root.mkdir()
    (tmp_path / "outside.jpg").touch()
    (root / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    with tarfile.open(tmp_path / "outside.tar", "w") as tar:
        tar.add(tmp_path / "outside.jpg", "1.jpg")
    (root / "link.tar").symlink_to(tmp_path / "outside.tar")
    object.__setattr__(opened, "manifest", opened.manifest.model_copy(update={"collection": str(root)}))
    item = opened.catalog.item(0)
    object.__setattr__(item, "path", path)
    assert opened.original(item) is None


@pytest.mark.parametrize("item", [24, -1, 2**63 - 1])
def test_an_unknown_id_is_named(index: Path, item: int) -> None:
    with pytest.raises(NotFound, match=f"no item has the id {item}; the index holds 24 items"):
        artifact.open_index(index).catalog.item(item)


def test_evaluation_counts_right_neighbours(index: Path, model: Path, images: Path, tmp_path: Path) -> None:
    assert evaluate.precision(np.array([["a", "b"], ["b", "b"]]), np.array(["a", "b"])) == 0.75
    opened, loaded = artifact.open_index(index), checkpoint.load(model)
    report = evaluate.evaluate(loaded, opened, images, "all")
    assert (report.queries, report.database) == (9, 24)
    right = right5 = 0
    for path in sorted((images / "test").rglob("*.jpg")):
        feature = loaded.fc7(decode(path.read_bytes(), ImageLimits()).pixels_CHW[None])[0].numpy()
        distances = [np.linalg.norm(opened.vectors.vector(i) - feature) for i in range(24)]
        labels = [opened.catalog.item(int(i)).label for i in np.argsort(distances)[:5]]
        right += labels[0] == path.parent.name
        right5 += labels.count(path.parent.name)
    assert report.fc7_nearest_top1 == pytest.approx(right / 9)
    assert report.fc7_precision_at_5 == pytest.approx(right5 / 45)
    assert report.raw_precision_at_5 == 1.0
    assert "9 queries, none of them indexed, against 24 photographs" in report.table()


def test_evaluation_never_queries_with_what_is_indexed(index: Path, model: Path, images: Path) -> None:
    with pytest.raises(NotReady, match="queries must be new to it"):
        evaluate.evaluate(checkpoint.load(model), artifact.open_index(index), images, "train")
