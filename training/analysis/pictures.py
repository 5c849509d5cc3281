"""Figure 3 of the paper: a first layer's kernels as a picture.

Legend: K kernels, C channels (RGB), H height, W width.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

PER_ROW: Final = 16
SCALE: Final = 5
GAP: Final = 4


def figure3(weight_KCHW: Tensor, columns: int) -> Image.Image:
    """Figure 3: the kernels of the first column above, those of the second below, sixteen to a row.

    Each kernel is scaled by its own largest weight about mid-grey, so that form and colour show whatever its strength.
    """
    largest = weight_KCHW.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    tiles = ((weight_KCHW / largest + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return Image.fromarray(_stack([_grid(part) for part in np.array_split(tiles, columns)]))


def _grid(tiles_KHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    count, height, width, _ = tiles_KHWC.shape
    step_y, step_x = height * SCALE + GAP, width * SCALE + GAP
    rows = -(-count // PER_ROW)
    canvas = np.full((rows * step_y + GAP, min(count, PER_ROW) * step_x + GAP, 3), 255, np.uint8)
    for i, tile in enumerate(tiles_KHWC):
        top, left = i // PER_ROW * step_y + GAP, i % PER_ROW * step_x + GAP
        canvas[top : top + height * SCALE, left : left + width * SCALE] = tile.repeat(SCALE, 0).repeat(SCALE, 1)
    return canvas


def _stack(grids: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    line = np.full((2, grids[0].shape[1], 3), 96, np.uint8)
    parts = [grids[0]]
    for grid in grids[1:]:
        parts += [line, grid]
    return np.concatenate(parts)
