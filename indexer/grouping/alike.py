"""Whether two thumbnails show the same photograph: by its pixels, whatever a network makes of them.

The middle of the one is laid on the other at every place and at some scales, and the best correlation counts. Both are seen
without their slow changes of brightness. So a photograph is known again that was recompressed, scaled, brightened, or cropped by
up to a tenth; one that is mirrored or turned far is not.

Legend: H height, W width, T templates, P pixels of a template, L places.
"""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy import ndimage

from indexer.arrays import Vectors

# Of 500 pairs of neighbours in Caltech-101, and of 500 of fruit, .44 is the 95th percentile. Those above .8 are copies, and shots
# of one scene, moved a little. Copies with 10 % cropped off have .88 at the 10th percentile.
ALIKE: Final = 0.8
_SIDE: Final = 64
_MIDDLE: Final = 44
_SIDES: Final = (54, 56, 59, 61, 64, 67, 69, 72, 74, 77)  # of the one, while the other has _SIDE: .84 to 1.2 of it
_SLOW: Final = 4.0  # pixels; what changes more slowly is left out
_FAINT: Final = 1.0  # of 255: a deviation of less is noise of a plain surface


@dataclass(frozen=True)
class Look:
    """What is compared of a thumbnail: its middle at each scale, and the whole at one."""

    templates_TP: Vectors  # of mean 0 and length 1, or shorter where faint
    whole_HW: Vectors


def look_of(thumbnail: bytes) -> Look:
    """The look of a JPEG file's picture, a square."""
    with Image.open(io.BytesIO(thumbnail)) as image:
        luma = image.convert("L")
    sharp = {side: _sharp(luma.resize((side, side), Image.Resampling.BOX)) for side in _SIDES}
    middles = []
    for side, picture_HW in sharp.items():
        start = (side - _MIDDLE) // 2
        middles.append(picture_HW[start : start + _MIDDLE, start : start + _MIDDLE].reshape(-1))
    return Look(_unit(np.stack(middles)), sharp[_SIDE])


def correlation(one: Look, other: Look) -> float:
    """The best correlation of the middle of one with any place of the other: at most 1."""
    places_LP = sliding_window_view(other.whole_HW, (_MIDDLE, _MIDDLE)).reshape(-1, _MIDDLE**2)
    return float((one.templates_TP @ _unit(places_LP).T).max())


def _sharp(picture: Image.Image) -> Vectors:
    pixels_HW = np.asarray(picture, np.float32)
    sharp: Vectors = pixels_HW - ndimage.gaussian_filter(pixels_HW, _SLOW)
    return sharp


def _unit(rows_LP: Vectors) -> Vectors:
    centred_LP = rows_LP - rows_LP.mean(1, keepdims=True)
    lengths_L = np.linalg.norm(centred_LP, axis=1, keepdims=True)
    unit: Vectors = centred_LP / np.maximum(lengths_L, _FAINT * np.sqrt(rows_LP.shape[1]))
    return unit
