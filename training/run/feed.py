"""Batches for training, made in the background while the network works on the one before.

Legend: B batch, C channels (RGB), H height, W width, N examples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from training.images.folders import Reject
from training.images.prefetch import ahead
from training.images.preprocess import centre_view, training_view
from training.images.squares import PickedSquares, Squares
from training.network.alexnet import AlexNetConfig, Masks
from training.run import draws
from training.run.colour import ColourNoise

_ahead = partial(ahead, workers=1, waiting=2, name="feed")


@dataclass(frozen=True)
class Batch:
    """This process's share of one batch."""

    step: int  # within the epoch, from 0
    x_BCHW: Tensor  # float32, mean subtracted
    labels_B: Tensor  # int64
    masks: Masks | None
    images: int  # in the whole batch, over all replicas
    rejects: list[Reject]  # photographs that could not be read


@dataclass(frozen=True)
class Feed:
    """The photographs that a run trains on, or is validated on."""

    squares: Squares
    chosen_N: Tensor  # int64, positions in `squares`
    mean_CHW: Tensor
    config: AlexNetConfig
    batch_size: int
    seed: int
    share: Callable[[int], slice]  # which part of a batch this process takes

    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.chosen_N) // self.batch_size)

    def majority_error(self) -> float:
        """Top-1 error of naming the most frequent class always; 1 where there are no photographs."""
        most = int(self.squares.labels_N[self.chosen_N].bincount().max()) if len(self.chosen_N) else 0
        return (len(self.chosen_N) - most) / max(len(self.chosen_N), 1)

    def training(self, epoch: int, first: int, noise: ColourNoise | None) -> Iterator[Batch]:
        """The batches of an epoch from step `first`, in the order, crops, colours and masks that follow from seed and epoch."""
        order_N = self.chosen_N[draws.order(self.seed, epoch, len(self.chosen_N))]
        picks = order_N.split(self.batch_size)
        return _ahead(lambda step: self._training(epoch, step, picks[step], noise), range(first, len(picks)))

    def validation(self) -> Iterator[Batch]:
        """Centre views of all photographs, in order."""
        picks = self.chosen_N.split(self.batch_size)
        return _ahead(lambda step: self._validation(step, picks[step]), range(len(picks)))

    def _training(self, epoch: int, step: int, picks_B: Tensor, noise: ColourNoise | None) -> Batch:
        config, count = self.config, len(picks_B)
        crops = draws.crops(self.seed, epoch, step, count, config.square_size - config.input_size)
        masks = draws.masks(self.seed, epoch, step, count, config.fc7_width, config.dropout)
        picked = self._read(picks_B)
        if masks:
            masks = (masks[0][picked.read_B], masks[1][picked.read_B])
        crops = crops.only(picked.read_B)
        x_BCHW = training_view(picked.pixels_BCHW, self.mean_CHW, config.input_size, crops, config.square_size)
        if noise:
            noise.add(x_BCHW, crops.normals_B3)
        return Batch(step, x_BCHW, self._labels(picks_B, picked), masks, count, picked.rejects)

    def _validation(self, step: int, picks_B: Tensor) -> Batch:
        picked = self._read(picks_B)
        x_BCHW = centre_view(picked.pixels_BCHW, self.mean_CHW, self.config.input_size, self.config.square_size)
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        return Batch(step, x_BCHW, self._labels(picks_B, picked), None, len(picks_B), picked.rejects)

    def _read(self, picks_B: Tensor) -> PickedSquares:
        """This process's share of the squares at some positions: `read_B` is of all positions, and false outside the share."""
        share = self.share(len(picks_B))
        picked = self.squares.read(picks_B[share])
        read_B = torch.zeros(len(picks_B), dtype=torch.bool)
        read_B[share] = picked.read_B
        return replace(picked, read_B=read_B)

    def _labels(self, picks_B: Tensor, picked: PickedSquares) -> Tensor:
        return self.squares.labels_N[picks_B[picked.read_B]]
