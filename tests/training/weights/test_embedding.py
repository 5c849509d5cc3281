"""A patch embedding is found in files of every style, and read alone; any other file is one error that says what it has."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import VisionTransformer

from training.errors import BadValue, Mismatch
from training.weights import torch_files
from training.weights.embedding import read_embedding

WEIGHT = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
STYLES = {
    "torchvision": "conv_proj.weight",
    "timm": "patch_embed.proj.weight",
    "Hugging Face": "vit.embeddings.patch_embeddings.projection.weight",
    "Hugging Face's SigLIP": "vision_model.embeddings.patch_embedding.weight",
    "on several devices": "module.patch_embed.proj.weight",
}


def beside(name: str, weight: Tensor) -> dict[str, Tensor]:
    """The weight among others, one of which has a name like it."""
    others = {"cls_token": torch.zeros(1, 1, 5), "my_conv_proj.weight": torch.zeros(2), "head.weight": torch.zeros(2, 5)}
    return {"pos_embed": torch.zeros(1, 4, 5), name: weight, **others}


def save(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize("style", sorted(STYLES))
def test_the_embedding_of_every_style_is_found(tmp_path: Path, style: str, suffix: str) -> None:
    found = read_embedding(save(tmp_path / f"a{suffix}", beside(STYLES[style], WEIGHT)))
    assert found.name == STYLES[style]
    assert torch.equal(found.weight_DCPP, WEIGHT)


def test_the_embedding_of_torchvisions_network_is_its_convolution(tmp_path: Path) -> None:
    net = VisionTransformer(image_size=32, patch_size=8, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8)
    torch.save(net.state_dict(), tmp_path / "vit.pth")
    torch.save({"model": net.state_dict(), "epoch": 3}, tmp_path / "run.pth")
    for name in ("vit.pth", "run.pth"):
        assert torch.equal(read_embedding(tmp_path / name).weight_DCPP, net.conv_proj.weight)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_become_float32(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    found = read_embedding(save(tmp_path / f"a{suffix}", {"conv_proj.weight": WEIGHT.to(dtype)}))
    assert torch.equal(found.weight_DCPP, WEIGHT.to(dtype).float())


def test_no_other_tensor_of_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members: list[str] = []
    read = torch_files._read

    def noting(archive: object, name: str, start: int, size: int) -> bytearray:
        members.append(name)
        return read(archive, name, start, size)  # type: ignore[arg-type]

    monkeypatch.setattr(torch_files, "_read", noting)
    read_embedding(save(tmp_path / "a.pth", beside("conv_proj.weight", WEIGHT)))
    assert members == ["a/byteorder", "a/data.pkl", "a/data/1"]


WRONG: dict[str, tuple[dict[str, Tensor], str]] = {
    "another network": (
        {f"features.{i}.weight": torch.zeros(2) for i in range(8)},
        r"its 8 tensors are features\.0\.weight, .*\.5\.weight, \.\.\., and none ends in conv_proj\.weight \(torchvision\)",
    ),
    "no tensor": ({}, "it has no tensors, and none ends in"),
    "two embeddings": (
        {"model.conv_proj.weight": WEIGHT, "model_ema.conv_proj.weight": WEIGHT.clone()},
        r"2 patch embeddings: model\.conv_proj\.weight, model_ema\.conv_proj\.weight",
    ),
    "video": (
        {"patch_embed.proj.weight": torch.zeros(4, 3, 2, 4, 4)},
        r"\(4, 3, 2, 4, 4\), expected floats \(D, 3, P, P\)",
    ),
    "grey": ({"patch_embed.proj.weight": torch.zeros(4, 1, 4, 4)}, r"\(4, 1, 4, 4\), expected"),
    "oblong": ({"patch_embed.proj.weight": torch.zeros(4, 3, 4, 2)}, r"\(4, 3, 4, 2\), expected"),
    "a matrix": ({"patch_embed.proj.weight": torch.zeros(4, 48)}, r"\(4, 48\), expected"),
    "one filter": ({"patch_embed.proj.weight": torch.zeros(1, 3, 4, 4)}, r"\(1, 3, 4, 4\), expected"),
    "one pixel": ({"patch_embed.proj.weight": torch.zeros(4, 3, 1, 1)}, r"\(4, 3, 1, 1\), expected"),
    "integers": ({"patch_embed.proj.weight": torch.zeros(4, 3, 4, 4, dtype=torch.int8)}, r"\(4, 3, 4, 4\), expected floats"),
    "too many values": ({"patch_embed.proj.weight": torch.zeros(2**14, 3, 16, 16)}, "and 8388608 values at most"),
    "no numbers": ({"conv_proj.weight": torch.full((4, 3, 4, 4), torch.nan)}, "values that are not finite numbers"),
    "beyond float32": (
        {"conv_proj.weight": torch.full((4, 3, 4, 4), 1e300, dtype=torch.float64)},
        "values that are not finite numbers",
    ),
    "equal filters": ({"conv_proj.weight": torch.ones(4, 3, 4, 4)}, "4 filters that are all equal"),
    "too large a patch": ({"conv_proj.weight": torch.zeros(2, 3, 65, 65)}, "P from 2 to 64"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("what", sorted(WRONG))
def test_what_is_no_patch_embedding_is_refused_by_name(tmp_path: Path, what: str, suffix: str) -> None:
    tensors, message = WRONG[what]
    path = save(tmp_path / f"a{suffix}", tensors)
    with pytest.raises(Mismatch, match=message) as caught:
        read_embedding(path)
    assert str(path) in str(caught.value)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "text": lambda _: b"hello\n",
    "half": lambda data: data[: len(data) // 2],
    "a header of 2^62 bytes": lambda data: (2**62).to_bytes(8, "little") + data[8:],
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("what", sorted(DAMAGES))
def test_damaged_files_are_one_error_of_ours(tmp_path: Path, what: str, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", {"conv_proj.weight": WEIGHT})
    path.write_bytes(DAMAGES[what](path.read_bytes()))
    if suffix == ".pth" and what == "a header of 2^62 bytes":
        path.write_bytes(path.read_bytes()[:-100])  # an archive is read from its end
    with pytest.raises(Mismatch, match=str(path)):
        read_embedding(path)


def test_other_kinds_of_files_and_none_are_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match=r"weights must be a file \.safetensors, \.pth, \.pt, \.bin, got"):
        read_embedding(tmp_path / "vit.npz")
    with pytest.raises(BadValue, match="weights must be a file that is there"):
        read_embedding(tmp_path / "vit.pth")
