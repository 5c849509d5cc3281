"""Figure 3: the order of the kernels, and their scaling about grey."""

import numpy as np
import torch

from training.analysis import pictures


def test_kernels_are_laid_out_column_by_column_and_scaled_about_grey() -> None:
    weight = torch.zeros(40, 3, 2, 2)
    weight[0, 0] = 0.5  # red, in the first column's first row
    weight[17] = -2.0  # black, in its second row
    weight[20, :, 0, 0] = 3.0  # one white corner, first of the second column
    picture = np.asarray(pictures.figure3(weight, columns=2))
    tile, gap = 2 * pictures.SCALE, pictures.GAP
    second_row, lower = gap + tile + gap, 2 * (tile + gap) + gap + 2 + gap
    assert picture[gap, gap].tolist() == [255, 128, 128]
    assert picture[second_row, gap + (tile + gap)].tolist() == [0, 0, 0]
    assert picture[lower, gap].tolist() == [255, 255, 255]
    assert picture[lower, gap + pictures.SCALE].tolist() == [128, 128, 128]
