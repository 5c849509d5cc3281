"""The mean image and the RGB covariance of photographs, exact, in one pass.

Legend: B batch, C channels (RGB), H height, W width; 33 the three channels against each other.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.images.preprocess import SIZE


def _zeros(*shape: int) -> NDArray[np.int64]:
    return np.zeros(shape, np.int64)


@dataclass
class Statistics:
    """Integer sums over photographs: nothing is rounded before the last division, so their order changes no bit.

    The largest sum grows by less than 2^32 a photograph; int64 holds it for two thousand million photographs.
    """

    count: int = 0  # photographs
    sums_CHW: NDArray[np.int64] = field(default_factory=lambda: _zeros(3, SIZE, SIZE))  # of each pixel, over photographs
    products_33: NDArray[np.int64] = field(default_factory=lambda: _zeros(3, 3))  # of each two channels, over all pixels

    def add(self, pixels_CHW: Tensor) -> None:
        """Counts one photograph, uint8 (3, 256, 256), or a batch of them, uint8 (B, 3, 256, 256)."""
        for photograph_CHW in pixels_CHW.view(-1, 3, SIZE, SIZE):
            self.count += 1
            self.sums_CHW += photograph_CHW.numpy()
            channels = photograph_CHW.flatten(1).numpy().astype(np.uint32)  # 65536 x 255 x 255 is below 2^32
            for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
                # one thread and integers: a matrix product would wake every core, beside the threads that decode
                self.products_33[i, j] += np.einsum("p,p->", channels[i], channels[j])
                self.products_33[j, i] = self.products_33[i, j]

    @property
    def mean_CHW(self) -> Tensor:
        """The mean image on 0..255: float32 (3, 256, 256). Needs at least one photograph."""
        return torch.from_numpy((self.sums_CHW / self.count).astype(np.float32))

    @property
    def covariance_33(self) -> NDArray[np.float64]:
        """Covariance of the RGB values of all pixels of all photographs, on 0..255 (paper, section 4.1): float64 (3, 3).

        The population's (divided by the number of pixels); each entry is the exact fraction, rounded once.
        """
        pixels = self.count * SIZE * SIZE
        sums = [int(total) for total in self.sums_CHW.sum((1, 2))]
        products: list[list[int]] = self.products_33.tolist()
        return np.array([[(pixels * products[i][j] - sums[i] * sums[j]) / pixels**2 for j in range(3)] for i in range(3)])


def principal_components(covariance_33: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues, descending, float64 (3,), and unit eigenvectors, the columns of float64 (3, 3), in the same order.

    Of the two signs an eigenvector can have, the one whose component of largest magnitude is positive.
    """
    values, vectors = np.linalg.eigh(covariance_33)
    values, vectors = values[::-1].copy(), vectors[:, ::-1]
    largest = vectors[np.abs(vectors).argmax(0), np.arange(len(values))]
    return values, vectors * np.sign(largest)
