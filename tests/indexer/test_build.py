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
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from indexer import features
from indexer.build import BuildSettings, main
from indexer.index import open_index
from indexer.storage import artifact
from indexer.storage.originals import read_original
from tests.conftest import damaged_fax, write_photographs
from tests.indexer.synthetic import SEGMENT
from training import checkpoint, files
from training.errors import BadValue, Busy, FC7Error, Mismatch, NotFound, NotReady
from training.files import exclusively
from training.images.preprocess import ImageLimits, decode
from training.network.alexnet import AlexNet, Layer


def build(model: Path, data: Path, index: Path, **changes: object) -> None:
    main(BuildSettings.model_validate({"model": model, "data": data, "index": index, **changes}))


def same_files(one: Path, other: Path) -> None:
    """Byte for byte, but for times: the descriptions, and what the catalogues say of items beside it."""
    records = [artifact.read_manifest(artifact.current(index)).files for index in (one, other)]
    for records_of in records:
        del records_of[artifact.AUTOENCODER]
        del records_of[f"0/{artifact.CATALOG}"]
    assert records[0] == records[1]
    stores = [open_index(index) for index in (one, other)]
    of_one, of_other = ([replace(item, added=0) for item in store.items(store.ids().tolist())] for store in stores)
    assert of_one == of_other


def test_every_photograph_is_in_the_index_with_its_own_feature(index: Path, model: Path, images: Path) -> None:
    opened, loaded = open_index(index), checkpoint.load(model)
    paths = sorted(path.relative_to(images).as_posix() for path in (images / "train").rglob("*.jpg"))
    items = opened.items(range(24))
    assert [item.path for item in items] == paths
    assert len(opened) == opened.manifest.kept == opened.manifest.next_id == 24
    for item in items:
        data = (images / item.path).read_bytes()
        assert item.sha256 == hashlib.sha256(data).hexdigest()
        assert (item.label, item.size, item.width, item.height) == (item.path.split("/")[1], len(data), 96, 72)
        x = decode(data, ImageLimits()).pixels_CHW[None, :, 16:240, 16:240].float() - 110
        with torch.no_grad():
            feature = loaded.net.features(x)[0].numpy()
        np.testing.assert_allclose(opened.vectors([item.id])[0], feature, rtol=1e-4, atol=1e-5)


def test_thumbnails_show_their_own_photograph(index: Path, images: Path) -> None:
    opened = open_index(index)
    for item in opened.items([0, 11, 23]):
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
    opened = open_index(tmp_path / "index")
    assert (opened.manifest.kept, opened.manifest.rejected) == (6, 6)
    reasons = {reject.path: reject.reason for reject in artifact.rejects(opened)}
    assert sorted(reasons) == ["empty.png", "huge.png", "large.jpg", r"latin-1-\udce9.jpg", "notes.txt", "red/truncated.jpg"]
    assert reasons["large.jpg"] == "image has 200001 bytes, more than max_image_bytes=200000"
    assert reasons["huge.png"] == "image is 1000 x 600 pixels, more than max_image_pixels=500000"
    assert "truncated" in reasons["red/truncated.jpg"]
    assert "6 photographs indexed, 6 rejected" in capsys.readouterr().out.splitlines()[-1]


def test_what_libtiff_says_of_a_damaged_file_is_the_reason_of_its_reject(
    tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    write_photographs(data, 2)
    (data / "red" / "fax.tif").write_bytes(damaged_fax())
    build(model, data, tmp_path / "index")
    [reject] = artifact.rejects(open_index(tmp_path / "index"))
    assert reject.path == "red/fax.tif"
    assert "Fax4Decode: " in reject.reason
    out, err = capfd.readouterr()
    assert f"rejected red/fax.tif: {reject.reason}" in out
    assert "Fax" not in err


def test_the_first_photograph_whose_feature_is_not_finite_is_named(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    write_photographs(data, 40)  # of which the red are in the second batch
    (data / "blue" / "000.jpg").write_bytes(b"not an image")
    stages_of = AlexNet.stages

    def stages_but_of_red(net: AlexNet, x_BCHW: torch.Tensor) -> dict[Layer, torch.Tensor]:
        stages = stages_of(net, x_BCHW)
        stages["fc7"][x_BCHW[:, 0].mean((1, 2)) > x_BCHW[:, 2].mean((1, 2)) + 100] = torch.inf
        return stages

    monkeypatch.setattr(AlexNet, "stages", stages_but_of_red)
    with pytest.raises(Mismatch, match=r"the model gives no finite FC7 feature for .*; the first is red/000\.jpg"):
        build(model, data, tmp_path / "index")


def test_nothing_to_index_is_an_error_and_the_old_version_stays(tmp_path: Path, model: Path, images: Path) -> None:
    index = tmp_path / "index"
    build(model, images, index)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.jpg").write_text("not an image")
    with pytest.raises(NotReady, match="none of the 1 files"):
        build(model, bad, index)
    assert open_index(index).version_number == 1


def test_with_nothing_there_the_commands_that_make_it_are_named(tmp_path: Path, model: Path) -> None:
    with pytest.raises(NotReady, match=r"python -m training\.train"):
        build(tmp_path / "none", tmp_path, tmp_path / "index")
    with pytest.raises(NotReady, match="no data set at"):
        build(model, tmp_path / "none", tmp_path / "index")
    with pytest.raises(NotReady, match=r"python -m indexer\.build"):
        open_index(tmp_path / "index")


def test_versions_replace_each_other_and_the_last_two_are_kept(tmp_path: Path, model: Path, images: Path) -> None:
    for version in (1, 2, 3):
        build(model, images, tmp_path)
        assert open_index(tmp_path).version_number == version
    assert sorted(p.name for p in (tmp_path / "versions").iterdir()) == ["2", "3"]
    assert (tmp_path / "current").readlink() == Path("versions/3")
    assert not (tmp_path / "work").exists()


def test_an_opened_index_answers_on_while_newer_versions_drop_it(tmp_path: Path, model: Path, images: Path) -> None:
    build(model, images, tmp_path)
    opened = open_index(tmp_path)
    item, vector = opened.items([3])[0], opened.vectors([3])[0].copy()
    thumbnail = opened.thumbnail(item)
    for _ in range(3):
        build(model, images, tmp_path)
    assert not opened.folder.exists()
    np.testing.assert_array_equal(opened.vectors([3])[0], vector)
    assert opened.items([3]) == [item]
    assert opened.thumbnail(item) == thumbnail


KILLED_BUILD = """
import os, signal, sys
from indexer import build, features

features.BLOCK_ROWS = 4
extract_one, done = features.feature_block, 0
def dying_extract(*args):
    global done
    done += 1
    if done == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return extract_one(*args)

features.feature_block = dying_extract
build.main(build.BuildSettings.model_validate_json(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_build_goes_on_where_it_was_and_ends_the_same(
    tmp_path: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BLOCK_ROWS", 4)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    build(model, images, whole, part="train")
    settings = BuildSettings(model=model, data=images, index=killed, part="train")
    run = subprocess.run([sys.executable, "-c", KILLED_BUILD, settings.model_dump_json()], check=False)
    assert run.returncode == -signal.SIGKILL
    assert len(list((killed / "work").iterdir())) == 3
    kept = {path.name for path in (killed / "work").iterdir()}
    written, write = set(), features._write

    def recorded(path: Path, block: features.FeatureBlock) -> None:
        written.add(path.name)
        write(path, block)

    monkeypatch.setattr(features, "_write", recorded)
    main(settings)
    assert len(written) == 3
    assert written.isdisjoint(kept)
    same_files(killed, whole)


def test_a_copy_that_followed_links_is_refused_before_anything_is_written(copied: Path, model: Path, images: Path) -> None:
    folder = (copied / "current").resolve()
    (copied / "current").unlink()
    shutil.copytree(folder, copied / "current")
    with pytest.raises(Mismatch, match="is not a link to versions"):
        open_index(copied)
    with pytest.raises(Mismatch, match="is not a link to versions"):
        build(model, images, copied)
    assert [path.name for path in (copied / "versions").iterdir()] == ["1"]


def test_two_builds_of_one_index_do_not_mix(tmp_path: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE_S", 0.0)
    with exclusively(tmp_path), pytest.raises(Busy, match="another process is writing"):
        build(model, images, tmp_path)


@pytest.fixture
def copied(index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index, tmp_path / "copy", symlinks=True))


FILES = [artifact.AUTOENCODER, artifact.PRINCIPAL, artifact.DELETED, *(f"0/{name}" for name in SEGMENT)]


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_in_any_file_is_refused_by_name(copied: Path, name: str) -> None:
    path = copied / "current" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Mismatch, match=rf"{name} is not the file that manifest\.json describes"):
        open_index(copied)
    path.unlink()
    with pytest.raises(Mismatch, match=rf"{name} has 0 bytes, manifest\.json says \d+"):
        open_index(copied)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 7, "has format 7, this program reads format 4"),
        ("kept", 23, "holds 24 items of which 0 are removed, manifest.json says 23 are kept"),
        ("segments", [23], "segment 0 of .* holds 24 items, manifest.json says 23"),
        ("width", 33, "is for vectors of 32 components, the index has 33"),
        ("bits", 64, r"rows of 8 uint8: its header has 128 for d, expected 64"),
        ("files", {}, "does not list deleted.npy"),
        ("kept", "many", "is not a manifest: kept"),
        ("metric", "manhattan", "is not a manifest: metric Input should be 'euclidean' or 'cosine'"),
        ("bit_order", "big", "is not a manifest: bit_order Input should be 'little'"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(copied: Path, field: str, value: object, message: str) -> None:
    path = copied / "current" / artifact.MANIFEST
    artifact.write_manifest(path.parent, json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(Mismatch, match=message):
        open_index(copied)
    path.unlink()
    with pytest.raises(Mismatch, match=r"has no manifest\.json"):
        open_index(copied)


def test_an_index_of_another_model_is_refused(index: Path) -> None:
    with pytest.raises(Mismatch, match="the model at hand is 0123456789ab"):
        artifact.check_pair(open_index(index), "0123456789abcdef", 32)


@pytest.mark.parametrize("path", ["../outside.jpg", "/etc/passwd", "link.jpg", "../outside.tar/1.jpg", "link.tar/1.jpg"])
def test_a_path_that_leads_out_of_the_collection_is_not_served(tmp_path: Path, index: Path, path: str) -> None:
    opened = open_index(index)
    root = tmp_path / "collection"
    root.mkdir()
    (tmp_path / "outside.jpg").touch()
    (root / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    with tarfile.open(tmp_path / "outside.tar", "w") as tar:
        tar.add(tmp_path / "outside.jpg", "1.jpg")
    (root / "link.tar").symlink_to(tmp_path / "outside.tar")
    empty = hashlib.sha256().hexdigest()
    item = replace(opened.items([0])[0], root=str(root), path=path, size=0, sha256=empty)
    manifest = opened.manifest.model_copy(update={"sources": [str(root)]})
    with pytest.raises(NotFound, match="leads out of the folders"):
        read_original(index, manifest, item, ImageLimits())


@pytest.mark.parametrize("item", [24, -1, 2**63 - 1])
def test_an_unknown_id_is_named(index: Path, item: int) -> None:
    with pytest.raises(NotFound, match=f"no item has the id {item}; the index holds 24 items"):
        open_index(index).items([item])


KILLED_ASSEMBLY = """
import os, signal, sys
from indexer import build
from indexer.storage.draft import Draft

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

Draft.publish = die
build.main(build.BuildSettings.model_validate_json(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_build_killed_before_it_publishes_leaves_the_old_version_and_ends_the_same(
    tmp_path: Path, model: Path, images: Path
) -> None:
    index, whole = tmp_path / "index", tmp_path / "whole"
    build(model, images, index, part="test")
    build(model, images, whole, part="train", raw_pixel_codes=True)
    settings = BuildSettings(model=model, data=images, index=index, part="train", raw_pixel_codes=True)
    run = subprocess.run([sys.executable, "-c", KILLED_ASSEMBLY, settings.model_dump_json()], check=False, capture_output=True)
    assert run.returncode == -signal.SIGKILL
    assert len(open_index(index)) == 9
    main(settings)
    assert len(open_index(index)) == 24
    records = [artifact.read_manifest(artifact.current(folder)).files for folder in (index, whole)]
    assert records[0].keys() == records[1].keys()
    for name in (artifact.VECTORS, artifact.CODES, artifact.PIXELS, artifact.PIXEL_CODES, artifact.THUMBNAILS):
        assert records[0][f"0/{name}"] == records[1][f"0/{name}"]


@pytest.mark.slow
def test_ranks_share_the_work_and_make_the_same_index(tmp_path: Path, model: Path, images: Path) -> None:
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    build(model, images, whole, part="train", atlas=True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "indexer.build"]
    options = ["--model", str(model), "--data", str(images), "--index", str(shared), "--part", "train", "--atlas"]
    run = subprocess.run(launch + options, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("24 photographs indexed") == 1
    same_files(whole, shared)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"bits": 100}, BadValue, "bits must be 0 or one of 16, 28, 32, 48, 64, 128, 256, got 100"),
        ({"bits": 0, "raw_pixel_codes": True}, BadValue, "raw_pixel_codes must be given with --bits"),
        ({"shortlist": "IVF1024,Bogus"}, BadValue, "shortlist must be .*, got 'IVF1024,Bogus'"),
        ({"max_bad_fraction": 0.4}, FC7Error, r"6 of 12 files are rejected so far, more than max_bad_fraction=0\.4"),
    ],
)
def test_what_would_fail_late_fails_first_and_publishes_nothing(
    tmp_path: Path, model: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    data = tmp_path / "data"
    write_photographs(data, 2)
    for i in range(6):
        (data / f"{i}.txt").write_text("not an image")
    with pytest.raises(error, match=message):
        build(model, data, tmp_path / "index", **changes)
    assert not (tmp_path / "index" / "current").exists()


def test_a_disk_without_room_is_seen_before_the_first_photograph(
    tmp_path: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    monkeypatch.setattr(features, "read_photographs", lambda *args: pytest.fail("a photograph was read"))
    with pytest.raises(FC7Error, match=r"the index needs up to 0\.0 GB while it is built, .* has 0\.0 GB left"):
        build(model, images, tmp_path / "index")


def test_the_manifest_tells_what_codes_and_both_stages_recall(index: Path) -> None:
    manifest = open_index(index).manifest
    assert (manifest.bits, manifest.bit_order, manifest.segments) == (128, "little", [24])
    assert manifest.shortlist is not None
    assert manifest.recall["two-stage"] == manifest.shortlist.recall_at_10 == 1.0
    assert 0 <= manifest.recall["codes"] <= 1
