"""How near a photograph is to another, beside how near it is to the rest of a collection.

Covering a part of a photograph changes its distance from everything. Most of all its FC7 becomes shorter, which by the Euclidean
metric brings it nearer to short features and farther from long ones, whatever they show. What brings two together is what the
distance between them feels more than the distances from others do.

Legend: W features of one photograph, the first of it whole and the others with parts of it covered, D components, R items.
"""

from collections.abc import Collection
from typing import Final

import numpy as np
from numpy.typing import NDArray

from indexer.arrays import Vectors
from indexer.metric import Metric, distances_between
from indexer.store import Store

MOST: Final = 256  # items that stand for the collection


def rest(store: Store, without: Collection[int]) -> Vectors:
    """The vectors of items evenly spread over a collection, float32 (R, D): of up to 256, less those that are left out."""
    ids = store.ids()
    spread = ids[np.linspace(0, len(ids) - 1, min(len(ids), MOST)).round().astype(np.int64)]
    return store.vectors([int(item) for item in spread if item not in without])


def growth(features_WD: Vectors, vector_D: Vectors, rest_RD: Vectors, metric: Metric) -> NDArray[np.float64]:
    """By how much the distance from a vector grows, less the mean growth of those from the rest: float64 (W,), 0 for the first.

    `vector_D` and `rest_RD` are as the metric has them, `features_WD` as the network gives them.
    """
    distances_WM = distances_between(features_WD, np.concatenate([vector_D[None], rest_RD]), metric)
    growth_WM = distances_WM - distances_WM[0]
    of_rest_W = growth_WM[:, 1:].mean(1) if len(rest_RD) else 0.0
    return np.asarray(growth_WM[:, 0] - of_rest_W)
