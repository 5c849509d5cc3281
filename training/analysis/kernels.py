"""Statistics of first-layer kernels, beside those of white noise (paper, figure 3).

Energy is the sum of squared weights. The spectrum of a kernel is the power of its two-dimensional Fourier transform, summed over
its channels. Its bins are those of the kernel's own size, 121 for 11 x 11. Frequencies are in cycles a pixel; Nyquist's is 0.5.

Legend: K kernels, C channels (RGB), H height, W width, N frequencies along a row or column.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.analysis import gabor
from training.analysis.gabor import Gabor

_Floats = NDArray[np.float64]

LOW: Final = 0.25  # cycles a pixel: half of Nyquist's frequency
DEAD: Final = 0.2  # of the median norm
DUPLICATE: Final = 0.95  # absolute cosine
STRUCTURED: Final = 0.5  # share of energy below LOW
ORIENTED: Final = 0.4  # selectivity
MOST_DC: Final = 0.5  # share of energy at frequency 0 in an oriented kernel
FITS: Final = 0.5  # share of energy that a Gabor function explains where it fits
NOISE_LIKE: Final = 0.05  # kernels that are what _LEARNED names, beyond noise's share, up to which a layer is like noise
_LEARNED: Final = ("structured", "gabor")  # of COUNTS: what noise is not; fine gratings are the second alone
_PADDED: Final = 64  # frequencies along a row or column where the spectrum's peak is sought
_RAY: Final = 141  # frequencies along a ray, 0 to the corner's 0.707
_NOISE_KERNELS: Final = 500
_NOISE_FITS: Final = 128
_SEED: Final = 0


@dataclass(frozen=True)
class Kernel:
    """One first-layer kernel in figures."""

    index: int  # among all kernels, column 0 first
    column: int
    unit: int  # within its column
    norm: float  # Euclidean length of its weights
    dead: bool  # its norm is below 0.2 of the median
    duplicate_of: int | None  # the kernel most like it, up to sign, where their cosine is above 0.95
    chroma: float  # share of its energy that differs between red, green and blue: 0 grey, 1 no brightness at all
    low_share: float  # share of its energy at frequencies below 0.25
    dc_share: float  # share of its energy at frequency 0
    participation: float  # (sum of power)^2 / sum of squared power / bins: 1 for an even spectrum, 1/bins for one bin
    selectivity: float  # length of the mean of exp(2i direction) weighted by power, less frequency 0: 1 where all goes one way
    orientation: float  # of its bars and edges, degrees counter-clockwise from horizontal: 0 horizontal, 90 vertical, below 180
    frequency: float  # of its bars, cycles a pixel; 0 for a blob
    bandwidth: float | None  # octaves between the frequencies of half amplitude; None where the lower one is not above 0
    explained: float  # share of its energy that the nearest Gabor function explains
    gabor: Gabor | None  # that function, where it explains half or more

    @property
    def structured(self) -> bool:
        """Whether it is alive, with more than half of its energy below half of Nyquist's frequency."""
        return not self.dead and self.low_share > STRUCTURED

    @property
    def oriented(self) -> bool:
        """Whether it is structured, mostly not of frequency 0, and of one orientation more than of others."""
        return self.structured and self.dc_share < MOST_DC and self.selectivity > ORIENTED


Statistic = Callable[[Kernel], float | None]
STATISTICS: Final[dict[str, Statistic]] = {
    "norm": lambda kernel: kernel.norm,
    "chroma": lambda kernel: kernel.chroma,
    "low_share": lambda kernel: kernel.low_share,
    "dc_share": lambda kernel: kernel.dc_share,
    "participation": lambda kernel: kernel.participation,
    "selectivity": lambda kernel: kernel.selectivity,
    "frequency": lambda kernel: kernel.frequency,
    "bandwidth": lambda kernel: kernel.bandwidth,
    "explained": lambda kernel: kernel.explained,
}
COUNTS: Final[dict[str, Callable[[Kernel], bool]]] = {
    "structured": lambda kernel: kernel.structured,
    "oriented": lambda kernel: kernel.oriented,
    "gabor": lambda kernel: kernel.gabor is not None,
    "dead": lambda kernel: kernel.dead,
    "duplicates": lambda kernel: kernel.duplicate_of is not None,
}


@dataclass(frozen=True)
class Summary:
    """How many of some kernels are what COUNTS names, and the means of what STATISTICS names; None where no kernel has it."""

    kernels: int
    counts: dict[str, int]
    means: dict[str, float | None]


@dataclass(frozen=True)
class Range:
    """A statistic of white noise: its mean, and the interval that holds 95 of 100 kernels."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Noise:
    """What kernels of independent normal weights have, by Monte Carlo with a fixed seed.

    Norms have no range, as noise may have any. Gabor functions are fitted to fewer kernels than the rest is measured on.
    """

    shares: dict[str, float]  # of kernels that are what COUNTS names
    ranges: dict[str, Range]  # of what STATISTICS names but for the norm


def figures(weight_KCHW: Tensor, columns: int) -> list[Kernel]:
    """Figures of every kernel of float (K, C, H, W) weights, in order.

    Orientation, frequency and bandwidth are the fitted Gabor function's where one fits with a cycle or more in the window.
    Elsewhere they are the spectrum's: the direction of the mean that `selectivity` is the length of, and the peak and the half
    amplitudes along a ray through it of the transform between the bins.

    Sources: chroma, structured and oriented are this project's. Participation: Bell and Dean, 1970. Selectivity: 1 - circular
    variance (Mardia, 1972; Ringach and others, 2002). Bandwidth: De Valois and others, 1982.
    """
    w_KCHW = weight_KCHW.detach().cpu().double().numpy()
    return _measure(w_KCHW, columns, gabor.fit(w_KCHW))


def summary(kernels: Sequence[Kernel]) -> Summary:
    """Counts and means over these kernels: all, or one column's."""
    means = {}
    for name, statistic in STATISTICS.items():
        values = [value for kernel in kernels if (value := statistic(kernel)) is not None]
        means[name] = math.fsum(values) / len(values) if values else None
    counts = {name: sum(map(is_one, kernels)) for name, is_one in COUNTS.items()}
    return Summary(len(kernels), counts, means)


@lru_cache(maxsize=8)
def noise(channels: int, height: int, width: int) -> Noise:
    """What white noise of this shape has; it takes about a second and is remembered."""
    rng = np.random.default_rng(_SEED)
    w_KCHW = rng.standard_normal((_NOISE_KERNELS, channels, height, width))
    fits = gabor.fit(w_KCHW[:_NOISE_FITS])
    kernels = _measure(w_KCHW[:_NOISE_FITS], 1, fits)
    unfitted = _measure(w_KCHW, 1, [None] * _NOISE_KERNELS)
    shares, ranges = {}, {}
    for name, is_one in COUNTS.items():
        sample = kernels if name == "gabor" else unfitted
        shares[name] = sum(map(is_one, sample)) / len(sample)
    for name, statistic in STATISTICS.items():
        sample = kernels if name == "explained" else unfitted
        values = [value for kernel in sample if (value := statistic(kernel)) is not None]
        if name != "norm" and values:
            low, high = np.quantile(values, (0.025, 0.975)).tolist()
            ranges[name] = Range(math.fsum(values) / len(values), low, high)
    return Noise(shares, ranges)


@dataclass(frozen=True)
class FirstLayer:
    """All that is measured of a first layer."""

    kernels: tuple[Kernel, ...]
    columns: tuple[Summary, ...]
    whole: Summary
    noise: Noise

    @property
    def noise_like(self) -> bool:
        """Whether as a layer it is like noise: of twenty kernels at most one beyond noise's is structured, and one a Gabor's."""
        return all(self.whole.counts[n] <= (self.noise.shares[n] + NOISE_LIKE) * self.whole.kernels for n in _LEARNED)

    @property
    def verdict(self) -> str:
        """What the kernels show, in a sentence."""
        counts, shares = ([of[name] for name in _LEARNED] for of in (self.whole.counts, self.noise.shares))
        counted = f"{counts[0]} of {self.whole.kernels} are structured and {counts[1]} are Gabor functions"
        begins = "These kernels are not distinguishable from noise" if self.noise_like else "What the first layer has learned"
        return f"{begins}: {counted}, of white noise {shares[0]:.0%} and {shares[1]:.0%}."


def first_layer(weight_KCHW: Tensor, columns: int) -> FirstLayer:
    """Figures of float (K, C, H, W) weights, by kernel, by column and of the whole, with noise of the same shape beside them."""
    kernels = figures(weight_KCHW, columns)
    _, channels, height, width = weight_KCHW.shape
    parts = [[kernel for kernel in kernels if kernel.column == column] for column in range(columns)]
    return FirstLayer(tuple(kernels), tuple(map(summary, parts)), summary(kernels), noise(channels, height, width))


def described(kernel: Kernel) -> dict[str, Any]:
    """All figures of a kernel as JSON has them."""
    gabor_of = kernel.gabor and asdict(kernel.gabor) | {"bandwidth": kernel.gabor.bandwidth}
    return asdict(kernel) | {"structured": kernel.structured, "oriented": kernel.oriented, "gabor": gabor_of}


def _measure(w_KCHW: _Floats, columns: int, fits: Sequence[Gabor | None]) -> list[Kernel]:
    count, _, height, width = w_KCHW.shape
    tiny = np.finfo(np.float64).tiny
    energy = np.square(w_KCHW).sum((1, 2, 3))
    norm = np.sqrt(energy)
    unit_KCHW = w_KCHW / np.maximum(norm, tiny)[:, None, None, None]
    brightness = w_KCHW.shape[1] * np.square(unit_KCHW.mean(1)).sum((1, 2))
    dead = norm < DEAD * np.median(norm)
    power_KHW = np.square(np.abs(np.fft.fft2(unit_KCHW))).sum(1)
    total = np.maximum(power_KHW.sum((1, 2)), tiny)
    fy_HW, fx_HW = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    low = power_KHW[:, np.hypot(fy_HW, fx_HW) < LOW].sum(1) / total
    dc = power_KHW[:, 0, 0] / total
    participation = np.square(total) / np.maximum(np.square(power_KHW).sum((1, 2)), tiny) / (height * width)
    wave_KHW = power_KHW.copy()
    wave_KHW[:, 0, 0] = 0
    doubled = np.exp(2j * np.arctan2(fy_HW, fx_HW))
    selectivity = np.abs((wave_KHW * doubled).sum((1, 2))) / np.maximum(wave_KHW.sum((1, 2)), tiny)
    direction, frequency, bandwidth = _peaks(unit_KCHW)
    duplicates = _duplicates(unit_KCHW)
    per_column = count // columns
    found = []
    for i, fit in enumerate(fits):
        fitting = fit if fit is not None and fit.explained >= FITS else None
        wave = fitting if fitting and fitting.frequency >= 1 / min(height, width) else None
        found.append(
            Kernel(
                index=i,
                column=i // per_column,
                unit=i % per_column,
                norm=float(norm[i]),
                dead=bool(dead[i]),
                duplicate_of=duplicates[i],
                chroma=float(np.clip(1 - brightness[i], 0, 1)) if norm[i] else 0.0,
                low_share=float(low[i]),
                dc_share=float(dc[i]),
                participation=float(participation[i]),
                selectivity=float(selectivity[i]),
                orientation=wave.orientation if wave else float((90 - np.degrees(direction[i])) % 180),
                frequency=wave.frequency if wave else float(frequency[i]),
                bandwidth=wave.bandwidth if wave else bandwidth[i],
                explained=fit.explained if fit else 0.0,
                gabor=fitting,
            )
        )
    return found


def _duplicates(unit_KCHW: _Floats) -> list[int | None]:
    unit_KD = unit_KCHW.reshape(len(unit_KCHW), -1)
    cosine_KK = np.abs(unit_KD @ unit_KD.T)
    np.fill_diagonal(cosine_KK, 0)
    nearest = cosine_KK.argmax(1).tolist()
    return [other if cosine > DUPLICATE else None for other, cosine in zip(nearest, cosine_KK.max(1), strict=True)]


def _peaks(unit_KCHW: _Floats) -> tuple[_Floats, _Floats, list[float | None]]:
    """Of every kernel's transform between the bins: its mean direction (radians, y downwards), its peak and its bandwidth.

    Half of the plane suffices, as the spectrum of real weights is the same at the opposite frequency.
    """
    fy = np.fft.fftfreq(_PADDED)
    fx = np.fft.rfftfreq(_PADDED)
    power_KNN = np.square(np.abs(np.fft.rfft2(unit_KCHW, (_PADDED, _PADDED)))).sum(1)
    twice = np.where((fx > 0) & (fx < 0.5), 2.0, 1.0)
    doubled_NN = np.exp(2j * np.arctan2(*np.meshgrid(fy, fx, indexing="ij"))) * twice
    doubled_NN[0, 0] = 0
    direction = np.angle((power_KNN * doubled_NN).sum((1, 2))) / 2
    row, column = np.unravel_index(power_KNN.reshape(len(power_KNN), -1).argmax(1), power_KNN.shape[1:])
    around = np.arange(-1, 2)
    every = np.arange(len(power_KNN))[:, None]
    along_y = power_KNN[every, (row[:, None] + around) % _PADDED, column[:, None]]
    along_x = power_KNN[every, row[:, None], np.minimum(abs(column[:, None] + around), len(fx) - 1)]
    peak_y = fy[row] + _vertex(along_y) / _PADDED
    peak_x = fx[column] + np.where(column < len(fx) - 1, _vertex(along_x), 0) / _PADDED
    frequency = np.where((row == 0) & (column == 0), 0.0, np.hypot(peak_y, peak_x))
    return direction, frequency, _bandwidths(unit_KCHW, np.arctan2(peak_y, peak_x), frequency)


def _vertex(values_K3: _Floats) -> _Floats:
    """Where between -1 and 1 the parabola through values at -1, 0 and 1 is greatest; that at 0 is the greatest of them."""
    before, here, after = values_K3.T
    bend = np.maximum(2 * here - before - after, np.finfo(np.float64).tiny)
    vertex: _Floats = np.clip((after - before) / (2 * bend), -0.5, 0.5)
    return vertex


def _bandwidths(unit_KCHW: _Floats, angle: _Floats, frequency: _Floats) -> list[float | None]:
    """Octaves between the half amplitudes on either side of the peak, along the ray through it."""
    _, _, height, width = unit_KCHW.shape
    ray = np.linspace(0, math.sqrt(0.5), _RAY)
    found: list[float | None] = []
    for unit_CHW, direction, peak in zip(unit_KCHW, angle, frequency, strict=True):
        by_row = np.exp(-2j * np.pi * ray[:, None] * math.sin(direction) * np.arange(height))
        by_column = np.exp(-2j * np.pi * ray[:, None] * math.cos(direction) * np.arange(width))
        along = (np.einsum("nh,chw->cnw", by_row, unit_CHW) * by_column).sum(2)
        amplitude = np.sqrt(np.square(np.abs(along)).sum(0))
        at = int(np.abs(ray - peak).argmin())
        below = amplitude <= amplitude[at] / 2
        lower, upper = np.flatnonzero(below[:at]), np.flatnonzero(below[at:])
        reached = peak > 0 and len(lower) and len(upper) and ray[lower[-1]] > 0
        found.append(math.log2(ray[at + upper[0]] / ray[lower[-1]]) if reached else None)
    return found
