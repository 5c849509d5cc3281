"""Hits of a search put in order: nearest first, equals by id.

Legend: Q queries, K neighbours.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from indexer.arrays import Ids, Keys, Vectors
from indexer.codes.autoencoder import Autoencoder
from indexer.metric import Metric, distances_of, vectors_of
from indexer.scans import scan
from indexer.store import Hits, Query, Store, metric_of

_NO_KEYS: Final[Keys] = np.empty(0)
_NO_IDS: Final[Ids] = np.empty(0, np.int64)


def cut(parts: Sequence[tuple[Keys, Ids]], query: Query) -> tuple[Keys, Ids]:
    """The first k of the hits of all parts, after the one that the page before ended with."""
    keys, ids = (np.concatenate(arrays) for arrays in zip((_NO_KEYS, _NO_IDS), *parts, strict=True))
    order = np.lexsort((ids, keys))
    keys, ids = keys[order], ids[order]
    if query.after is not None:
        key, item = query.after
        later = (keys > key) | ((keys == key) & (ids > item))
        keys, ids = keys[later], ids[later]
    return keys[: query.k], ids[: query.k]


def stack(lists: Sequence[tuple[Keys, Ids]]) -> tuple[Keys, Ids]:
    """The hits of each query -> (Q, K), filled up with (inf, -1)."""
    width = max((len(ids) for _, ids in lists), default=0)
    keys_QK = np.full((len(lists), width), np.inf)
    ids_QK = np.full((len(lists), width), -1, np.int64)
    for i, (keys, ids) in enumerate(lists):
        keys_QK[i, : len(keys)], ids_QK[i, : len(ids)] = keys, ids
    return keys_QK, ids_QK


def by_vector(hits: tuple[Keys, Ids], metric: Metric) -> Hits:
    """Hits whose keys are squared distances of vectors."""
    return Hits(distances_of(hits[0], metric), hits[1], hits[0])


def hamming(hits: tuple[Keys, Ids], buckets: NDArray[np.int64] | None = None) -> Hits:
    """Hits whose keys are Hamming distances."""
    return Hits(hits[0].astype(np.float32), hits[1], hits[0], buckets)


def key_of(store: Store, autoencoder: Autoencoder | None, query_D: Vectors, item: int, query: Query) -> float:
    """Store.key, by the very arithmetic of the searches."""
    if query.mode in ("code", "ball"):
        assert autoencoder  # noqa: S101
        return float(scan.hamming(store.codes([item]), autoencoder.encode(query_D[None]), 1)[0][0, 0])
    metric = metric_of(query, store.metric)
    [vector_D] = query.compared(vectors_of(query_D[None], store.metric), metric)
    return float(scan.distances(query.compared(store.vectors([item]), metric), vector_D, np.zeros(1, np.int64))[0])
