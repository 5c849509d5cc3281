"""Exact search of a segment: by the scan on the CPU or, where FAISS has a GPU, by its flat index there, with the same answers.

The GPU's distances are in float32 and are off by no more than a known share. They propose rows; distances in float64 decide, and
tell whether a row that was not proposed may be among the first. Then more are proposed; where these are too many, the scan looks.

Legend: N rows, Q queries, D width of a vector, K wanted, F rows proposed.
"""

import logging
import threading
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

import faiss
import numpy as np
import torch

from indexer.arrays import BLOCK, Floats, Keys, Rows, Vectors, aligned, blocks
from indexer.metric import Metric, lengths_of
from indexer.scans import scan
from indexer.scans.native import HIT, Wanted
from indexer.store import Columns, Query

_MOST: Final = 2048  # rows that FAISS finds for a query on a GPU
_SPARE: Final = 32  # rows proposed beyond those wanted
_GROWTH: Final = 4
_SCRATCH: Final = 2**28  # bytes that FAISS takes beside the vectors
_log = logging.getLogger("fc7.indexer")


class Exact(Protocol):
    """Compares queries with every row of a segment."""

    def nearest(self, queries_QD: Vectors, wanted: Wanted) -> tuple[Keys, Rows]:
        """The nearest rows of each query, at most as many as there are: what scan.exact gives."""


class ByScan:
    """Scans the rows where they lie."""

    def __init__(self, vectors_ND: Vectors) -> None:
        self._vectors_ND = vectors_ND

    def nearest(self, queries_QD: Vectors, wanted: Wanted) -> tuple[Keys, Rows]:
        """See Exact."""
        return _scanned(self._vectors_ND, queries_QD, wanted)


class ByPart:
    """Scans some components of the rows where they lie; or the angles between these, over lengths that the first search takes."""

    def __init__(self, vectors_ND: Vectors, part: slice, metric: Metric) -> None:
        self._vectors_ND, self._part_ND, self._metric = vectors_ND, vectors_ND[:, part], metric
        self._lengths_N: Floats | None = None

    def nearest(self, queries_QD: Vectors, wanted: Wanted) -> tuple[Keys, Rows]:
        """See Exact; the queries are of these components alone."""
        if self._metric == "cosine" and self._lengths_N is None:
            self._lengths_N = lengths_of(self._part_ND)
        return _scanned(self._part_ND, queries_QD, wanted, self._lengths_N)


class ByGpu:
    """Asks a copy of the rows on the first GPU, made at the first search; scans where that has no room, or finds too few."""

    def __init__(self, vectors_ND: Vectors) -> None:
        self._vectors_ND = vectors_ND
        self._lock = threading.Lock()  # FAISS's GPU indexes take one search at a time
        self._index: Any = None
        self._is_tried = False
        self._longest = 0.0  # square of the longest row

    def nearest(self, queries_QD: Vectors, wanted: Wanted) -> tuple[Keys, Rows]:
        """See Exact."""
        queries_QD, rows = aligned(np.asarray(queries_QD, np.float32)), len(self._vectors_ND)
        there = rows if wanted.allowed_N is None else int(np.count_nonzero(wanted.allowed_N))
        fetch = (wanted.k + _SPARE) * -(-rows // max(1, there))
        if not wanted.k or fetch > _MOST:
            return _scanned(self._vectors_ND, queries_QD, wanted)
        hits_QK = np.full((len(queries_QD), wanted.k), np.array((np.inf, -1), HIT))
        left = np.arange(len(queries_QD))
        with self._lock:
            self._copy()
            while self._index is not None and len(left):
                left = self._decided(queries_QD, left, fetch, wanted, hits_QK)
                if fetch == _MOST:
                    break
                fetch = min(fetch * _GROWTH, _MOST)
        keys_QK, rows_QK = hits_QK["key"].copy(), hits_QK["row"].copy()
        if len(left):
            keys_QK[left], rows_QK[left] = _scanned(self._vectors_ND, queries_QD[left], wanted)
        return keys_QK, rows_QK

    def _decided(self, queries_QD: Vectors, left: Rows, fetch: int, wanted: Wanted, hits_QK: Any) -> Rows:
        """Fills in the hits of those queries that so many proposals are enough for; the others."""
        try:
            near_QF, rows_QF = self._index.search(queries_QD[left], fetch)
        except RuntimeError as error:
            self._give_up(str(error).splitlines()[-1])
            return left
        undecided = []
        for query, near_F, rows_F in zip(left.tolist(), near_QF, rows_QF, strict=True):
            query_D = queries_QD[query]
            if rows_F.min() < 0:  # not numbers among its distances
                undecided.append(query)
                continue
            exact_F = scan.distances(self._vectors_ND, query_D, rows_F)
            off = scan.product_error(len(query_D), float(query_D @ query_D) + self._longest)
            nearest = scan.first(exact_F, rows_F, wanted)
            last = nearest["key"][-1] if len(nearest) == wanted.k else np.inf
            limit = last if wanted.most is None else min(last, wanted.most)
            is_enough = limit < near_F[-1] - off  # what was not proposed is farther than this
            if is_enough and (np.abs(exact_F - near_F) <= off).all():
                hits_QK[query, : len(nearest)] = nearest
            else:
                undecided.append(query)
        return np.array(undecided, np.int64)

    def _copy(self) -> None:
        """Copies the rows to the GPU, at the first call, if they fit."""
        if self._is_tried:
            return
        self._is_tried = True
        rows, width = self._vectors_ND.shape
        needed, free = 4 * rows * (width + 1) + _SCRATCH, free_bytes()
        if free is not None and needed > free:
            self._give_up(f"they take {needed / 2**30:.1f} GiB there, of which {free / 2**30:.1f} are free")
            return
        for block in blocks(rows):
            block_ND = aligned(self._vectors_ND[block])
            self._longest = max(self._longest, float(np.einsum("nd,nd->n", block_ND, block_ND).max()))
        try:
            resources = faiss.StandardGpuResources()
            resources.setTempMemory(_SCRATCH)
            self._index = faiss.GpuIndexFlatL2(resources, width)
            self._index.add(self._vectors_ND)
        except RuntimeError as error:
            self._give_up(str(error).splitlines()[-1])

    def _give_up(self, reason: str) -> None:
        self._index = None
        _log.warning("exact search of %d rows stays on the CPU: %s", len(self._vectors_ND), reason)


_on_gpu: WeakValueDictionary[int, ByGpu] = WeakValueDictionary()  # by the array that each holds: versions share segments
_parts: WeakValueDictionary[tuple[int, Columns, Metric], ByPart] = WeakValueDictionary()


def exact_search(vectors_ND: Vectors) -> Exact:
    """By the GPU where FAISS has one and there are rows enough to be worth it, else by the scan."""
    if len(vectors_ND) < BLOCK or not faiss.get_num_gpus():
        return ByScan(vectors_ND)
    return _on_gpu.setdefault(id(vectors_ND), ByGpu(vectors_ND))


def exact_part(vectors_ND: Vectors, query: Query, metric: Metric) -> Exact:
    """By the scan, of what a query compares of rows; the same while another of the same is there, as in an earlier version."""
    made = ByPart(vectors_ND, query.part(vectors_ND.shape[1]), metric)
    return _parts.setdefault((id(vectors_ND), query.columns, metric), made)


def _scanned(vectors_ND: Vectors, queries_QD: Vectors, wanted: Wanted, lengths_N: Floats | None = None) -> tuple[Keys, Rows]:
    return scan.exact(vectors_ND, queries_QD, wanted.k, wanted.allowed_N, wanted.after, wanted.most, lengths_N)


def free_bytes() -> int | None:
    """Memory of the first GPU that nobody has; None where PyTorch does not see it."""
    return torch.cuda.mem_get_info(0)[0] if torch.cuda.is_available() else None
