"""Gabor functions fitted to kernels: a plane wave under a Gaussian, the same for all channels but for strength and phase.

At x pixels to the right of the window's left column and y pixels below its top row, the model of channel c is

    a_c exp(-u^2 / 2 su^2 - v^2 / 2 sv^2) cos(2 pi f u + p_c)

with u the distance from the centre (x0, y0) across the bars and v that along them (Daugman, 1985; Jones and Palmer, 1987).

Legend: K kernels, C channels, P pixels of a window, S starts, B fits under way, A atoms, Q the six parameters: x0, y0, f, the
angle of the wave (y downwards), log su and log sv.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_Complexes = NDArray[np.complex128]

HALF_AMPLITUDE: Final = math.sqrt(2 * math.log(2))  # standard deviations from a Gaussian's centre to half its height
_WIDTHS: Final = (1.2, 2.0, 3.3)  # standard deviations of the starts, pixels
_FREQUENCIES: Final = (0.0, 0.06, 0.1, 0.15, 0.2, 0.26, 0.32, 0.39, 0.46)
_ANGLES: Final = 12
_STEP_PX: Final = 2  # between the starts' centres
_ITERATIONS: Final = 60
_NARROWEST, _WIDEST = math.log(0.5), math.log(64.0)
_NYQUIST: Final = 0.5  # cycles a pixel, along rows and along columns


@dataclass(frozen=True)
class Gabor:
    """The Gabor function nearest to a kernel, by least squares."""

    x: float  # pixels from the middle of the window's left column to the right
    y: float  # pixels from the middle of its top row down
    frequency: float  # cycles a pixel
    orientation: float  # of its bars, degrees counter-clockwise from horizontal, 0 <= orientation < 180
    width: float  # the Gaussian's standard deviation across the bars, pixels
    length: float  # and along them
    amplitudes: tuple[float, ...]  # of every channel's wave at the centre, in units of the weights
    phases: tuple[float, ...]  # of every channel at the centre, degrees, -180 <= phase <= 180; 0 and 180: even; 90 and -90: odd
    explained: float  # share of the kernel's energy that it explains, 0..1

    @property
    def bandwidth(self) -> float | None:
        """Octaves between the frequencies of half amplitude; None where the lower one is not above 0."""
        half = HALF_AMPLITUDE / (2 * math.pi * self.width)
        return math.log2((self.frequency + half) / (self.frequency - half)) if self.frequency > half else None


def fit(kernels_KCHW: _Floats) -> list[Gabor]:
    """The Gabor function nearest to each of these kernels, by Levenberg and Marquardt from several starts.

    The starts of a kernel are the best atoms of a dictionary, one for each width. Strength and phase of every channel follow from
    the other six parameters by linear least squares, and so are left out of the search (variable projection: Golub and Pereyra,
    1973; with Kaufman's derivative, 1975). 96 kernels take about a second on one core.
    """
    count, channels, height, width = kernels_KCHW.shape
    energy_K = np.square(kernels_KCHW).sum((1, 2, 3))
    lengths_K = np.sqrt(np.maximum(energy_K, np.finfo(np.float64).tiny))
    y_KCP = (kernels_KCHW / lengths_K[:, None, None, None]).reshape(count, channels, height * width)
    starts_KSQ = _starts(y_KCP, height, width)
    starts = starts_KSQ.shape[1]
    fits_BQ, error_B = _descend(y_KCP.repeat(starts, 0), starts_KSQ.reshape(count * starts, 6), height, width)
    best_K = error_B.reshape(count, starts).argmin(1) + np.arange(count) * starts
    return _described(fits_BQ[best_K], y_KCP, lengths_K, height, width)


def _pixels(height: int, width: int) -> tuple[_Floats, _Floats]:
    """x and y of every pixel of a window, each (P,)."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return x.ravel(), y.ravel()


def _wave(fits_BQ: _Floats, height: int, width: int) -> tuple[_Complexes, _Floats, _Floats]:
    """The complex Gabor function of every row, and the distances u and v, each (B, P)."""
    x_P, y_P = _pixels(height, width)
    x0, y0, frequency, angle, log_u, log_v = (fits_BQ[:, i, None] for i in range(6))
    u = (x_P - x0) * np.cos(angle) + (y_P - y0) * np.sin(angle)
    v = (y_P - y0) * np.cos(angle) - (x_P - x0) * np.sin(angle)
    exponent = -0.5 * (np.square(u * np.exp(-log_u)) + np.square(v * np.exp(-log_v)))
    return np.exp(exponent + 2j * np.pi * frequency * u), u, v


@lru_cache(maxsize=4)
def _dictionary(height: int, width: int) -> tuple[_Floats, NDArray[np.float32]]:
    """The parameters of all starts (A, 6), widths outermost, and the two orthonormal vectors of each, (A, 2, P)."""
    centres = [np.arange((size - 1) % _STEP_PX / 2, size, _STEP_PX) for size in (width, height)]
    angles = np.arange(_ANGLES) * np.pi / _ANGLES
    grid = np.meshgrid(_WIDTHS, *centres, _FREQUENCIES, angles, indexing="ij")
    sigma, x0, y0, frequency, angle = (axis.ravel() for axis in grid)
    starts_AQ = np.stack([x0, y0, frequency, angle, np.log(sigma), np.log(sigma)], 1)
    wave_AP, _, _ = _wave(starts_AQ, height, width)
    even_AP = wave_AP.real / np.linalg.norm(wave_AP.real, axis=1, keepdims=True)
    odd_AP = wave_AP.imag - (wave_AP.imag * even_AP).sum(1, keepdims=True) * even_AP
    odd_AP /= np.maximum(np.linalg.norm(odd_AP, axis=1, keepdims=True), 1e-6)
    return starts_AQ, np.stack([even_AP, odd_AP], 1).astype(np.float32)


def _starts(y_KCP: _Floats, height: int, width: int) -> _Floats:
    """The best atom of each width for every kernel, (K, S, 6)."""
    starts_AQ, atoms_A2P = _dictionary(height, width)
    count, channels, pixels = y_KCP.shape
    products = atoms_A2P.reshape(-1, pixels) @ y_KCP.reshape(-1, pixels).T.astype(np.float32)
    explained = np.square(products, out=products).reshape(len(starts_AQ), 2, count, channels).sum((1, 3))
    parts = np.split(np.arange(len(starts_AQ)), len(_WIDTHS))
    return np.stack([starts_AQ[part[explained[part].argmax(0)]] for part in parts], 1)


def _solve(wave_BP: _Complexes, y_BCP: _Floats) -> tuple[_Floats, _Complexes]:
    """The inverse Gram matrix of real and imaginary parts (B, 2, 2), and each channel's factor (B, C): y ~ Re(factor wave)."""
    basis_B2P = np.stack([wave_BP.real, wave_BP.imag], 1)
    gram = basis_B2P @ basis_B2P.transpose(0, 2, 1)
    gram += 1e-9 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(2)  # a wave of frequency 0 has no imaginary part
    inverse = np.linalg.inv(gram).astype(np.float64, copy=False)
    solved_BC2 = y_BCP @ basis_B2P.transpose(0, 2, 1) @ inverse
    return inverse, solved_BC2[..., 0] - 1j * solved_BC2[..., 1]


def _residual(fits_BQ: _Floats, y_BCP: _Floats, height: int, width: int) -> _Floats:
    wave_BP, _, _ = _wave(fits_BQ, height, width)
    _, factors_BC = _solve(wave_BP, y_BCP)
    return y_BCP - (factors_BC[..., None] * wave_BP[:, None]).real


def _derivative(fits_BQ: _Floats, y_BCP: _Floats, height: int, width: int) -> _Floats:
    """The derivative of the model by the six parameters, less what other factors of the channels make of it: (B, 6, C P)."""
    wave_BP, u, v = _wave(fits_BQ, height, width)
    inverse, factors_BC = _solve(wave_BP, y_BCP)
    _, _, frequency, angle, log_u, log_v = (fits_BQ[:, i, None] for i in range(6))
    cos, sin = np.cos(angle), np.sin(angle)
    by_u = -u * np.exp(-2 * log_u) + 2j * np.pi * frequency  # of the wave's logarithm
    by_v = -v * np.exp(-2 * log_v)
    logarithm_BQP = np.stack(
        [
            -cos * by_u + sin * by_v,
            -sin * by_u - cos * by_v,
            2j * np.pi * u,
            v * by_u - u * by_v,
            np.square(u * np.exp(-log_u)),
            np.square(v * np.exp(-log_v)),
        ],
        1,
    )
    jacobian: _Floats = (factors_BC[:, None, :, None] * (wave_BP[:, None] * logarithm_BQP)[:, :, None]).real  # B, Q, C, P
    basis_B2P = np.stack([wave_BP.real, wave_BP.imag], 1)
    flat: _Floats = jacobian.reshape(len(fits_BQ), -1, jacobian.shape[-1])
    flat -= flat @ basis_B2P.transpose(0, 2, 1) @ inverse @ basis_B2P
    return flat.reshape(len(fits_BQ), 6, -1)


def _descend(y_BCP: _Floats, fits_BQ: _Floats, height: int, width: int) -> tuple[_Floats, _Floats]:
    """Where Levenberg and Marquardt's steps lead from every row, and the squared error there, (B, 6) and (B,)."""
    low = np.array([-1.0, -1.0, 0.0, -np.inf, _NARROWEST, _NARROWEST])
    high = np.array([width, height, np.inf, np.inf, _WIDEST, _WIDEST])
    fits_BQ = fits_BQ.copy()
    residual_BCP = _residual(fits_BQ, y_BCP, height, width)
    error_B = np.square(residual_BCP).sum((1, 2))
    damping_B = np.full(len(fits_BQ), 1e-2)
    moving = np.arange(len(fits_BQ))
    for _ in range(_ITERATIONS):
        y, here, residual = y_BCP[moving], fits_BQ[moving], residual_BCP[moving]
        jacobian = _derivative(here, y, height, width)
        normal = jacobian @ jacobian.transpose(0, 2, 1)
        slope = (jacobian @ residual.reshape(len(moving), -1, 1))[..., 0]
        diagonal = np.diagonal(normal, axis1=1, axis2=2)
        ridge = damping_B[moving, None] * (diagonal + 1e-9 * diagonal.max(1, keepdims=True) + 1e-12)
        step = np.linalg.solve(normal + ridge[:, :, None] * np.eye(6), slope[..., None])[..., 0]
        tried = here + step
        turned = tried[:, 2] < 0  # a negative frequency is a positive one, seen from the other side
        tried[turned, 2] *= -1
        tried[turned, 3] += np.pi
        tried = np.clip(tried, low, high)
        tried[:, 2] = np.minimum(tried[:, 2], _NYQUIST / np.maximum(abs(np.cos(tried[:, 3])), abs(np.sin(tried[:, 3]))))
        tried_residual = _residual(tried, y, height, width)
        tried_error = np.square(tried_residual).sum((1, 2))
        gain = error_B[moving] - tried_error
        better = gain > 0
        won = moving[better]
        fits_BQ[won], residual_BCP[won], error_B[won] = tried[better], tried_residual[better], tried_error[better]
        damping_B[moving] *= np.where(better, 0.2, 5.0)
        settled = (better & (gain < 1e-6)) | (damping_B[moving] > 1e8)
        moving = moving[~settled]
        if not len(moving):
            break
    return fits_BQ, error_B


def _described(fits_KQ: _Floats, y_KCP: _Floats, lengths_K: _Floats, height: int, width: int) -> list[Gabor]:
    wave_KP, _, _ = _wave(fits_KQ, height, width)
    _, factors_KC = _solve(wave_KP, y_KCP)
    error_K = np.square(y_KCP - (factors_KC[..., None] * wave_KP[:, None]).real).sum((1, 2))
    explained_K = np.square(y_KCP).sum((1, 2)) - error_K  # of energy 1, or of 0
    return [
        Gabor(
            x=float(x0),
            y=float(y0),
            frequency=float(frequency),
            orientation=float((90 - np.degrees(angle)) % 180),
            width=float(np.exp(log_u)),
            length=float(np.exp(log_v)),
            amplitudes=tuple((np.abs(factors) * size).tolist()),
            phases=tuple(np.degrees(np.angle(factors)).tolist()),
            explained=float(max(0.0, share)),
        )
        for (x0, y0, frequency, angle, log_u, log_v), factors, size, share in zip(
            fits_KQ, factors_KC, lengths_K, explained_K, strict=True
        )
    ]
