"""Nearest neighbours behind one protocol: distances first, ties by id.

Legend: N database vectors, Q queries, D feature width (4096), K neighbours.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from training.errors import FC7Error, Mismatch

Vectors = NDArray[np.float32]
# Rows fetched beyond K, so that ties at the edge seldom need a second search.
_SPARE = 16
# How far FAISS's float32 squared distances may be off, as a share of the squared lengths: it subtracts inner products.
_SLACK = 1e-5
# Vectors looked at together, so that memory does not grow with the index or with ties.
_BLOCK = 1024


@dataclass(frozen=True)
class Hits:
    """The neighbours of Q queries, nearest first; equal distances in order of id."""

    distances_QK: NDArray[np.float32]  # Euclidean
    ids_QK: NDArray[np.int64]


class SearchIndex(Protocol):
    """What the service and the evaluation search with."""

    def __len__(self) -> int:
        """Items that can be found."""

    def search(self, queries_QD: Vectors, k: int) -> Hits:
        """The min(k, N) nearest items of each float32 (Q, D) query."""

    def vector(self, item: int) -> Vectors:
        """The stored vector of one item, float32 (D,)."""


class FloatIndex:
    """Exact Euclidean search over float32 vectors in a FAISS flat index; ids are row numbers."""

    def __init__(self, index: Any) -> None:
        self._index = index
        flat = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        self._vectors_ND: Vectors = flat.reshape(index.ntotal, index.d)
        self._vectors_ND.flags.writeable = False
        blocks = (self._vectors_ND[start : start + _BLOCK] for start in range(0, len(self), _BLOCK))
        self._longest = max((float(np.einsum("nd,nd->n", block, block).max()) for block in blocks), default=0.0)

    def __len__(self) -> int:
        return len(self._vectors_ND)

    @property
    def width(self) -> int:
        """Components of a vector."""
        return int(self._vectors_ND.shape[1])

    def vector(self, item: int) -> Vectors:
        """The stored vector of one item, float32 (D,)."""
        vector: Vectors = self._vectors_ND[item]
        return vector

    def search(self, queries_QD: Vectors, k: int) -> Hits:
        """The min(k, N) nearest items of each float32 (Q, D) query.

        FAISS proposes, and distances are then taken anew from the differences in float64: an item is at distance 0 from itself,
        equal vectors are at equal distances, and no answer depends on how many queries came together.
        """
        k = min(k, len(self))
        rows = [self._exact(query, k) for query in np.ascontiguousarray(queries_QD, np.float32)]
        return Hits(
            np.array([distances for distances, _ in rows], np.float32).reshape(-1, k),
            np.array([ids for _, ids in rows], np.int64).reshape(-1, k),
        )

    def _exact(self, query_D: Vectors, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        slack = _SLACK * (float(query_D @ query_D) + self._longest)
        fetch = k + _SPARE
        while True:
            proposed, ids = self._index.search(query_D[None], min(fetch, len(self)))
            ids = np.sort(ids[0])
            blocks = (ids[start : start + _BLOCK] for start in range(0, len(ids), _BLOCK))
            squared = np.concatenate([np.square(self._vectors_ND[rows] - query_D.astype(np.float64)).sum(1) for rows in blocks])
            order = np.argsort(squared, kind="stable")[:k]
            if fetch >= len(self) or proposed[0, -1] > squared[order[-1]] + slack:
                return np.sqrt(squared[order]), ids[order]
            fetch *= 4


def write_float_index(path: Path, blocks: Any, width: int) -> int:
    """Writes float32 (n, width) blocks, in order, as one FAISS flat L2 index; returns how many rows it holds."""
    index = faiss.IndexFlatL2(width)
    for block_ND in blocks:
        index.add(np.ascontiguousarray(block_ND, np.float32))
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise FC7Error(f"{path} cannot be written: {error}") from error
    return int(index.ntotal)


def open_float_index(path: Path) -> FloatIndex:
    """Opens a flat L2 index memory-mapped: replicas on one machine share its pages. Raises Mismatch for another kind of index."""
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise Mismatch(f"{path} is not a FAISS index: {error}") from error
    if not isinstance(index, faiss.IndexFlatL2):
        raise Mismatch(f"{path} holds a {type(index).__name__}, expected an IndexFlatL2")
    return FloatIndex(index)
