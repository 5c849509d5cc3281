"""Covering a view: the cells that are meant, one window at a time by hand, and heat where what counts lies."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from training.analysis.occlusion import BATCH, GRID, Cells, Covering, Heat, mean_changes, windows, worth

SIDES = (1, 2, 4)


def test_every_square_of_every_size_is_covered_once() -> None:
    cells_WGG = windows(SIDES)
    expected = {(side, top, left) for side in SIDES for top in range(GRID - side + 1) for left in range(GRID - side + 1)}
    found = []
    for cells_GG in cells_WGG:
        rows, columns = np.nonzero(cells_GG)
        side = 1 + int(rows.max() - rows.min())
        assert int(columns.max() - columns.min()) == side - 1
        assert len(rows) == side**2
        found.append((side, int(rows.min()), int(columns.min())))
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("size", [224, 227, 67])
def test_the_batch_is_what_covering_one_window_at_a_time_gives(size: int) -> None:
    rng = np.random.default_rng(size)
    view, fill = rng.normal(size=(2, 3, size, size)).astype(np.float32)
    cells_WGG = windows(SIDES)[::7]
    batches = list(Covering(torch.from_numpy(view), torch.from_numpy(fill)).views(cells_WGG))
    assert max(map(len, batches)) <= BATCH
    for covered, cells_GG in zip(torch.cat(batches).numpy(), cells_WGG, strict=True):
        by_hand = view.copy()
        for row, column in zip(*np.nonzero(cells_GG), strict=True):
            top, bottom = (-(-size * edge // GRID) for edge in (row, row + 1))
            left, right = (-(-size * edge // GRID) for edge in (column, column + 1))
            by_hand[:, top:bottom, left:right] = fill[:, top:bottom, left:right]
        np.testing.assert_array_equal(covered, by_hand)


def test_without_a_fill_the_training_mean_covers_which_is_zero_in_a_view() -> None:
    view = torch.ones(3, 224, 224)
    cells_GG = np.zeros((1, GRID, GRID), np.bool_)
    cells_GG[0, 2, 3] = True
    [batch] = Covering(view).views(cells_GG)
    assert batch.sum() == 3 * (224**2 - 28**2)
    assert not batch[0, :, 2 * 28 : 3 * 28, 3 * 28 : 4 * 28].any()


@pytest.mark.parametrize("heat", [mean_changes, worth])
@pytest.mark.parametrize("quadrant", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_heat_is_in_the_quadrant_that_alone_counts(quadrant: tuple[int, int], heat: Callable[[Heat, Cells], Heat]) -> None:
    down, across = (4 * place for place in quadrant)
    view = torch.zeros(3, 224, 224)
    view[:, 28 * down : 28 * (down + 4), 28 * across : 28 * (across + 4)] = 1
    cells_WGG = windows(SIDES)
    left_W = torch.cat([batch.sum((1, 2, 3)) for batch in Covering(view).views(cells_WGG)]).numpy().astype(np.float64)
    found_GG = heat(float(view.sum()) - left_W, cells_WGG)
    top, left = divmod(int(found_GG.argmax()), GRID)
    assert (top // 4, left // 4) == quadrant
    inside = np.zeros_like(found_GG, np.bool_)
    inside[down : down + 4, across : across + 4] = True
    assert found_GG[inside].min() > 0
    assert found_GG[inside].mean() > 3 * found_GG[~inside].mean()


def test_a_mean_change_is_that_over_the_windows_that_cover_a_cell_by_the_cells_they_have() -> None:
    cells_WGG = windows(SIDES)
    changes_W = np.random.default_rng(1).normal(size=len(cells_WGG))
    found_GG = mean_changes(changes_W, cells_WGG)
    for row, column in ((0, 0), (3, 4), (7, 1)):
        of_sizes = []
        for side in SIDES:
            those = [
                change
                for change, cells in zip(changes_W, cells_WGG, strict=True)
                if cells[row, column] and cells.sum() == side**2
            ]
            of_sizes.append(sum(those) / len(those) / side**2)
        assert found_GG[row, column] == pytest.approx(sum(of_sizes) / len(of_sizes))


def test_what_cells_are_worth_adds_up_to_the_changes_and_is_what_a_penalised_fit_gives() -> None:
    cells_WGG = windows(SIDES)
    true_GG = np.random.default_rng(2).normal(size=(GRID, GRID))
    changes_W = (cells_WGG * true_GG).sum((1, 2))
    found_GG = worth(changes_W, cells_WGG)
    fitted = Ridge(alpha=1, fit_intercept=False).fit(cells_WGG.reshape(len(cells_WGG), -1), changes_W)
    np.testing.assert_allclose(found_GG.ravel(), fitted.coef_, atol=1e-8)
    assert np.corrcoef(found_GG.ravel(), true_GG.ravel())[0, 1] > 0.95
