"""Colour noise: every presentation of a photograph shifts its colours along their principal directions (paper, section 4.1).

Legend: B batch, 3 red, green and blue or the principal directions.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.images.statistics import principal_components

Reading = Literal["none", "eigenvalue", "deviation"]
STD: Final = 0.1  # of the random multiples, in the paper and in the 2012 code


@dataclass(frozen=True)
class ColourNoise:
    """How far one standard normal draw shifts red, green and blue, for each principal direction."""

    steps_33: Tensor  # float32, row i: the shift along direction i, on the 0..255 scale
    divisor: float  # what the shifted pixels, mean subtracted, are divided by

    def add(self, x_BCHW: Tensor, normals_B3: Tensor) -> None:
        """Shifts the colours of mean-subtracted pixels in place: float32 (B, 3, H, W), and the draws (B, 3)."""
        x_BCHW += (normals_B3 @ self.steps_33)[:, :, None, None]
        if self.divisor != 1:
            x_BCHW /= self.divisor


def colour_noise(covariance_33: NDArray[np.float64], reading: Reading) -> ColourNoise | None:
    """The noise that follows from the covariance of a training set's red, green and blue, on the 0..255 scale.

    eigenvalue: multiples of p_i * l_i, as the paper's text has it. Their size depends on the scale of the pixels: they are taken
    on 0..1, where they are in proportion, and brought back to 0..255.
    deviation: multiples of p_i * sqrt(l_i), the standard deviation, and the sum divided by 1.1 (2012 code, convdata_jpeg.py).
    """
    if reading == "none":
        return None
    values, vectors = principal_components(covariance_33)
    lengths = values / 255 if reading == "eigenvalue" else np.sqrt(np.maximum(values, 0))
    steps_33 = (vectors * lengths).T * STD
    return ColourNoise(torch.from_numpy(steps_33.astype(np.float32)), 1 + STD if reading == "deviation" else 1.0)
