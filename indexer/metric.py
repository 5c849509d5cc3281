"""The metric of an index: what of a feature is compared, and what the distance between two of them is.

euclidean: the features themselves, and |a - b|. cosine: the features at length 1, and 1 - cos, which is |a - b|^2 / 2 there. So
every search compares vectors by |a - b|^2, whichever the metric: the order is the same.

Legend: N rows, D components of a feature.
"""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from indexer.arrays import Floats, Keys, Vectors, blocks
from training.errors import BadValue

Metric = Literal["euclidean", "cosine"]
FARTHEST: Final = 2.0  # the cosine distance of opposite directions
NO_DIRECTION: Final = "its feature is zero in every component and has no direction; metric=euclidean takes it"
# Half a unit of float32 in every component changes the length of a row by at most this much.
_ROUNDING: Final = 2.0**-23


def vectors_of(features_ND: Vectors, metric: Metric, field: str = "features") -> Vectors:
    """What an index compares of float32 (N, D) features: float32 (N, D), of length 1 by float64 where the metric is cosine.

    Rows at length 1 already stay as they are to the last bit. Raises BadValue, naming the field that they were given for, where
    the metric is cosine and a row is zero in every component, or not finite.
    """
    if metric == "euclidean":
        return features_ND
    vectors_ND = np.empty(features_ND.shape, np.float32)
    for block in blocks(len(vectors_ND)):
        rows_ND = features_ND[block].astype(np.float64)
        lengths_N = _lengths(rows_ND)
        if not np.isfinite(lengths_N.max()):
            raise BadValue(field, "NaN or infinity", "finite")
        if not lengths_N.min():
            raise no_direction(field)
        np.divide(rows_ND, lengths_N[:, None], out=vectors_ND[block], casting="same_kind")
    return vectors_ND


def lengths_of(features_ND: Vectors) -> Floats:
    """The lengths that `vectors_of` divides float32 (N, D) rows by: float64 (N,), 0 for a row of zeros."""
    parts = (_lengths(features_ND[block].astype(np.float64)) for block in blocks(len(features_ND)))
    return np.concatenate([np.empty(0), *parts])


def _lengths(rows_ND: Floats) -> Floats:
    lengths_N: Floats = np.sqrt(np.vecdot(rows_ND, rows_ND))
    lengths_N[np.abs(lengths_N - 1) <= _ROUNDING] = 1
    return lengths_N


def no_direction(field: str) -> BadValue:
    """The error of a feature of zeros that was given for a field, where the metric is cosine."""
    return BadValue(field, "a feature of zeros", "something with a direction, since metric=cosine compares directions")


def have_vectors(features_ND: Vectors, metric: Metric) -> NDArray[np.bool_]:
    """Which of float32 (N, D) features can be compared: bool (N,). By cosine a row of zeros cannot."""
    return np.any(features_ND != 0, axis=1) if metric == "cosine" else np.ones(len(features_ND), np.bool_)


def distances_of(squared: Keys, metric: Metric) -> NDArray[np.float32]:
    """The distances in the metric's unit, float32, of vectors at these squared distances; inf stays."""
    if metric == "euclidean":
        return np.sqrt(squared).astype(np.float32)
    within = np.where(np.isfinite(squared), np.minimum(squared / 2, FARTHEST), np.inf)  # rounding may lead beyond
    return within.astype(np.float32)


def distances_between(features_ND: Vectors, vectors_MD: Vectors, metric: Metric) -> NDArray[np.float64]:
    """The distances (N, M) of float32 (N, D) features from vectors (M, D) as `vectors_of` gives them.

    By cosine a feature of zeros, which has no direction, is as far as one at right angles: 1.
    """
    have_N = have_vectors(features_ND, metric)
    rows_ND, vectors = vectors_of(features_ND[have_N], metric).astype(np.float64), vectors_MD.astype(np.float64)
    squared_NM = np.vecdot(rows_ND, rows_ND)[:, None] + np.vecdot(vectors, vectors) - 2 * rows_ND @ vectors.T
    distances_NM = np.ones((len(features_ND), len(vectors_MD)))
    distances_NM[have_N] = np.sqrt(squared_NM.clip(0)) if metric == "euclidean" else squared_NM / 2
    return distances_NM


def most_squared(distance: float | None, metric: Metric) -> float | None:
    """The largest squared distance that is told, in float32, as one of at most `distance`; None for no bound.

    Raises BadValue for a bound that no cosine distance reaches.
    """
    if distance is None:
        return None
    if metric == "cosine" and distance > FARTHEST:
        raise BadValue("max_distance", distance, f"at most {FARTHEST:g}, the largest cosine distance")
    nearest = np.float32(distance)
    middle = (float(nearest) + float(np.nextafter(nearest, np.float32(np.inf)))) / 2
    if metric == "euclidean":
        return middle * middle
    return 2 * middle if nearest < FARTHEST else None
