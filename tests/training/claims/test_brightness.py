"""How far brightness moves a feature, of a network whose feature is known."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from training.claims.claim import Left
from training.claims.networks import CALTECH
from training.claims.paper import brightness
from training.claims.pixels import Pixels


class Red:
    """A network whose feature is the mean red of a view, and beside it something that never changes."""

    config = SimpleNamespace(input_size=2)

    def features(self, x_BCHW: Tensor) -> Tensor:
        red_B = x_BCHW[:, 0].mean((1, 2))
        return torch.stack([red_B, torch.full_like(red_B, 1e-3)], 1)


def left(*reds: int) -> Left:
    """Photographs of one red each, of a class each."""
    squares_NCSS = torch.tensor(reds, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()
    pixels = Pixels(squares_NCSS, torch.arange(len(reds)))
    return Left(CALTECH, 0, Red(), pixels, pixels, torch.zeros(3, 4, 4))  # type: ignore[arg-type]


def test_moves_are_shares_of_the_distance_between_photographs() -> None:
    # from 100 to 200 the distance is 1 of the first's length, back it is 1/2: 3/4 in the mean
    figures = brightness.examine(left(100, 200))
    assert figures["gain 0.5"] == pytest.approx(0.5 / 0.75, rel=1e-4)
    assert figures["bias +10"] == pytest.approx((10 / 100 + 10 / 200) / 2 / 0.75, rel=1e-4)
    assert figures["bias -100"] == pytest.approx((1 + 1 / 2) / 2 / 0.75, rel=1e-4)
    # 255 is the brightest: 200 moves by 55 only
    assert figures["gain 4"] == pytest.approx((155 / 100 + 55 / 200) / 2 / 0.75, rel=1e-4)


def test_photographs_of_one_class_have_no_distance_to_be_a_share_of() -> None:
    assert brightness.examine(left(100)) == {}
