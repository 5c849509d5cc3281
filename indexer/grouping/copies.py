"""Copies of indexed photographs as people make them, and how far the network's features of them are from the photograph's own.

Legend: N photographs, C channels, H height, W width, D components of a feature.
"""

import io
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from indexer.arrays import Floats, Vectors
from indexer.metric import Metric, distances_of, have_vectors, vectors_of
from indexer.store import Item, Store
from training.checkpoint import Model
from training.errors import FC7Error
from training.images.preprocess import SIZE, ImageLimits, decode
from training.program import progress

_BATCH: Final = 64
Picture: TypeAlias = Image.Image
Change: TypeAlias = Callable[[Picture], Picture]


def recompressed(quality: int) -> Change:
    """Written as a JPEG file of this quality, and read again."""

    def change(picture: Picture) -> Picture:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def scaled(share: float) -> Change:
    """Both sides times `share`."""
    return lambda picture: picture.resize((round(share * picture.width), round(share * picture.height)), Image.Resampling.LANCZOS)


def cropped(share: float) -> Change:
    """Without this share of its height at the top and of its width at the left."""
    return lambda picture: picture.crop((round(share * picture.width), round(share * picture.height), *picture.size))


def brightened(factor: float) -> Change:
    """All values times a factor."""
    return lambda picture: ImageEnhance.Brightness(picture).enhance(factor)


CHANGES: Final[dict[str, Change]] = {
    "JPEG of quality 50": recompressed(50),
    "half the size": scaled(0.5),
    "5 % cropped off": cropped(0.05),
    "20 % brighter": brightened(1.2),
}


def distances(store: Store, model: Model, items: Sequence[Item], limits: ImageLimits) -> dict[str, Floats]:
    """How far a copy of each item is from it, by the store's metric, for each of CHANGES: (N,).

    What is changed is the central square of the photograph, at 256 x 256, or of its thumbnail where its file cannot be read.
    A feature of zeros, which has no direction, is at infinity by cosine.
    """
    squares = [_square(store, item, limits) for item in progress(items, len(items), "photographs to copy", "photographs")]
    ways: dict[str, Change] = {"as it is": lambda picture: picture, **CHANGES}
    features = {}
    for name, change in progress(ways.items(), len(ways), "copies", "changes"):
        copies = [_pixels(change(Image.fromarray(square.permute(1, 2, 0).numpy()))) for square in squares]
        features[name] = np.concatenate(
            [model.features(torch.stack(copies[start : start + _BATCH])).numpy() for start in range(0, len(copies), _BATCH)]
        )
    own_ND = features.pop("as it is")
    return {name: _apart(own_ND, copies_ND, store.metric) for name, copies_ND in features.items()}


def _square(store: Store, item: Item, limits: ImageLimits) -> Tensor:
    """The central square, uint8 (3, 256, 256)."""
    try:
        original = store.original(item)
        return decode(original if isinstance(original, bytes) else original.read_bytes(), limits).pixels_CHW
    except (FC7Error, OSError):
        return decode(store.thumbnail(item), limits).pixels_CHW


def _pixels(picture: Picture) -> Tensor:
    square = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def _apart(one_ND: Vectors, other_ND: Vectors, metric: Metric) -> Floats:
    there_N = have_vectors(one_ND, metric) & have_vectors(other_ND, metric)
    squared_N = np.full(len(one_ND), np.inf)
    if there_N.any():
        own_ND, changed_ND = (vectors_of(rows_ND[there_N], metric).astype(np.float64) for rows_ND in (one_ND, other_ND))
        squared_N[there_N] = np.square(own_ND - changed_ND).sum(1)
    return distances_of(squared_N, metric).astype(np.float64)
