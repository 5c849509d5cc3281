"""Everything random in training: order, crops, colours, dropout. Each draw follows from the seed, the epoch and the step alone.

So a run goes on after an interruption as if there had been none, and draws the same on one device, on two, and on many ranks.

Legend: B batch, N examples.
"""

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from training.images.preprocess import Crops
from training.network.alexnet import Masks


class Purpose(IntEnum):
    """What a stream of random numbers is for; streams for different purposes are independent."""

    ORDER = 0
    CROPS = 1
    DROPOUT = 2
    COLOURS = 3


def stream(seed: int, purpose: Purpose, epoch: int, step: int = 0) -> np.random.Generator:
    """The random numbers for one purpose in one step of one epoch."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, purpose, epoch, step])))


def order(seed: int, epoch: int, count: int) -> Tensor:
    """The order of an epoch: int64 (N,), a permutation of 0..count-1."""
    return torch.from_numpy(stream(seed, Purpose.ORDER, epoch).permutation(count))


def crops(seed: int, epoch: int, step: int, batch: int, margin: int) -> Crops:
    """Random crops, `margin` pixels smaller than the images, and mirrors (paper, section 4.1), of the whole batch of one step."""
    generator = stream(seed, Purpose.CROPS, epoch, step)
    tops, lefts = generator.integers(margin + 1, size=(2, batch)).tolist()
    mirrored = (generator.random(batch) < 0.5).tolist()
    normals = stream(seed, Purpose.COLOURS, epoch, step).standard_normal((batch, 3), dtype=np.float32)
    return Crops(tops, lefts, mirrored, torch.from_numpy(normals))


def masks(seed: int, epoch: int, step: int, batch: int, width: int, dropout: float) -> Masks | None:
    """The units of fc6 and of fc7 kept in one step, of both columns and for the whole batch: bool (B, width) each.

    None where `dropout` is 0.
    """
    if not dropout:
        return None
    draws = stream(seed, Purpose.DROPOUT, epoch, step).random((2, batch, width), dtype=np.float32)
    sixth, seventh = torch.from_numpy(draws >= dropout)
    return sixth, seventh
