"""Photographs made up, packed; and a scale at which every claim takes moments."""

from pathlib import Path

import pytest
import torch

from training.claims import scale
from training.claims.scale import Scale
from training.files import write_tensors

TINY = Scale({"cifar": 10, "caltech": 12}, 20, {"cifar": 7, "caltech": 10}, {"cifar": 2, "caltech": 1}, 3, pilots=True, seeds=2)


def write_packed(path: Path, side: int, train: int, test: int) -> None:
    """Photographs of three classes, each of a colour of its own with noise."""
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for part, count in (("train", train), ("test", test)):
        labels_N = torch.arange(count) % 3
        noise = torch.randint(60, (count, 3, side, side), generator=generator, dtype=torch.uint8)
        noise[torch.arange(count), labels_N] += 150
        tensors |= {part: noise, f"{part}.labels": labels_N}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with packed photographs to run claims in, at a tiny scale."""
    monkeypatch.setitem(scale.SCALES, "quick", TINY)
    write_packed(tmp_path / "out" / "packed" / "cifar.safetensors", 32, 20, 8)
    write_packed(tmp_path / "out" / "packed" / "caltech.safetensors", 128, 12, 5)
    return tmp_path / "out"
