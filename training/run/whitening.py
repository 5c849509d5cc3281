"""A whitened gradient for conv1: a departure from the paper that gives its kernels fine structure within minutes.

Neighbouring pixels are alike, so most of the energy of a photograph's patches lies in a few smooth directions, and gradient
descent learns those first: the kernels of a short run are blobs. The gradient times C^-a, C the covariance of patches, is
what gradient descent on patches times C^(-a/2) would have: a = 1 makes patches white, a smaller one evens them out in part.

Legend: N patches, P the weights of a conv1 kernel, 3 x 11 x 11, B batch, C channels (RGB), H height, W width.
"""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from training.images.preprocess import training_view
from training.network.alexnet import KERNELS
from training.run import draws
from training.run.feed import Feed

PATCH: Final = 3 * KERNELS[0] ** 2
FLOOR: Final = 1e-3  # of the largest eigenvalue, added to all: directions of less energy are noise
_PHOTOGRAPHS, _PATCHES, _BATCH = 1_000, 20_000, 64
_EPOCH: Final = 0  # of the draws, before the run's first


def whitening(feed: Feed, exponent: float) -> Tensor:
    """What conv1's gradient is multiplied by: float32 (P, P), symmetric, from patches of photographs that `feed` trains on.

    Which patches follows from the feed's seed alone.
    """
    products_PP, count = torch.zeros(PATCH, PATCH, dtype=torch.float64), 0
    for patches_NP in _patches(feed):
        products_PP += patches_NP.T @ patches_NP
        count += len(patches_NP)
    return power(products_PP / max(count, 1), -exponent).float()


def power(covariance_PP: Tensor, exponent: float) -> Tensor:
    """(C + FLOOR l)^exponent, l the largest eigenvalue of C, scaled so that the direction of l keeps its length.

    Float64 (P, P), symmetric, from one.
    """
    values_P, vectors_PP = torch.linalg.eigh(covariance_PP)
    largest = values_P[-1].clamp_min(torch.finfo(torch.float64).tiny)
    lengths_P = ((values_P.clamp_min(0) / largest + FLOOR) / (1 + FLOOR)) ** exponent
    matrix_PP: Tensor = (vectors_PP * lengths_P) @ vectors_PP.T
    return matrix_PP


def whiten(weight_KCHW: Tensor, matrix_PP: Tensor) -> None:
    """Multiplies the gradient of some of conv1's kernels, each by itself, in place; does nothing where there is none."""
    gradient_KCHW = weight_KCHW.grad
    if gradient_KCHW is not None:
        gradient_KCHW.copy_((gradient_KCHW.flatten(1) @ matrix_PP.to(gradient_KCHW.device)).view(gradient_KCHW.shape))


def _patches(feed: Feed) -> Iterator[Tensor]:
    """Random patches as conv1 sees them, some of each of some photographs: float64 (N, P) at a time."""
    config = feed.config
    picks = feed.chosen_N[draws.order(feed.seed, _EPOCH, len(feed.chosen_N))][:_PHOTOGRAPHS]
    each, margin = -(-_PATCHES // len(picks)), config.square_size - KERNELS[0]
    scale_C11 = torch.tensor(config.pixel_scale, dtype=torch.float64)[:, None, None]
    for step, picks_B in enumerate(picks.split(_BATCH)):
        picked = feed.squares.read(picks_B)
        for round in range(each):
            crops = draws.crops(feed.seed, _EPOCH, step * each + round, len(picks_B), margin).only(picked.read_B)
            x_BCHW = training_view(picked.pixels_BCHW, feed.mean_CHW, KERNELS[0], crops, config.square_size)
            yield (x_BCHW * scale_C11).flatten(1)
