"""The patch embedding of vision transformers, from a file of weights: the one tensor that is read, whatever else the file has.

Legend: D filters, C channels (RGB), P side of a patch.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from training.errors import BadValue, Mismatch
from training.files import printable
from training.weights import torch_files

KEYS: Final = {
    "conv_proj.weight": "torchvision",
    "patch_embed.proj.weight": "timm",
    "patch_embeddings.projection.weight": "Hugging Face's ViT",
    "patch_embedding.weight": "Hugging Face's CLIP and SigLIP",
}  # how the tensor's name ends, and who calls it so
SAFETENSORS: Final = (".safetensors",)
TORCH: Final = (".pth", ".pt", ".bin")
_MAX_VALUES: Final = 2**23  # that of ViT-L/32, the largest of the paper's, has 1024 x 3 x 32 x 32: 3 * 2^20
_MAX_SIDE: Final = 64  # a fit of Gabor functions to filters of 1000 pixels takes minutes
_DTYPES: Final = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_SHOWN: Final = 6  # names of a file in which there is no patch embedding


@dataclass(frozen=True)
class PatchEmbedding:
    """The linear map from a patch to a token, as the convolution that it is."""

    name: str  # in the file
    weight_DCPP: Tensor  # float32 (D, 3, P, P)


def read_embedding(path: Path) -> PatchEmbedding:
    """The patch embedding in a .safetensors file, or in one of torch.save (.pth, .pt, .bin), of which nothing is run.

    Raises BadValue for a file of another kind or none; Mismatch, naming the file, where it has no patch embedding or several, or
    one that is not (D, 3, P, P) finite floats, P at most 64 and 2^23 of them at most, or whose filters are all equal.
    """
    if path.suffix not in SAFETENSORS + TORCH:
        raise BadValue("weights", str(path), f"a file {', '.join(SAFETENSORS + TORCH)}")
    if not path.is_file():
        raise BadValue("weights", str(path), "a file that is there")
    name, weight = _from_safetensors(path) if path.suffix in SAFETENSORS else _from_torch(path)
    weight = weight.float()
    if not weight.isfinite().all():
        raise Mismatch(f"{name} of {path} has values that are not finite numbers of float32")
    if weight.double().flatten(1).var(0).sum() == 0:
        raise Mismatch(f"{name} of {path} has {len(weight)} filters that are all equal, so they have no principal components")
    return PatchEmbedding(name, weight)


def _from_safetensors(path: Path) -> tuple[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            name = _choose(path, file.keys())
            entry = file.get_slice(name)
            dtype = _DTYPES.get(entry.get_dtype())
            _check(path, name, dtype, entry.get_dtype(), tuple(entry.get_shape()))
            return name, file.get_tensor(
                name
            ).clone()  # of a map: where the file is overwritten, reading it would end the process
    except SafetensorError as error:
        raise Mismatch(f"{path} is damaged or is not a safetensors file: {error}") from error


def _from_torch(path: Path) -> tuple[str, Tensor]:
    tensors = torch_files.describe(path)
    name = _choose(path, tensors)
    stored = tensors[name]
    _check(path, name, stored.dtype, str(stored.dtype).removeprefix("torch."), stored.shape)
    return name, torch_files.read_tensor(path, stored)


def _choose(path: Path, names: Iterable[str]) -> str:
    """The name that ends as one of KEYS."""
    names = sorted(names)
    found = [name for name in names if any(f".{name}".endswith(f".{key}") for key in KEYS)]
    if len(found) > 1:
        raise Mismatch(f"{path} has {len(found)} patch embeddings: {_list(found)}; save the network of one of them alone")
    if not found:
        keys = ", ".join(f"{key} ({whose})" for key, whose in KEYS.items())
        tensors = f"its {len(names)} tensors are {_list(names)}" if names else "it has no tensors"
        raise Mismatch(f"{path} has no patch embedding: {tensors}, and none ends in {keys}")
    return found[0]


def _list(names: list[str]) -> str:
    shown = ", ".join(printable(name)[:80] for name in names[:_SHOWN])
    return f"{shown}, ..." if len(names) > _SHOWN else shown


def _check(path: Path, name: str, dtype: torch.dtype | None, shown: str, shape: tuple[int, ...]) -> None:
    """Raises Mismatch, before a value is read, for what no patch embedding of colour photographs is."""
    square = len(shape) == 4 and shape[1] == 3 and 2 <= shape[2] == shape[3] <= _MAX_SIDE and shape[0] >= 2
    if dtype not in _DTYPES.values() or not square or math.prod(shape) > _MAX_VALUES:
        wanted = f"floats (D, 3, P, P), D from 2 on, P from 2 to {_MAX_SIDE} and {_MAX_VALUES} values at most"
        raise Mismatch(f"{name} of {path} is {shown} {shape!s:.80}, expected {wanted}")
