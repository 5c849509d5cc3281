"""Photographs on the device: the same views as training's, the same statistics, and packed files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.claims import pixels
from training.claims.pixels import Pixels
from training.errors import FC7Error, NotReady
from training.files import write_tensors
from training.images.preprocess import Crops, centre_view, ten_views, training_view
from training.images.statistics import Statistics

SIDE = 256


@pytest.fixture(scope="module")
def some() -> Pixels:
    """Three photographs of noise, at the size that training's own functions know."""
    generator = torch.Generator().manual_seed(0)
    return Pixels(torch.randint(256, (3, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8), torch.tensor([0, 1, 0]))


def test_crops_and_mirrors_are_those_of_training(some: Pixels) -> None:
    crops = Crops([0, 7, 30], [5, 0, 12], [True, False, True], torch.zeros(3, 3))
    mean_CSS = some.mean_CSS()
    places = torch.tensor([crops.tops_B, crops.lefts_B, crops.mirrored_B])
    found = pixels.views(some.squares_NCSS, mean_CSS, places[0], places[1], places[2].bool(), 224)
    torch.testing.assert_close(found, training_view(some.squares_NCSS, mean_CSS, 224, crops), rtol=0, atol=0)


def test_the_centre_and_ten_views_are_those_of_evaluation(some: Pixels) -> None:
    mean_CSS = some.mean_CSS()
    [centre] = pixels.fixed_views(some.squares_NCSS, mean_CSS, 224, ten=False)
    torch.testing.assert_close(centre, centre_view(some.squares_NCSS, mean_CSS, 224), rtol=0, atol=0)
    ten = torch.stack(list(pixels.fixed_views(some.squares_NCSS, mean_CSS, 224, ten=True)))
    torch.testing.assert_close(ten, torch.stack(list(ten_views(some.squares_NCSS, mean_CSS, 224))), rtol=0, atol=0)


def test_mean_and_covariance_are_those_of_training(some: Pixels) -> None:
    statistics = Statistics()
    statistics.add(some.squares_NCSS)
    torch.testing.assert_close(some.mean_CSS(), statistics.mean_CHW)
    np.testing.assert_allclose(some.covariance_33(), statistics.covariance_33, rtol=1e-9)


def test_a_packed_folder_has_the_pixels_of_its_files_by_class(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 2)):
        for c, name in enumerate(("cat", "dog")):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (32, 32), (10 * i, 100 * c, 50)).save(folder / f"{i}.png")
    pixels.pack(tmp_path / "images", tmp_path / "packed" / "cifar.safetensors", 32)
    train, test = pixels.load(tmp_path / "packed" / "cifar.safetensors")
    assert (len(train), len(test)) == pixels.counts(tmp_path / "packed" / "cifar.safetensors") == (6, 4)
    assert train.squares_NCSS.shape == (6, 3, 32, 32)
    assert (train.squares_NCSS[:, 1, 0, 0] == 100 * train.labels_N).all()
    assert sorted(train.squares_NCSS[:, 0, 5, 5].tolist()) == [0, 0, 10, 10, 20, 20]


def test_what_is_not_packed_is_told_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train/cat/0", "train/cat/1", "test/cat/0", "test/dog/0"):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (9, 9, len(str(path)))).save(path)
    (tmp_path / "images" / "train" / "cat" / "1.png").write_bytes(b"\x89PNG and no more")
    pixels.pack(tmp_path / "images", tmp_path / "cifar.safetensors", 32)
    assert pixels.counts(tmp_path / "cifar.safetensors") == (1, 1)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "1 photographs of the part 'train', 1 rejected"
    assert told[1].startswith("  rejected train/cat/1.png: ")
    assert told[2:] == [
        "1 photographs of the part 'test', 1 rejected",
        "  rejected test/dog/0.png: no photograph to train on is of its class",
    ]


def test_a_file_of_other_tensors_is_not_taken_for_photographs(tmp_path: Path) -> None:
    path = tmp_path / "cifar.safetensors"
    for squares in (
        torch.zeros(2, 3, 8, 9, dtype=torch.uint8),
        torch.zeros(2, 3, 8, 8),
        torch.zeros(3, 3, 8, 8, dtype=torch.uint8),
    ):
        labels_N = torch.zeros(2, dtype=torch.int64)
        write_tensors(
            path, {"train": squares, "train.labels": labels_N, "test": squares.clone(), "test.labels": labels_N.clone()}
        )
        with pytest.raises(FC7Error, match=f"{path} does not hold packed photographs .*; remove it"):
            pixels.load(path)


def test_a_folder_that_is_not_there_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"no image folder at .*training\.datasets"):
        pixels.pack(tmp_path / "nothing", tmp_path / "packed.safetensors", 32)
    (tmp_path / "bad.safetensors").write_bytes(b"junk")
    with pytest.raises(FC7Error, match="remove it to pack them anew"):
        pixels.load(tmp_path / "bad.safetensors")
