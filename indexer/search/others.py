"""The nearest items of a feature among all but one, which is the photograph itself."""

from dataclasses import replace

import numpy as np

from indexer.arrays import Ids, Vectors
from indexer.metric import have_vectors
from indexer.store import Query, Store


def other_items(store: Store, features_QD: Vectors, query: Query, item: int | None) -> Ids:
    """The ids of the `query.k` nearest items, nearest first, of float32 (Q, D) features, without `item`: (Q, K).

    Rows with fewer end in -1; those of features that the metric cannot compare have nothing else.
    """
    ids_QK = np.full((len(features_QD), query.k), -1, np.int64)
    rows = np.flatnonzero(have_vectors(features_QD, store.metric))
    found = store.search(features_QD[rows], replace(query, k=query.k + 1)).ids_QK
    for row, hits_K in zip(rows, found, strict=True):
        others_K = hits_K[hits_K != item][: query.k]
        ids_QK[row, : len(others_K)] = others_K
    return ids_QK
