"""Principal components of the filters of a first layer: a patch embedding's, or conv1's (Dosovitskiy and others, 2021, figure 7).

A first layer of D filters over 3 x P x P pixels is D points in a space of 3PP dimensions. Their principal components are patterns
of pixels, by how much of the filters' variance each explains: a basis of what the layer takes from a patch. The mean filter is
subtracted first, as in any principal component analysis. In a vision transformer nothing is lost by it: the mean filter moves all
D values of a token alike, and the layer norm that every block begins with takes that off.

Legend: D filters, K components, C channels (RGB), P side of a filter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

from training.analysis.kernels import Kernel, figures

COUNT: Final = 28  # as in the figure


_PER_ROW: Final = 7
_SEED: Final = 0
_COLOURS: Final = ("tab:red", "tab:blue")


@dataclass(frozen=True)
class Components:
    """The first principal components of a layer's filters, by falling variance."""

    patterns_KCPP: Tensor  # float32, each of length 1; of its two signs the one whose largest weight is positive
    explained_K: list[float]  # shares of the variance
    dimensions: float  # (sum of variances)^2 / sum of their squares, over all components: as many as would share it evenly
    kernels: list[Kernel]  # the figures of each pattern


@dataclass(frozen=True)
class Layer:
    """A first layer's components beside those of independent normal weights of its shape."""

    name: str
    shape: tuple[int, ...]
    learned: Components
    noise: Components


_ROWS: Final[dict[str, Callable[[Components], str]]] = {
    "variance that the components shown explain": lambda found: f"{sum(found.explained_K):.1%}",
    "components that would share it evenly": lambda found: f"{found.dimensions:.1f}",
    "structured: most energy below half of Nyquist's frequency": lambda found: f"{_structured(found)} of {len(found.kernels)}",
    "energy below half of Nyquist's frequency, mean": lambda found: f"{fmean(k.low_share for k in found.kernels):.2f}",
    "chroma, mean": lambda found: f"{fmean(kernel.chroma for kernel in found.kernels):.2f}",
    "frequency, median, cycles a pixel": lambda found: f"{_frequency(found):.3f}",
    "frequency, median, cycles a filter": lambda found: f"{_frequency(found) * found.patterns_KCPP.shape[3]:.2f}",
}


def principal(weight_DCPP: Tensor) -> Components:
    """The first 28 components of float (D, 3, P, P) filters, or as many as there are."""
    filters = weight_DCPP.detach().cpu().double().flatten(1).numpy()
    pca = PCA(svd_solver="full").fit(filters)
    variances = pca.explained_variance_
    count = min(COUNT, len(filters) - 1, len(variances))
    patterns_KCPP = torch.from_numpy(pca.components_[:count]).float().view(count, *weight_DCPP.shape[1:])
    return Components(
        patterns_KCPP,
        (variances[:count] / variances.sum()).tolist(),
        float(variances.sum() ** 2 / np.square(variances).sum()),
        figures(patterns_KCPP, 1),
    )


def layer(name: str, weight_DCPP: Tensor) -> Layer:
    """The components of float (D, 3, P, P) filters, and of noise, the same every time."""
    shape = tuple(weight_DCPP.shape)
    noise_DCPP = torch.randn(shape, generator=torch.Generator().manual_seed(_SEED))
    return Layer(name, shape, principal(weight_DCPP), principal(noise_DCPP))


def table(layers: Sequence[Layer]) -> str:
    """What the components of each layer have, and those of noise beside them, for a terminal."""
    width = max(map(len, _ROWS))
    heads = [cell for one in layers for cell in (f"{one.name}, {' x '.join(map(str, one.shape))}", "noise")]
    rows = {"": heads} | {
        name: [cell(found) for one in layers for found in (one.learned, one.noise)] for name, cell in _ROWS.items()
    }
    return "\n".join(
        f"{name:{width}}" + "".join(f"  {cell:>{max(8, len(head))}}" for cell, head in zip(cells, heads, strict=True))
        for name, cells in rows.items()
    )


def picture(layers: Sequence[Layer]) -> Figure:
    """The components of each layer side by side, each scaled by its largest weight about grey; below, how the shares add up."""
    figure = Figure((5.6 * len(layers), 7.4), layout="constrained")
    above, below = figure.subfigures(2, squeeze=False, height_ratios=(3.4, 2))[:, 0]
    for axes, one in zip(above.subplots(1, len(layers), squeeze=False)[0], layers, strict=True):
        _draw(axes, one)
    chart = below.subplots()
    for one, colour in zip(layers, _COLOURS, strict=False):
        for found, style, kind in ((one.learned, "-o", ""), (one.noise, "--", ", noise of its shape")):
            shares = np.cumsum(found.explained_K)
            chart.plot(range(1, len(shares) + 1), shares, style, color=colour, markersize=3, label=f"{one.name}{kind}")
    chart.set(xlabel="components", ylabel="variance explained", xlim=(0.5, COUNT + 0.5), ylim=(0, 1))
    chart.grid(alpha=0.3)
    chart.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
    return figure


def _draw(axes: Axes, one: Layer) -> None:
    patterns_KCPP = one.learned.patterns_KCPP
    tiles = (patterns_KCPP / patterns_KCPP.abs().amax((1, 2, 3), keepdim=True) + 1).permute(0, 2, 3, 1).numpy() / 2
    for i, (tile, share) in enumerate(zip(tiles, one.learned.explained_K, strict=True)):
        row, column = divmod(i, _PER_ROW)
        axes.imshow(tile, extent=(column, column + 0.9, row * 1.15 + 0.9, row * 1.15), interpolation="none")
        axes.text(column + 0.45, row * 1.15 + 0.93, f"{share:.1%}", ha="center", va="top", fontsize=7)
    axes.set(xlim=(0, _PER_ROW), ylim=(-(-COUNT // _PER_ROW) * 1.15, 0), title=f"{one.name}: {' x '.join(map(str, one.shape))}")
    axes.set_axis_off()


def _structured(found: Components) -> int:
    return sum(kernel.structured for kernel in found.kernels)


def _frequency(found: Components) -> float:
    return median(kernel.frequency for kernel in found.kernels)
