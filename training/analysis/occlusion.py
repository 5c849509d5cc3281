"""What covering parts of a photograph changes: of a class's probability, or of the distance to another photograph.

A view is cut into a grid of 8 x 8 cells. Squares of whole cells, in every place, are covered one at a time with the training
mean, which is what the network takes for nothing (Zeiler and Fergus 2014, section 4.2). What a cell is worth follows from the
changes that the squares over it make.

Legend: W windows, G cells of a side, B batch, C channels (RGB), H height, W' width of a view, N cells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GRID: Final = 8  # cells of a side
SMALL: Final = (1, 2)  # sides of the squares that are covered, cells: what FC7 is moved by
LARGE: Final = (2, 4)  # what a class that the network is sure of is moved by
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


def windows(sides: Sequence[int]) -> Cells:
    """The squares of these sides, one set of cells each: bool (W, G, G)."""
    found = []
    for side in sides:
        for top in range(GRID - side + 1):
            for left in range(GRID - side + 1):
                cells_GG = np.zeros((GRID, GRID), np.bool_)
                cells_GG[top : top + side, left : left + side] = True
                found.append(cells_GG)
    return np.stack(found)


def mean_changes(changes_W: Heat, cells_WGG: Cells) -> Heat:
    """The mean change over the windows that cover each cell, and of that over their sizes; a change counts by the cell.

    What one cell is worth by itself cannot be told where, as with a class, much has to be covered before anything changes.
    """
    sizes_W = cells_WGG.sum((1, 2))
    of_sizes = []
    for size in np.unique(sizes_W):
        covering_WGG = cells_WGG[sizes_W == size].astype(np.float64)
        of_sizes.append(np.tensordot(changes_W[sizes_W == size] / size, covering_WGG, 1) / covering_WGG.sum(0))
    return np.asarray(np.mean(of_sizes, 0))


def worth(changes_W: Heat, cells_WGG: Cells) -> Heat:
    """What each cell is worth, so that what the cells of a window are worth adds up to its change as nearly as may be.

    By least squares with a penalty on what cells are worth (ridge regression with a weight of 1), as LIME has it (Ribeiro, Singh
    and Guestrin 2016): cells that no window tells apart share its change.
    """
    covered_WX = cells_WGG.reshape(len(cells_WGG), -1).astype(np.float64)
    worth_X = np.linalg.solve(covered_WX.T @ covered_WX + np.eye(covered_WX.shape[1]), covered_WX.T @ changes_W)
    return np.asarray(worth_X.reshape(cells_WGG.shape[1:]))
