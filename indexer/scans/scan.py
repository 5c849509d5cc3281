"""Rows of vectors and codes compared with queries, all of them or some: exact distances, nearest first, equals by row.

A mask says which rows are there; `after`, a (distance, row), gives what comes later in the order; `most` is the largest distance.
Distances of vectors are squared, taken in float64 from differences: a row is at 0 from itself, equal rows are at equal distances,
and no answer depends on how many queries came together. Of a view of some components of every row nothing else is read. With
`lengths_N` rows are compared over these lengths, rounded to float32, and those of no length are not there. With native.c compiled
every core scans; else NumPy does the same.

Legend: N rows, Q queries, D width of a vector, W bytes of a code, B bits, K wanted, R rows given.
"""

from itertools import combinations
from math import comb
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexer.arrays import BLOCK, Codes, Floats, Keys, Mask, Rows, Vectors, aligned, blocks
from indexer.scans import native
from indexer.scans.native import HIT, Wanted

After = tuple[float, int]

# From so many queries on a matrix product, refined, is faster than a scan for each.
_TOGETHER: Final = 24
_QUERIES: Final = 256
_PRODUCT_ROWS: Final = 1024  # of a matrix product: few enough that a copy of them is still in the cache
_MOST_PROPOSALS: Final = 2**22  # rows that all queries of a product may have between them before they are scanned one by one
_UNIT: Final = 2.0**-24  # the largest relative error of one float32 operation
_LARGE, _TINY = 2.0**125, 2.0**-100  # squared lengths: above, float32 overflows; below, it is off by more than a share
_SHORT: Final = 4  # bytes of the longest code that buckets are made of


def exact(
    vectors_ND: Vectors,
    queries_QD: Vectors,
    k: int,
    allowed_N: Mask | None = None,
    after: After | None = None,
    most: float | None = None,
    lengths_N: Floats | None = None,
) -> tuple[Keys, Rows]:
    """The k nearest rows of each float32 (Q, D) query: squared distances float64 (Q, K) and rows, filled up with (inf, -1)."""
    queries_QD = aligned(np.asarray(queries_QD, np.float32))
    k = min(k, len(vectors_ND))
    if lengths_N is not None and not lengths_N.all():
        there_N: Mask = (lengths_N > 0).view(np.uint8)
        allowed_N = there_N if allowed_N is None else there_N & allowed_N
    wanted = Wanted(k, allowed_N, after, most)
    hits = np.full((len(queries_QD), k), np.array((np.inf, -1), HIT))
    if k and len(queries_QD) >= _TOGETHER and after is None and k <= BLOCK:
        for block in blocks(len(queries_QD), _QUERIES):
            _together(vectors_ND, queries_QD[block], wanted, hits[block], lengths_N)
    elif k:
        _one_by_one(vectors_ND, queries_QD, wanted, hits, lengths_N)
    return hits["key"].copy(), hits["row"].copy()


def distances(vectors_ND: Vectors, query_D: Vectors, rows_R: Rows, lengths_N: Floats | None = None) -> Keys:
    """The squared distances of given rows, which have a length, from one query, float64 (R,)."""
    query_D, rows_R = aligned(np.asarray(query_D, np.float32)), np.ascontiguousarray(rows_R, np.int64)
    if native.library():
        return native.distances(vectors_ND, query_D, rows_R, lengths_N)
    if len(rows_R) and rows_R.min() < 0:
        raise IndexError(f"row {rows_R.min()}")
    query = query_D.astype(np.float64)
    parts = (np.square(_over(vectors_ND, lengths_N, rows_R[block]) - query).sum(1) for block in blocks(len(rows_R)))
    return np.concatenate([np.empty(0), *parts])


def hamming(
    codes_NW: Codes,
    queries_QW: Codes,
    k: int,
    allowed_N: Mask | None = None,
    after: tuple[int, int] | None = None,
    most: int | None = None,
) -> tuple[NDArray[np.int32], Rows]:
    """The k nearest codes of each query: Hamming distances int32 (Q, K) and rows, filled up with (-1, -1)."""
    k = min(k, len(codes_NW))
    wanted = Wanted(k, allowed_N, after, most)
    queries_QW = np.ascontiguousarray(queries_QW)
    hits = np.full((len(queries_QW), k), np.array((-1, -1), HIT))
    if k and native.library():
        hits = native.hamming(codes_NW, queries_QW, wanted)
    elif k:
        for query_W, row in zip(queries_QW, hits, strict=True):
            nearest = first(np.bitwise_count(codes_NW ^ query_W).sum(1, dtype=np.float64), np.arange(len(codes_NW)), wanted)
            row[: len(nearest)] = nearest
    return hits["key"].astype(np.int32), hits["row"].copy()


def ball(codes_NW: Codes, query_W: Codes, radius: int, allowed_N: Mask | None = None) -> tuple[NDArray[np.int32], Rows]:
    """All rows whose codes are within `radius` bits: Hamming distances and rows, nearest first."""
    distance, rows = hamming(codes_NW, query_W[None], len(codes_NW), allowed_N, most=radius)
    here = rows[0] >= 0
    return distance[0][here], rows[0][here]


class Buckets:
    """Rows by their short codes, so that those in a ball are looked up, code by code (Krizhevsky & Hinton 2011, section 1).

    Codes of more than 32 bits, and balls of more codes than there are rows, are scanned instead.
    """

    def __init__(self, codes_NW: Codes, bits: int) -> None:
        """`bits` are those used of each code, the first ones."""
        self._codes_NW, self._bits = codes_NW, bits
        self._short = codes_NW.shape[1] <= _SHORT
        if self._short:
            keys_N = _keys(codes_NW)
            self._rows_N: Rows = np.argsort(keys_N, kind="stable")
            self._sorted_N = keys_N[self._rows_N]

    def ball(self, query_W: Codes, radius: int, allowed_N: Mask | None = None) -> tuple[NDArray[np.int32], Rows, int]:
        """As `ball`, and how many codes were looked up; in a scan, each row's."""
        bits, radius = self._bits, min(radius, self._bits)
        codes = sum(comb(bits, r) for r in range(radius + 1))
        if not self._short or codes > len(self._codes_NW):
            return (*ball(self._codes_NW, query_W, radius, allowed_N), len(self._codes_NW))
        key = int(_keys(query_W[None])[0])
        parts, distance = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for r in range(radius + 1):
            flips = np.array([sum(1 << bit for bit in chosen) for chosen in combinations(range(bits), r)], np.int64)
            starts, ends = (np.searchsorted(self._sorted_N, flips ^ key, side) for side in ("left", "right"))
            rows = np.sort(np.concatenate([parts[0], *(self._rows_N[a:b] for a, b in zip(starts, ends, strict=True) if a < b)]))
            rows = rows if allowed_N is None else rows[allowed_N[rows] != 0]
            parts.append(rows)
            distance.append(np.full(len(rows), r, np.int32))
        return np.concatenate(distance), np.concatenate(parts), codes


def _keys(codes_NW: Codes) -> NDArray[np.int64]:
    padded = np.zeros((len(codes_NW), 8), np.uint8)
    padded[:, : codes_NW.shape[1]] = codes_NW
    return padded.view("<i8")[:, 0].astype(np.int64)


def first(keys_R: Keys, rows_R: Rows, wanted: Wanted) -> NDArray[Any]:
    """The first k of rows with their distances, after masks and limits: HIT records."""
    counts = np.ones(len(rows_R), np.bool_) if wanted.allowed_N is None else wanted.allowed_N[rows_R] != 0
    if wanted.most is not None:
        counts &= keys_R <= wanted.most
    if wanted.after is not None:
        key, row = wanted.after
        counts &= (keys_R > key) | ((keys_R == key) & (rows_R > row))
    keys_R, rows_R = keys_R[counts], rows_R[counts]
    order = np.lexsort((rows_R, keys_R))[: wanted.k]
    hits = np.empty(len(order), HIT)
    hits["key"], hits["row"] = keys_R[order], rows_R[order]
    return hits


def product_error(width: int, squares: float) -> float:
    """How far |q|^2 + |x|^2 - 2 q.x in float32 may be from the squared distance of q and x; `squares` is at least |q|^2 + |x|^2.

    Up to 2 (D + 8) u (|q|^2 + |x|^2), however a product sums its D terms, since 2 |q_d x_d| <= q_d^2 + x_d^2 (Higham 2002,
    section 3.1). Infinite where float32 may overflow.
    """
    return _share(width) * (squares + _TINY) if squares <= _LARGE else np.inf


def _share(width: int) -> float:
    return 2 * (width + 8) * _UNIT


def _over(vectors_ND: Vectors, lengths_N: Floats | None, rows: Rows | slice) -> Vectors:
    """Some rows, or these over their lengths, as metric.vectors_of has rows at length 1."""
    if lengths_N is None:
        return vectors_ND[rows]
    over_ND: Vectors = (vectors_ND[rows] / lengths_N[rows, None]).astype(np.float32)
    return over_ND


def _one_by_one(vectors_ND: Vectors, queries_QD: Vectors, wanted: Wanted, out_QK: NDArray[Any], lengths_N: Floats | None) -> None:
    scan_one = native.exact if native.library() else _exact
    for query_D, row in zip(queries_QD, out_QK, strict=True):
        nearest = scan_one(vectors_ND, query_D, wanted, lengths_N)
        row[: len(nearest)] = nearest


def _exact(vectors_ND: Vectors, query_D: Vectors, wanted: Wanted, lengths_N: Floats | None) -> NDArray[Any]:
    best = np.empty(0, HIT)
    for block in blocks(len(vectors_ND)):
        rows = np.arange(block.start, block.stop)
        rows = rows if lengths_N is None else rows[lengths_N[block] > 0]
        keys = np.concatenate([best["key"], distances(vectors_ND, query_D, rows, lengths_N)])
        best = first(keys, np.concatenate([best["row"], rows]), wanted)
    return best


def _together(vectors_ND: Vectors, queries_QD: Vectors, wanted: Wanted, out_QK: NDArray[Any], lengths_N: Floats | None) -> None:
    """Inner products propose the rows that may be among the first, whatever they are off by; exact distances decide."""
    proposals = _propose(vectors_ND, queries_QD, wanted, lengths_N)
    if proposals is None:
        _one_by_one(vectors_ND, queries_QD, wanted, out_QK, lengths_N)
        return
    queries, rows = proposals
    order = np.argsort(queries, kind="stable")
    bounds = np.searchsorted(queries[order], np.arange(len(queries_QD) + 1))
    for q, query_D in enumerate(queries_QD):
        mine = rows[order[bounds[q] : bounds[q + 1]]]
        nearest = first(distances(vectors_ND, query_D, mine, lengths_N), mine, wanted)
        out_QK[q, : len(nearest)] = nearest


def _copied(vectors_ND: Vectors, lengths_N: Floats | None, block: slice, out_ND: Vectors) -> Vectors:
    """Copies rows, over their lengths, to where a matrix product can take them; their squared lengths then, float32 (N,)."""
    if native.library() and lengths_N is None:
        return native.copied(vectors_ND[block], out_ND)
    if lengths_N is None:
        out_ND[:] = vectors_ND[block]
    else:
        np.divide(
            vectors_ND[block], np.where(lengths_N[block] > 0, lengths_N[block], 1)[:, None], out=out_ND, casting="same_kind"
        )
    squares_N: Vectors = np.einsum("nd,nd->n", out_ND, out_ND)
    return squares_N


def _propose(vectors_ND: Vectors, queries_QD: Vectors, wanted: Wanted, lengths_N: Floats | None) -> tuple[Rows, Rows] | None:
    """Every row that may be among the first k of a query: pairs (query, row); None where a scan has to tell.

    The k-th distance and that of the row in question may both be off; see product_error.
    """
    squares_Q = np.einsum("qd,qd->q", queries_QD, queries_QD)
    share = 2 * _share(queries_QD.shape[1])
    nearest_QK = np.full((len(queries_QD), wanted.k), np.inf, np.float32)
    proposals: list[tuple[Rows, Rows, NDArray[np.float32]]] = []
    largest, longest, total = float(squares_Q.max()), 0.0, 0
    room_ND = np.empty((min(_PRODUCT_ROWS, len(vectors_ND)), vectors_ND.shape[1]), np.float32)
    for block in blocks(len(vectors_ND), _PRODUCT_ROWS):
        block_ND = room_ND[: block.stop - block.start]
        squares_N = _copied(vectors_ND, lengths_N, block, block_ND)
        longest = max(longest, float(squares_N.max()))
        if not largest + longest <= _LARGE:
            return None
        slack_Q = share * (squares_Q + (longest + _TINY))
        about_QN = squares_Q[:, None] + squares_N - 2 * (queries_QD @ block_ND.T)
        if wanted.allowed_N is not None:
            about_QN[:, wanted.allowed_N[block] == 0] = np.inf
        nearest_QK = np.partition(np.concatenate([nearest_QK, about_QN], axis=1), wanted.k - 1, axis=1)[:, : wanted.k]
        limit_Q = nearest_QK[:, -1]
        if wanted.most is not None:
            limit_Q = np.minimum(limit_Q, np.float32(wanted.most))
        near_QN = about_QN <= (limit_Q + slack_Q)[:, None]
        queries, rows = np.nonzero(near_QN & np.isfinite(about_QN))
        proposals.append((queries, rows + block.start, about_QN[queries, rows]))
        total += len(rows)
        if total > _MOST_PROPOSALS:
            return None
    queries, rows, about = (np.concatenate(arrays) for arrays in zip(*proposals, strict=True))
    near = about <= (nearest_QK[:, -1] + slack_Q)[queries]
    return queries[near], rows[near]
