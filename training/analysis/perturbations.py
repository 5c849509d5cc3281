"""What a camera, a hand or a file format does to a photograph: gain, bias, colour, mirror, shift, scale, turn, JPEG, blur.

Each takes a square uint8 (256, 256, 3) and a level and gives such a square, before any crop. Values are rounded and clipped to
0..255, as a camera would. What moves pixels takes those beyond the edge from the square's reflection.

Legend: C channels (RGB), H height, W width, 3 red, green and blue or the principal directions.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from training.images.preprocess import SIZE
from training.images.statistics import principal_components

Kind = Literal["gain", "bias", "colour", "mirror", "shift", "scale", "turn", "jpeg", "blur"]
Square = NDArray[np.uint8]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
STD: Final = 0.1  # of training's random multiples, which a level of colour multiplies
PAD: Final = 64  # pixels of reflection on each side: enough for a turn by 45 degrees, and for a scale of 0.7
_BILINEAR: Final = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Perturbation:
    """One kind: what its level counts, where nothing changes, and the levels that are measured."""

    unit: str
    identity: float  # beyond the last level where it is no level of the same scale, as with JPEG
    levels: tuple[float, ...]


PERTURBATIONS: Final[dict[Kind, Perturbation]] = {
    "gain": Perturbation("pixels times", 1.0, (0.25, 0.5, 0.7, 0.85, 1.2, 1.5, 2.0, 4.0)),
    "bias": Perturbation("pixels plus", 0.0, (-100.0, -60.0, -30.0, -10.0, 10.0, 30.0, 60.0, 100.0)),
    "colour": Perturbation("times the noise of training", 0.0, (1.0, 2.0, 4.0, 8.0, 16.0)),
    "mirror": Perturbation("mirrored", 0.0, (1.0,)),
    "shift": Perturbation("pixels to the right", 0.0, (2.0, 4.0, 8.0, 16.0, 32.0)),
    "scale": Perturbation("times as large", 1.0, (0.7, 0.8, 0.9, 1.1, 1.25, 1.5, 2.0)),
    "turn": Perturbation("degrees to the left", 0.0, (2.0, 5.0, 10.0, 20.0, 45.0, 90.0, 180.0)),
    "jpeg": Perturbation("JPEG quality", 100.0, (95.0, 75.0, 50.0, 30.0, 15.0, 5.0)),
    "blur": Perturbation("sigma, pixels", 0.0, (0.5, 1.0, 2.0, 4.0, 8.0)),
}
POINTS: Final[tuple[tuple[Kind, float], ...]] = tuple(
    (kind, level) for kind, perturbation in PERTURBATIONS.items() for level in perturbation.levels
)


@dataclass(frozen=True)
class Variant:
    """A perturbed photograph."""

    kind: Kind
    level: float
    pixels_CHW: Tensor  # uint8 (3, 256, 256)
    clipped: float  # share of the values that were clipped at 0 or 255


def gain(square: Square, level: float) -> tuple[Square, float]:
    """Every value times `level`, and the share of values that were clipped."""
    return _within(square * np.float64(level))


def bias(square: Square, level: float) -> tuple[Square, float]:
    """Every value plus `level`, and the share of values that were clipped."""
    return _within(square + np.float64(level))


def colour(square: Square, level: float, step_3: NDArray[np.float64]) -> tuple[Square, float]:
    """`level` steps in red, green and blue, the same for every pixel, and the share of values that were clipped."""
    return _within(square + level * step_3)


def colour_step(covariance_33: NDArray[np.float64], normals_3: NDArray[np.float64]) -> NDArray[np.float64]:
    """What one draw of training's colour noise adds to red, green and blue, on 0..255: float64 (3,).

    The sum of p_i * sqrt(l_i) * STD * normal_i over the principal directions (2012 code; the paper's text has l_i).
    """
    values, vectors = principal_components(covariance_33)
    step_3: NDArray[np.float64] = vectors @ (STD * np.sqrt(np.maximum(values, 0)) * normals_3)
    return step_3


def mirror(square: Square) -> Square:
    """Left for right."""
    return square[:, ::-1]


def shift(square: Square, level: float) -> Square:
    """The picture moved by `level` whole pixels, up to PAD, to the right."""
    start = PAD - int(level)
    return _padded(square)[PAD : PAD + SIZE, start : start + SIZE]


def scale(square: Square, level: float) -> Square:
    """The picture `level` times as large about its middle, 2/3 or more; bilinear, and averaged where it becomes smaller."""
    margin = PAD + (SIZE - SIZE / level) / 2
    box = (margin, margin, margin + SIZE / level, margin + SIZE / level)
    return np.asarray(Image.fromarray(_padded(square)).resize((SIZE, SIZE), _BILINEAR, box=box))


def turn(square: Square, level: float) -> Square:
    """The picture turned by `level` degrees about its middle, counter-clockwise; bilinear."""
    turned = Image.fromarray(_padded(square)).rotate(level, _BILINEAR)
    return np.asarray(turned.crop((PAD, PAD, PAD + SIZE, PAD + SIZE)))


def jpeg(square: Square, level: float) -> Square:
    """The picture as Pillow writes and reads it as a JPEG of quality `level`, its colours at half the resolution."""
    with io.BytesIO() as file:
        Image.fromarray(square).save(file, "JPEG", quality=int(level))
        return np.asarray(Image.open(file))


def blur(square: Square, level: float) -> Square:
    """The picture under a Gaussian of `level` pixels, which Pillow takes for three boxes; the edge's pixels go on beyond it."""
    return np.asarray(Image.fromarray(square).filter(ImageFilter.GaussianBlur(level)))


def variants(pixels_CHW: Tensor, step_3: NDArray[np.float64]) -> Iterator[Variant]:
    """A photograph uint8 (3, 256, 256) at every point of POINTS, in their order; `step_3` is its own draw of colour noise."""
    square = np.ascontiguousarray(pixels_CHW.permute(1, 2, 0).numpy())
    changing: dict[Kind, Callable[[Square, float], tuple[Square, float]]] = {
        "gain": gain,
        "bias": bias,
        "colour": lambda square, level: colour(square, level, step_3),
    }
    moving: dict[Kind, Callable[[Square, float], Square]] = {
        "mirror": lambda square, _level: mirror(square),
        "shift": shift,
        "scale": scale,
        "turn": turn,
        "jpeg": jpeg,
        "blur": blur,
    }
    for kind, level in POINTS:
        made, clipped = changing[kind](square, level) if kind in changing else (moving[kind](square, level), 0.0)
        yield Variant(kind, level, torch.from_numpy(made.transpose(2, 0, 1).copy()), clipped)


def _within(values: NDArray[np.float64]) -> tuple[Square, float]:
    rounded = np.rint(values)
    clipped = float(np.mean((rounded < 0) | (rounded > 255)))
    return rounded.clip(0, 255).astype(np.uint8), clipped


def _padded(square: Square) -> Square:
    return np.pad(square, ((PAD, PAD), (PAD, PAD), (0, 0)), "reflect")
