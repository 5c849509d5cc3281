"""What is taken away first, in the order of a map; blurring keeps colours and takes details."""

import itertools

import numpy as np
import pytest
import torch

from training.analysis import deletion
from training.analysis.occlusion import GRID


def test_the_cells_worth_most_are_taken_away_first_and_stay_away() -> None:
    worth = np.random.default_rng(4).normal(size=(GRID, GRID))
    cells = deletion.taken_away(worth)
    assert cells.sum((1, 2)).tolist() == list(deletion.COUNTS)
    for step in cells:
        assert worth[step].min() > worth[~step].max()
    assert all((before <= after).all() for before, after in itertools.pairwise(cells))


def test_equals_are_taken_in_reading_order() -> None:
    assert deletion.taken_away(np.zeros((GRID, GRID)))[0].ravel().nonzero()[0].tolist() == list(range(deletion.COUNTS[0]))


def test_the_centre_goes_first_and_the_corners_last() -> None:
    worth = deletion.centre_first()
    assert worth[3, 3] == worth[4, 4] == worth.max()
    assert worth[0, 0] == worth[7, 7] == worth.min()
    np.testing.assert_array_equal(worth, worth.T)


def test_blurring_takes_details_and_keeps_colours() -> None:
    stripes = torch.zeros(3, 224, 224)
    stripes[0, :, ::2] = 2.0
    stripes[1] = 5.0
    found = deletion.blurred(stripes)[:, 60:-60, 60:-60]
    assert found[0].numpy() == pytest.approx(1.0, abs=0.01)
    assert found[1].numpy() == pytest.approx(5.0, rel=1e-4)
