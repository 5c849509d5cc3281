"""What covering parts of a photograph changes: of a class's probability, or of the distance to another photograph.

A view is cut into a grid of 8 x 8 cells. Squares of whole cells, in every place, are covered one at a time with the training
mean, which is what the network takes for nothing (Zeiler and Fergus 2014, section 4.2). What a cell is worth is the mean change
over the squares that cover it.

Legend: W windows, G cells of a side, B batch, C channels (RGB), H height, W' width of a view, N cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GRID: Final = 8  # cells of a side
SIDES: Final = (2, 4)  # of the squares that are covered, cells
BATCH: Final = 25  # views that go through the network at once: about a tenth of a second

Cells = NDArray[np.bool_]
Heat = NDArray[np.float64]


@dataclass(frozen=True)
class Covering:
    """What parts of a view are covered with."""

    view_CHW: Tensor  # float32, mean-subtracted
    fill_CHW: Tensor | None = None  # None for the training mean

    def views(self, cells_WGG: Cells) -> Iterator[Tensor]:
        """The view once for each set of cells, these covered: float32 (B, C, H, W), BATCH at a time."""
        cell_H = torch.arange(self.view_CHW.shape[1]) * GRID // self.view_CHW.shape[1]
        fill_CHW = torch.zeros_like(self.view_CHW) if self.fill_CHW is None else self.fill_CHW
        for covered_BGG in torch.from_numpy(cells_WGG).split(BATCH):
            covered_B1HW = covered_BGG[:, cell_H][:, :, cell_H][:, None]
            yield torch.where(covered_B1HW, fill_CHW, self.view_CHW)


def windows() -> Cells:
    """The squares, one set of cells each: bool (W, G, G)."""
    found = []
    for side in SIDES:
        for top in range(GRID - side + 1):
            for left in range(GRID - side + 1):
                cells_GG = np.zeros((GRID, GRID), np.bool_)
                cells_GG[top : top + side, left : left + side] = True
                found.append(cells_GG)
    return np.stack(found)


def heat(changes_W: Heat, cells_WGG: Cells) -> Heat:
    """What each cell is worth: a window's change divided by its cells, the mean over the windows of a size that cover the cell.

    Of this the mean over sizes, so that the few large windows have as much say as the many small.
    """
    sizes_W = cells_WGG.sum((1, 2))
    of_sizes = []
    for size in np.unique(sizes_W):
        covering_WGG = cells_WGG[sizes_W == size].astype(np.float64)
        of_sizes.append(np.tensordot(changes_W[sizes_W == size] / size, covering_WGG, 1) / covering_WGG.sum(0))
    return np.asarray(np.mean(of_sizes, 0))
