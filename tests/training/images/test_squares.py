"""The first pass and the batches: the same squares kept or decoded anew, exact notes, and no half state that is trusted."""

import hashlib
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from tests.conftest import write_photographs
from training.errors import FC7Error, Mismatch, NotReady
from training.images.folders import Example, ReadResult, list_examples, read_photographs
from training.images.preprocess import ImageLimits, Photograph, decode
from training.images.squares import Keep, Squares, lend_squares, prepare_squares

KEEPS = ("always", "never")
LIMITS = ImageLimits()
KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from training.images import squares
from training.images.folders import list_examples
from training.images.preprocess import ImageLimits

read, done = squares.read_photographs, 0
def dying(*args):
    for i, result in enumerate(read(*args)):
        if i == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        yield result

squares.read_photographs, squares._SAVE_EVERY = dying, 3
data, folder, keep = sys.argv[1:]
squares.prepare_squares(Path(data), list_examples(Path(data), "all"), Path(folder), ImageLimits(), keep)
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Nine photographs of three classes, one file that is none, and one in no class; a test may write to it."""
    root = tmp_path / "data"
    write_photographs(root, 3)
    (root / "green" / "broken.jpg").write_bytes(b"not an image")
    shutil.copy(root / "red" / "000.jpg", root / "loose.jpg")
    return root


def prepare(root: Path, folder: Path, keep: Keep = "auto", limits: ImageLimits = LIMITS) -> Squares:
    return prepare_squares(root, list_examples(root, "all"), folder, limits, keep)


def decoded(root: Path, names: Iterable[str]) -> torch.Tensor:
    return torch.stack([decode((root / name).read_bytes(), LIMITS).pixels_CHW for name in names])


@pytest.mark.parametrize("keep", KEEPS)
def test_photographs_come_in_the_order_asked_for_with_their_classes_hashes_and_mean(
    data: Path, tmp_path: Path, keep: Keep
) -> None:
    squares = prepare(data, tmp_path / "work", keep)
    names = [f"{label}/00{i}.jpg" for label in ("blue", "green", "red") for i in range(3)]
    sha256s = [hashlib.sha256((data / name).read_bytes()).hexdigest() for name in names]
    assert list(squares.hashes_and_paths()) == list(zip(sha256s, names, strict=True))
    for share in (0.0, 0.1, 0.5):
        assert squares.held_out_N(share).tolist() == [int(sha256[-16:], 16) < share * 2**64 for sha256 in sha256s]
    assert [squares.classes[i] for i in squares.labels_N] == [name.split("/")[0] for name in names]
    assert [reject.path for reject in squares.rejects] == ["green/broken.jpg", "loose.jpg"]
    assert squares.rejects[1].reason == "lies in no class's folder"
    expected_NCHW = decoded(data, names)
    torch.testing.assert_close(squares.mean_CHW.double(), expected_NCHW.double().mean(0), rtol=1e-6, atol=0)
    picks = torch.tensor([8, 0, 3, 3])
    picked = squares.read(picks)
    torch.testing.assert_close(picked.pixels_BCHW, expected_NCHW[picks], rtol=0, atol=0)
    assert picked.read_B.tolist() == [True] * 4
    assert picked.rejects == []


def test_squares_are_kept_only_where_they_take_less_than_half_of_the_free_disk(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 11 * 3 * 256 * 256
    for free, kept in ((2 * needed + 1, True), (2 * needed, False)):
        monkeypatch.setattr("shutil.disk_usage", lambda _path, free=free: SimpleNamespace(free=free))
        prepare(data, tmp_path / str(kept))
        assert (tmp_path / str(kept) / "squares.u8").exists() == kept
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=needed - 1))
    with pytest.raises(FC7Error, match=r"decoded photographs need 0\.0 GB, .* has 0\.0 GB left"):
        prepare(data, tmp_path / "work", "always")


def test_what_can_no_longer_be_read_or_has_changed_is_a_reject(data: Path, tmp_path: Path) -> None:
    squares = prepare(data, tmp_path / "work", "never")
    (data / "blue/001.jpg").unlink()
    shutil.copy(data / "blue/000.jpg", data / "red/000.jpg")
    picked = squares.read(torch.tensor([0, 1, 6, 7]))
    assert picked.read_B.tolist() == [True, False, False, True]
    torch.testing.assert_close(picked.pixels_BCHW, decoded(data, ["blue/000.jpg", "red/001.jpg"]), rtol=0, atol=0)
    assert [reject.path for reject in picked.rejects] == ["blue/001.jpg", "red/000.jpg"]
    assert "No such file" in picked.rejects[0].reason
    assert picked.rejects[1].reason == "has changed since the first pass"
    picked = squares.read(torch.tensor([1]))
    assert picked.pixels_BCHW.shape == (0, 3, 256, 256)
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(NotReady, match=f"the data set's folder {data} is gone"):
        squares.read(torch.tensor([0]))


def test_kept_squares_that_were_cut_short_are_named(data: Path, tmp_path: Path) -> None:
    squares = prepare(data, tmp_path / "work", "always")
    with (tmp_path / "work/squares.u8").open("r+b") as file:
        file.truncate(8 * 3 * 256 * 256 + 5)
    with pytest.raises(Mismatch, match=r"squares\.u8 ends before photograph 8"):
        squares.read(torch.tensor([8]))
    assert len(prepare(data, tmp_path / "work").read(torch.tensor([8])).pixels_BCHW) == 1


@pytest.mark.parametrize("keep", KEEPS)
def test_a_killed_pass_goes_on_where_it_was_and_ends_the_same(
    data: Path, tmp_path: Path, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(data, tmp_path / "whole", keep)
    run = subprocess.run([sys.executable, "-c", KILLED_RUN, data, tmp_path / "killed", keep], check=False)
    assert run.returncode == -9
    read: list[str] = []

    def recorded(root: Path, examples: list[Example], limits: ImageLimits) -> Iterable[ReadResult]:
        read.extend(example.path for example in examples)
        return read_photographs(root, examples, limits)

    monkeypatch.setattr("training.images.squares.read_photographs", recorded)
    squares = prepare(data, tmp_path / "killed", keep)
    assert read == [example.path for example in list_examples(data, "all")[6:]]
    assert list(squares.hashes_and_paths()) == list(whole.hashes_and_paths())
    assert squares.rejects == whole.rejects
    np.testing.assert_array_equal(squares.statistics.products_33, whole.statistics.products_33)
    everything = torch.arange(9)
    torch.testing.assert_close(squares.mean_CHW, whole.mean_CHW, rtol=0, atol=0)
    torch.testing.assert_close(squares.read(everything).pixels_BCHW, whole.read(everything).pixels_BCHW, rtol=0, atol=0)


def test_a_finished_pass_is_not_made_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(data, tmp_path / "work")
    monkeypatch.setattr(Photograph, "__init__", None)
    again = prepare(data, tmp_path / "work")
    assert list(again.hashes_and_paths()) == list(first.hashes_and_paths())
    assert again.rejects == first.rejects


@pytest.mark.parametrize("change", ["file", "limits", "keep", "pixels", "notes"])
def test_notes_of_another_pass_are_not_trusted(data: Path, tmp_path: Path, change: str) -> None:
    folder, limits, keep = tmp_path / "work", LIMITS, get_args(Keep)[0]
    prepare(data, folder, "always")
    if change == "file":
        shutil.copy(data / "blue/000.jpg", data / "red/002.jpg")
    elif change == "limits":
        limits = ImageLimits(max_image_pixels=10_000)
    elif change == "keep":
        keep = "never"
    elif change == "pixels":
        (folder / "squares.u8").unlink()
    else:
        (folder / "squares.safetensors").write_bytes(b"junk")
    squares = prepare(data, folder, keep, limits)
    names = [name for _, name in squares.hashes_and_paths()]
    torch.testing.assert_close(squares.read(torch.arange(9)).pixels_BCHW, decoded(data, names), rtol=0, atol=0)
    assert (folder / "squares.u8").exists() == (change != "keep")


def test_a_full_disk_is_named_and_the_pass_goes_on_where_there_is_room(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.images.squares._SAVE_EVERY", 3)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (17 * 3 * 256 * 128, unlimited[1]))
    try:
        with pytest.raises(FC7Error, match=r"squares\.u8 cannot be written: File too large"):
            prepare(data, tmp_path / "work", "always")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    squares = prepare(data, tmp_path / "work", "always")
    expected = decoded(data, [name for _, name in squares.hashes_and_paths()])
    torch.testing.assert_close(squares.read(torch.arange(9)).pixels_BCHW, expected, rtol=0, atol=0)


def test_photographs_that_were_refused_are_read_again_when_the_limits_allow_it(data: Path, tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"of 11 files 0 can be used.*\n  rejected .*more than max_image_pixels=9"):
        prepare(data, tmp_path / "work", limits=ImageLimits(max_image_pixels=9))
    assert len(prepare(data, tmp_path / "work").labels_N) == 9


@pytest.mark.parametrize("keep", KEEPS)
def test_a_run_takes_a_lent_pass_for_its_own(data: Path, tmp_path: Path, keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    squares = prepare(data, first, keep)
    lend_squares(first, second)
    with monkeypatch.context() as patch:
        patch.setattr("training.images.squares._pass_over", None)
        lent = prepare(data, second)
    picks = torch.arange(9)
    torch.testing.assert_close(lent.read(picks).pixels_BCHW, squares.read(picks).pixels_BCHW, rtol=0, atol=0)
    shutil.rmtree(first)
    torch.testing.assert_close(lent.read(picks).pixels_BCHW, decoded(data, (path for _, path in squares.hashes_and_paths())))


def test_a_pass_that_a_run_has_begun_is_not_replaced_and_does_no_harm(data: Path, tmp_path: Path) -> None:
    """The run may have half of its pixels and no notes, or no notes of the same photographs."""
    first, second = tmp_path / "first", tmp_path / "second"
    squares = prepare(data, first, "always")
    second.mkdir()
    (second / "squares.u8").write_bytes(b"half")
    lend_squares(first, second)
    found = prepare(data, second, "always")
    picks = torch.arange(9)
    torch.testing.assert_close(found.read(picks).pixels_BCHW, squares.read(picks).pixels_BCHW, rtol=0, atol=0)
    write_photographs(data / "more", 1)
    shutil.move(data / "more" / "red", data / "yellow")
    shutil.rmtree(data / "more")
    assert len(prepare(data, second, "always").labels_N) == 10
    assert (first / "squares.u8").stat().st_size == 9 * 3 * 256 * 256


def test_without_hard_links_nothing_is_lent(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(data, tmp_path / "first")

    def refuse(*_args: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    lend_squares(tmp_path / "first", tmp_path / "second")
    assert list((tmp_path / "second").iterdir()) == []
