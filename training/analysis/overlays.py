"""Heat maps to lay over the square of a photograph, and the photograph's own pixels as pictures.

Legend: G cells of a side, C channels (RGB), H height, W width.
"""

import io
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.images.preprocess import SIZE, TEN_VIEWS, ten_views

WARM: Final = (230, 97, 1)  # what is positive: an orange and a violet that colour-blind people tell apart (ColorBrewer's PuOr)
COLD: Final = (94, 60, 153)
_OPAQUE: Final = 200  # alpha of the largest
GAP: Final = 4  # pixels between two views
PER_ROW: Final = len(TEN_VIEWS) // 2  # above as they are, below mirrored


def overlay(heat_GG: NDArray[np.float64], box: tuple[float, float, float, float]) -> Image.Image:
    """Warm where the heat is above 0, cold where below, the more opaque the farther from it: RGBA of 256 x 256 pixels.

    The grid fills `box`: left, top, right and bottom as shares of the square; around it all is transparent.
    """
    largest = max(float(np.abs(heat_GG).max()), np.finfo(np.float64).tiny)
    left, top, right, bottom = (round(share * SIZE) for share in box)
    shares = Image.fromarray((heat_GG / largest).astype(np.float32))
    smooth_HW = np.asarray(shares.resize((right - left, bottom - top), Image.Resampling.BICUBIC)).clip(-1, 1)
    pixels_HWC = np.zeros((SIZE, SIZE, 4), np.uint8)
    inside_HWC = pixels_HWC[top:bottom, left:right]
    inside_HWC[..., :3] = np.where(smooth_HW[..., None] > 0, WARM, COLD)
    inside_HWC[..., 3] = (np.abs(smooth_HW) * _OPAQUE).round()
    return Image.fromarray(pixels_HWC)


def square(pixels_CHW: Tensor) -> Image.Image:
    """The square of a photograph: uint8 (3, 256, 256)."""
    return Image.fromarray(pixels_CHW.permute(1, 2, 0).numpy())


def jpeg(picture: Image.Image) -> bytes:
    """The picture as a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


@torch.inference_mode()
def ten_crops(pixels_CHW: Tensor, size: int, square: int) -> Image.Image:
    """The ten views of a photograph, uint8 (3, 256, 256), as the network gets them: down each column, in TEN_VIEWS' order."""
    nothing_CHW = torch.zeros(pixels_CHW.shape)
    height, width = (count * (size + GAP) - GAP for count in (len(TEN_VIEWS) // PER_ROW, PER_ROW))
    canvas = np.full((height, width, 3), 255, np.uint8)
    for number, crop_1CHW in enumerate(ten_views(pixels_CHW[None], nothing_CHW, size, square)):
        left, top, right, bottom = crop_box(number, size)
        canvas[top:bottom, left:right] = crop_1CHW[0].permute(1, 2, 0).round().to(torch.uint8).numpy()
    return Image.fromarray(canvas)


def crop_box(number: int, size: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of one of the ten in that picture, pixels."""
    left, top = (place * (size + GAP) for place in divmod(number, len(TEN_VIEWS) // PER_ROW))
    return left, top, left + size, top + size
