"""How faithful a heat map is: the cells that it calls worth most are taken away first, and what that does is compared.

The deletion curve of Petsiuk, Das and Saenko (2018, RISE), for what brings two photographs together as Plummer and others have it
(2020, Why do these match?). Cells are taken away by blurring: what made the map, the training mean, is not what measures it.

Legend: G cells of a side, S steps, C channels (RGB), H height, W width.
"""

from typing import Final

import numpy as np
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from training.analysis.occlusion import GRID, Cells, Heat

COUNTS: Final = (2, 5, 10, 20, 32)  # of the 64 cells, that are taken away at each step
_SIGMA: Final = 1 / 15  # of the blur, as a share of the view's side


def taken_away(worth_GG: Heat) -> Cells:
    """The cells that are worth most, COUNTS of them, for each step: bool (S, G, G); of equals the first in reading order."""
    order = np.argsort(-worth_GG.ravel(), kind="stable")
    cells_SX = np.zeros((len(COUNTS), order.size), np.bool_)
    for cells_X, count in zip(cells_SX, COUNTS, strict=True):
        cells_X[order[:count]] = True
    return cells_SX.reshape(-1, *worth_GG.shape)


def centre_first() -> Heat:
    """What a map would be that knows only that photographers put what matters in the middle."""
    places = np.arange(GRID) - (GRID - 1) / 2
    return np.asarray(-np.hypot(places[:, None], places))


def blurred(view_CHW: Tensor) -> Tensor:
    """The view without its details: its colours remain."""
    sigma = _SIGMA * view_CHW.shape[1]
    width = 2 * round(2 * sigma) + 1
    found: Tensor = gaussian_blur(view_CHW, [width, width], [sigma, sigma])
    return found
