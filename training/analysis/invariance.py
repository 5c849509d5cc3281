"""How far features, codes and neighbours move when a photograph is perturbed, beside how far other photographs are.

A move is measured against the same photograph unperturbed, by five measures:

l2       |f - f0| / |f0|, f0 the feature of the photograph as it is
angle    between f and f0, degrees
share    l2 as a share of the mean l2 between photographs of different classes, by which networks can be compared
bits     that flip between their codes
overlap  share of the ten nearest neighbours of f0 that are f's too

Means are over photographs. Their intervals are of 95 %: over photographs by the bootstrap (Efron and Tibshirani 1993), over
networks of several seeds by Student's t.

Legend: S networks, N photographs, P points, D feature width, W bytes of a code, K neighbours, R resamples, B batch, C maps,
H height, W width of a map.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.analysis.difference import interval
from training.network.alexnet import AlexNet
from training.network.lrn import local_response_norm

Measure = Literal["l2", "angle", "share", "bits", "overlap"]
Floats = NDArray[np.float64]
Features = NDArray[np.float32]
Codes = NDArray[np.uint8]
Ids = NDArray[np.int64]
MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)
K: Final = 10  # neighbours
RESAMPLES: Final = 1000
_TAILS: Final = (2.5, 97.5)
_SEED: Final = 0


@dataclass(frozen=True)
class Spread:
    """A mean over photographs, and its intervals."""

    mean: float
    photographs: tuple[float, float]
    networks: tuple[float, float] | None  # where there are several


@dataclass(frozen=True)
class Distances:
    """How far different photographs are from each other, by one measure: means over photographs of means over the others."""

    same: float | None  # of one class; None where no class has two
    other: float | None  # of different classes


@dataclass(frozen=True)
class Divisor:
    """What LRN adds to k, as a share of k: alpha times the sum of squares, over all values that are not 0.

    Far below 1, LRN multiplies by the constant k^-beta; far above 1, it multiplies by a power of the neighbours' size.
    """

    median: float
    highest: float  # of 99 in 100


@dataclass(frozen=True)
class Space:
    """What photographs are compared by, beside their features."""

    encode: Callable[[Features], Codes] | None = None  # (N, D) -> (N, W)
    neighbors: Callable[[Features, int], Ids] | None = None  # of (N, D), without the photograph of this number: (N, K)

    def moves(self, features_PD: Features, number: int) -> dict[Measure, Floats]:
        """How far each of (1 + P, D) features is from the first of them, of the photograph `number` as it is: (P,) each.

        Without `share`, which needs other photographs.
        """
        found: dict[Measure, Floats] = {
            "l2": l2(features_PD[1:], features_PD[0]),
            "angle": angle(features_PD[1:], features_PD[0]),
        }
        if self.encode:
            codes_PW = self.encode(features_PD)
            found["bits"] = bits(codes_PW[1:], codes_PW[0])
        if self.neighbors:
            ids_PK = self.neighbors(features_PD, number)
            found["overlap"] = overlap(ids_PK[1:], ids_PK[0])
        return found

    def distances(self, features_ND: Features, labels: Sequence[str]) -> dict[Measure, Distances]:
        """How far photographs, whose features these are, are from each other: `share`'s own is 1 for different classes."""
        matrices: dict[Measure, Floats] = {
            "l2": np.stack([l2(features_ND, feature_D) for feature_D in features_ND]),
            "angle": np.stack([angle(features_ND, feature_D) for feature_D in features_ND]),
        }
        if self.encode:
            codes_NW = self.encode(features_ND)
            matrices["bits"] = np.stack([bits(codes_NW, code_W) for code_W in codes_NW])
        if self.neighbors:
            ids_NK = np.concatenate([self.neighbors(features_ND[[i]], i) for i in range(len(features_ND))])
            matrices["overlap"] = np.stack([overlap(ids_NK, ids_K) for ids_K in ids_NK])
        found = {measure: between(matrix_NN, labels) for measure, matrix_NN in matrices.items()}
        if unit := found["l2"].other:
            same = found["l2"].same
            found["share"] = Distances(None if same is None else same / unit, 1.0)
        return found


def l2(features_ND: Features, reference_D: Features) -> Floats:
    """|f - f0| / |f0| of each feature, float64 (N,); `reference_D` is not 0 in every component."""
    f0_D = reference_D.astype(np.float64)
    return np.asarray(np.linalg.norm(features_ND - f0_D, axis=1) / np.linalg.norm(f0_D))


def angle(features_ND: Features, reference_D: Features) -> Floats:
    """Degrees between each feature and the reference, float64 (N,); 90 for a feature of zeros.

    By the tangent of half the angle, which keeps small angles exact where the arc cosine does not (Kahan 2006).
    """
    lengths_N1 = np.linalg.norm(features_ND.astype(np.float64), axis=1, keepdims=True)
    unit_ND = features_ND / np.maximum(lengths_N1, np.finfo(np.float64).tiny)
    unit_D = reference_D / np.linalg.norm(reference_D.astype(np.float64))
    halves_N = np.arctan2(np.linalg.norm(unit_ND - unit_D, axis=1), np.linalg.norm(unit_ND + unit_D, axis=1))
    return np.asarray(np.where(lengths_N1[:, 0] > 0, np.degrees(2 * halves_N), 90.0))


def bits(codes_NW: Codes, code_W: Codes) -> Floats:
    """How many bits of each code differ from the reference's: float64 (N,)."""
    return np.asarray(np.bitwise_count(codes_NW ^ code_W).sum(1, dtype=np.float64))


def overlap(ids_NK: Ids, ids_K: Ids) -> Floats:
    """Share of `ids_K` that is in each row, wherever it stands there: float64 (N,)."""
    return np.asarray((ids_NK[:, :, None] == ids_K).any(1).mean(1))


def nearest(features_ND: Features, queries_QD: Features, without: int) -> Ids:
    """The ten nearest of N photographs by Euclidean distance, without one, of each query: (Q, K), nearest first."""
    rows_ND, queries = features_ND.astype(np.float64), queries_QD.astype(np.float64)
    squared_QN = np.vecdot(rows_ND, rows_ND) - 2 * queries @ rows_ND.T  # less |q|^2, which changes no order
    squared_QN[:, without] = np.inf
    return np.asarray(np.argsort(squared_QN, axis=1, kind="stable")[:, :K])


def between(matrix_NN: Floats, labels: Sequence[str]) -> Distances:
    """Means over photographs of the mean of their row, over others of their class and over those of different classes."""
    names_N = np.asarray(labels)
    same_NN = names_N[:, None] == names_N
    pairs = same_NN & ~np.eye(len(labels), dtype=bool), ~same_NN
    same, other = (
        [float(row[chosen].mean()) for row, chosen in zip(matrix_NN, mask_NN, strict=True) if chosen.any()] for mask_NN in pairs
    )
    return Distances(float(np.mean(same)) if same else None, float(np.mean(other)) if other else None)


def mean_distances(of_networks: Sequence[Distances]) -> Distances:
    """The mean over networks."""
    same, other = ([getattr(one, kind) for one in of_networks] for kind in ("same", "other"))
    return Distances(*(None if None in values else float(np.mean(values)) for values in (same, other)))


def spreads(values_SNP: Floats) -> list[Spread]:
    """The mean of every point over photographs and networks, with its intervals: float64 (S, N, P) -> P of them."""
    values_NP = values_SNP.mean(0)
    count = len(values_NP)
    weights_RN = np.random.default_rng(_SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    lows_P, highs_P = np.percentile(weights_RN @ values_NP, _TAILS, axis=0)
    found = []
    for point, mean in enumerate(values_NP.mean(0).tolist()):
        networks = interval(values_SNP[:, :, point].mean(1).tolist()) if len(values_SNP) > 1 else None
        over = (networks.low, networks.high) if networks else None
        found.append(Spread(mean, (float(lows_P[point]), float(highs_P[point])), over))
    return found


def compared(first: Mapping[Measure, Floats], second: Mapping[Measure, Floats]) -> dict[Measure, list[Spread]]:
    """The first networks' moves less the second's, float64 (S, N, P) each, paired by photograph and by place among networks."""
    return {measure: spreads(first[measure] - second[measure]) for measure in MEASURES if measure in first and measure in second}


@torch.inference_mode()
def divisors(net: AlexNet, x_BCHW: Tensor) -> dict[int, Divisor]:
    """What LRN adds after each layer that it follows, for pixels that are mean-subtracted, float32 (B, 3, H, W)."""
    c = net.config
    found: dict[int, Divisor] = {}

    def note(layer: int, h_BCHW: Tensor) -> None:
        a_BCHW = h_BCHW if layer == 1 and c.conv1_nonlinearity_last else net.activate(h_BCHW)
        columns = 1 if c.lrn_across else net.here
        # at beta = 1 its formula gives a / (k + sum): the sum follows
        b_BCHW = local_response_norm(a_BCHW, size=c.lrn_size, k=c.lrn_k, alpha=c.lrn_alpha, beta=1.0, columns=columns)
        here = b_BCHW != 0
        added = (a_BCHW[here].double() / b_BCHW[here] / c.lrn_k - 1).numpy()
        if added.size:
            found[layer] = Divisor(float(np.median(added)), float(np.percentile(added, 99)))

    hooks = [
        net.get_submodule(f"conv{layer}").register_forward_hook(lambda _net, _given, h, layer=layer: note(layer, h))
        for layer in c.lrn_after
    ]
    try:
        net.features(x_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return found
