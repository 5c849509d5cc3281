"""Random draws: each follows from seed, epoch and step, and differs where one of them does."""

import itertools

import torch

from training.run import draws


def test_an_order_is_a_permutation_that_follows_from_seed_and_epoch() -> None:
    order = draws.order(seed=3, epoch=2, count=100)
    assert sorted(order.tolist()) == list(range(100))
    assert torch.equal(order, draws.order(3, 2, 100))
    assert not torch.equal(order, draws.order(3, 1, 100))
    assert not torch.equal(order, draws.order(4, 2, 100))


def test_masks_keep_their_share_of_units_and_differ_by_layer_and_step() -> None:
    masks = [mask for step in (0, 1) for mask in draws.masks(0, 1, step, 50, 400, 0.25) or ()]
    assert len(masks) == 4
    for one, other in itertools.combinations(masks, 2):
        assert not torch.equal(one, other)
    for mask in masks:  # 20 000 draws: the standard deviation of the share is 0.003
        assert mask.dtype == torch.bool
        assert abs(mask.float().mean().item() - 0.75) < 0.015
    assert draws.masks(0, 1, 0, 50, 400, 0.0) is None
