"""Kernels made by hand, of known orientation and frequency."""

import numpy as np
from numpy.typing import NDArray

Kernels = NDArray[np.float64]
GREY = (1.0, 1.0, 1.0)
RED_GREEN = (1.0, -1.0, 0.0)
SIZE = 11


def bars(
    frequency: float,
    orientation: float,
    colour: tuple[float, ...] = GREY,
    *,
    phase: float = 0.0,
    width: float = 2.2,
    length: float = 3.0,
    centre: tuple[float, float] = (5.0, 5.0),
) -> Kernels:
    """A Gabor function (C, 11, 11) with bars `orientation` degrees counter-clockwise from horizontal, as one sees them.

    `phase` is in degrees, `frequency` in cycles a pixel, `width` (across the bars), `length` and `centre` (x, y) in pixels.
    """
    rows, columns = np.mgrid[:SIZE, :SIZE]
    right, up = columns - centre[0], centre[1] - rows
    turn = np.deg2rad(orientation)
    along = right * np.cos(turn) + up * np.sin(turn)
    across = up * np.cos(turn) - right * np.sin(turn)
    envelope = np.exp(-((across / width) ** 2) / 2 - (along / length) ** 2 / 2)
    wave = envelope * np.cos(2 * np.pi * frequency * across + np.deg2rad(phase))
    kernel: Kernels = np.array(colour)[:, None, None] * wave
    return kernel


def blob(colour: tuple[float, ...], width: float = 2.0) -> Kernels:
    """A round Gaussian spot (C, 11, 11) in the middle."""
    return bars(0.0, 0.0, colour, width=width, length=width)


def apart(one: float, other: float) -> float:
    """Degrees between two orientations, 0..90."""
    return abs((one - other + 90) % 180 - 90)
