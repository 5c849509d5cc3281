"""A small vision transformer learns, goes on where it was interrupted, and leaves a file whose embedding can be read."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.conftest import write_squares
from training import vit
from training.errors import BadValue, Mismatch, NotReady
from training.images.preprocess import Crops
from training.vit import VitSettings, main, rate, read_pictures, views
from training.weights.embedding import read_embedding


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """27 photographs of three classes, in files whose hashes are the same everywhere: two of them are held out."""
    root = tmp_path_factory.mktemp("data")
    write_squares(root / "train", 9)
    return root


@pytest.fixture(autouse=True)
def short_warmup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit, "WARMUP", 2)
    monkeypatch.setattr(vit, "BATCH", 8)


def settings(data: Path, out: Path, **changes: object) -> VitSettings:
    return VitSettings.model_validate({"data": data, "out": out, "patch": 16, "epochs": 2, "precision": "float32", **changes})


def stops_after(steps: int) -> Callable[[], object]:
    """In place of `delayed_stop`: Ctrl-C in a step."""

    @contextmanager
    def stop() -> Iterator[Callable[[], bool]]:
        answers = iter([False] * (steps - 1) + [True])
        yield lambda: next(answers)

    return stop


def test_it_learns_and_leaves_an_embedding_that_can_be_read(data: Path, tmp_path: Path) -> None:
    main(settings(data, tmp_path, epochs=6))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] < 0.3 < 0.9 < rows[0]["loss"]
    assert rows[-1]["top1_error"] == 0
    found = read_embedding(tmp_path / vit.WEIGHTS)
    assert found.name == "conv_proj.weight"
    assert found.weight_DCPP.shape == (192, 3, 16, 16)
    vit.network(16, 3).load_state_dict(load_file(tmp_path / vit.WEIGHTS))
    with safe_open(tmp_path / vit.WEIGHTS, "pt") as file:
        assert json.loads(file.metadata()["classes"]) == ["blue", "green", "red"]


@pytest.mark.parametrize("steps", [2, 3])
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    main(settings(data, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(vit, "delayed_stop", stops_after(steps))  # 3: in the last step of the first epoch
        with pytest.raises(KeyboardInterrupt):
            main(settings(data, tmp_path / "part"))
    assert not (tmp_path / "part" / vit.WEIGHTS).exists()
    with pytest.raises(Mismatch, match="was made with seed=0, not 1"):
        main(settings(data, tmp_path / "part", seed=1))
    main(settings(data, tmp_path / "part"))
    whole, part = (load_file(tmp_path / name / vit.WEIGHTS) for name in ("whole", "part"))
    assert all(torch.equal(whole[name], part[name]) for name in whole)
    assert not (tmp_path / "part" / vit.STATE).exists()
    assert len((tmp_path / "part" / "steps.jsonl").read_text().splitlines()) == 6


def test_a_trained_network_is_left_alone_and_other_settings_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(settings(data, tmp_path, epochs=1))
    before = (tmp_path / vit.WEIGHTS).read_bytes()
    main(settings(data, tmp_path, epochs=1))
    assert "is trained already, with these settings" in capsys.readouterr().out
    with pytest.raises(Mismatch, match="was made with epochs=1, not 2"):
        main(settings(data, tmp_path))
    assert (tmp_path / vit.WEIGHTS).read_bytes() == before
    (tmp_path / vit.WEIGHTS).write_bytes(b"another file")
    with pytest.raises(Mismatch, match=r"is not what training\.vit writes"):
        main(settings(data, tmp_path))


def test_a_damaged_state_is_an_error_that_names_it(data: Path, tmp_path: Path) -> None:
    (tmp_path / vit.STATE).write_bytes(b"no state")
    with pytest.raises(Mismatch, match=f"{vit.STATE} is not a state of this run"):
        main(settings(data, tmp_path))


def test_photographs_of_32_pixels_are_read_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    for i, name in enumerate("abab"):
        (tmp_path / "train" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i]).save(tmp_path / "train" / name / f"{i}.png")
    (tmp_path / "train" / "a" / "broken.png").write_bytes(b"\x89PNG")
    pictures = read_pictures(tmp_path)
    assert pictures.labels_N.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(pictures.pixels_NCHW.numpy(), pixels[[0, 2, 1, 3]].transpose(0, 3, 1, 2))
    mean_C, deviation_C = pictures.colours()
    np.testing.assert_allclose(mean_C, pixels.reshape(-1, 3).mean(0), rtol=1e-6)
    np.testing.assert_allclose(deviation_C, pixels.reshape(-1, 3).std(0), rtol=1e-5)


def test_too_few_classes_and_too_few_photographs_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit, "HELD_OUT", 0)
    for name in ("one", "two"):
        (tmp_path / name / "train" / "a").mkdir(parents=True)
        Image.new("RGB", (32, 32), "red").save(tmp_path / name / "train" / "a" / "1.bmp")
    with pytest.raises(NotReady, match=r"at least two classes; there are \['a'\]"):
        main(settings(tmp_path / "one", tmp_path / "out"))
    (tmp_path / "two" / "train" / "b").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "two" / "train" / "b" / "1.bmp")
    with pytest.raises(BadValue, match=r"data must be a folder of more photographs \(0 of 2 are held out\)"):
        main(settings(tmp_path / "two", tmp_path / "out"))


def test_views_are_crops_within_a_black_margin() -> None:
    pixels = np.random.default_rng(1).integers(1, 256, (3, 3, 32, 32), np.uint8)
    padded = np.pad(pixels, ((0, 0), (0, 0), (4, 4), (4, 4)))
    found = views(torch.from_numpy(pixels), Crops([0, 4, 8], [0, 4, 3], [False, True, False], torch.zeros(3, 3)))
    np.testing.assert_array_equal(found[0], padded[0, :, :32, :32])
    np.testing.assert_array_equal(found[1], pixels[1, :, :, ::-1])
    np.testing.assert_array_equal(found[2], padded[2, :, 8:40, 3:35])


def test_the_embedding_starts_as_it_is_told_or_as_torchvisions() -> None:
    for std, expected in ((0.002, 0.002), (None, 1 / 768**0.5)):
        assert vit.network(16, 3, std).conv_proj.weight.std().item() == pytest.approx(expected, rel=0.02)


def test_the_rate_rises_and_falls_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit, "WARMUP", 10)
    assert rate(0.5, 0, 100) == pytest.approx(0.05)
    assert rate(0.5, 50, 100) == pytest.approx(0.25)
    assert rate(0.5, 25, 100) == pytest.approx(0.25 * (1 + math.sqrt(0.5)))
    assert rate(0.5, 99, 100) < 0.001
