"""Figure 3: the order of the kernels, their scaling about grey, and how much of a kernel is colour."""

import numpy as np
import torch

from training.analysis import kernels


def test_kernels_are_laid_out_column_by_column_and_scaled_about_grey() -> None:
    weight = torch.zeros(40, 3, 2, 2)
    weight[0, 0] = 0.5  # red, in the first column's first row
    weight[17] = -2.0  # black, in its second row
    weight[20, :, 0, 0] = 3.0  # one white corner, first of the second column
    picture = np.asarray(kernels.picture(weight, columns=2))
    tile, gap = 2 * kernels.SCALE, kernels.GAP
    second_row, lower = gap + tile + gap, 2 * (tile + gap) + gap + 2 + gap
    assert picture[gap, gap].tolist() == [255, 128, 128]
    assert picture[second_row, gap + (tile + gap)].tolist() == [0, 0, 0]
    assert picture[lower, gap].tolist() == [255, 255, 255]
    assert picture[lower, gap + kernels.SCALE].tolist() == [128, 128, 128]


def test_colour_is_the_share_of_energy_off_the_grey_axis() -> None:
    weight = torch.zeros(3, 3, 2, 2)
    weight[0] = 0.7
    weight[1, 0], weight[1, 1] = 1.0, -1.0
    weight[2, 0] = 1.0
    figures = kernels.figures(weight, columns=1)
    np.testing.assert_allclose([kernel.colour for kernel in figures], [0, 1, 2 / 3], atol=1e-12)
    np.testing.assert_allclose([kernel.norm for kernel in figures], [0.7 * 12**0.5, 8**0.5, 2.0], rtol=1e-6)
