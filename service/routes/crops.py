"""What units see of photographs, as pictures: cut from the squares that the network saw."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from indexer.opening import OpenStore
from indexer.store import Item
from training.analysis.units import Box
from training.errors import FC7Error
from training.images.preprocess import SIZE, ImageLimits, decode

THUMBNAIL_DOES: Final = 64  # pixels of a box's side in the square from which on the thumbnail has enough of it
_LARGEST: Final = 64  # of a box's side that is enlarged
_ENLARGED: Final = 176  # pixels of its side then, about
_QUALITY: Final = 85
_GREY: Final = (128, 128, 128)
Picture = Image.Image


@dataclass(frozen=True)
class Crop:
    """A part of an indexed photograph."""

    item: Item
    box: Box  # in a square of SIZE pixels


def square(store: OpenStore, item: Item, limits: ImageLimits) -> Picture:
    """The central square of an item's own file, 256 x 256 pixels; of its thumbnail where the file is not there any more."""
    try:
        original = store.original(item)
        data = original if isinstance(original, bytes) else original.read_bytes()
        pixels_CHW = decode(data, limits).pixels_CHW
    except (FC7Error, OSError):
        return thumbnail_square(store, item)
    return Image.fromarray(pixels_CHW.permute(1, 2, 0).numpy())


def thumbnail_square(store: OpenStore, item: Item) -> Picture:
    """The same by the thumbnail, which has 160 x 160 pixels."""
    thumbnail = np.asarray(Image.open(io.BytesIO(store.thumbnail(item)), formats=("JPEG",)).convert("RGB"))
    return Image.fromarray(thumbnail).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def as_png(picture: Picture, box: Box) -> bytes:
    """A part of a square; where it is small its pixels are enlarged as they are."""
    part = picture.crop(box)
    if max(part.size) <= _LARGEST:
        factor = max(1, _ENLARGED // max(part.size))
        part = part.resize((factor * part.width, factor * part.height), Image.Resampling.NEAREST)
    return _encoded(part, "PNG")


def sheet(crops: Sequence[Crop], across: int, tile: int, square_of: Callable[[Crop], Picture]) -> bytes:
    """Up to across x across crops, the first at the top left, in a JPEG; what is left over is grey."""
    picture = Image.new("RGB", (across * tile, across * tile), _GREY)
    for place, crop in enumerate(crops[: across * across]):
        part = ImageOps.pad(square_of(crop).crop(crop.box), (tile, tile), Image.Resampling.BICUBIC, _GREY)
        picture.paste(part, (place % across * tile, place // across * tile))
    return _encoded(picture, "JPEG")


def _encoded(picture: Picture, format: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, quality=_QUALITY)
    return buffer.getvalue()
