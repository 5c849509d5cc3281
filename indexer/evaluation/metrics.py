"""How good a ranking is, where many distances are equal: the expected value over random orders of equals, the best, the worst.

Items at one distance from a query are a tie; any order among them is as right as any other, and whatever order a sort left would
be luck. Every figure here is a mean over the orders, in closed form, after McSherry & Najork, "Computing information retrieval
performance measures efficiently in the presence of tied scores" (ECIR 2008); best and worst have a tie's relevant items first and
last.

Legend: Q queries, N database, W bytes of a code, D feature width, T ties, K neighbours, P depths of a curve.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from indexer.arrays import Codes, Floats, Rows, Vectors, aligned, blocks

Order = Literal["expected", "best", "worst"]
ORDERS: Final[tuple[Order, ...]] = ("expected", "best", "worst")
Measure = Literal["Euclidean", "cosine", "centred cosine"]
MEASURES: Final[tuple[Measure, ...]] = ("Euclidean", "cosine", "centred cosine")
QUERY_BLOCK: Final = 256  # queries whose distances to the whole database are held at once


@dataclass(frozen=True)
class Rankings:
    """The rankings of Q queries, as their ties. Ties without relevant items may be left out, and any tie may be empty."""

    before_QT: Rows  # items ranked before the tie
    size_QT: Rows
    relevant_QT: Rows  # of its items

    def relevant(self) -> Rows:
        """Relevant items of each query, int64 (Q,)."""
        count_Q: Rows = self.relevant_QT.sum(1)
        return count_Q

    def has_ties(self) -> bool:
        """Whether the order of equals matters to any figure."""
        return bool(((self.relevant_QT > 0) & (self.relevant_QT < self.size_QT)).any())


@dataclass(frozen=True)
class LabelledCodes:
    """The codes and labels of a database, in order of label."""

    words_VN: NDArray[np.uint64]  # codes, 8 bytes of each after the other
    labels_N: Rows
    order_N: Rows  # where each item was

    @classmethod
    def of(cls, codes_NW: Codes, labels_N: Rows) -> "LabelledCodes":
        """Of uint8 (N, W) codes and int64 (N,) labels."""
        order_N = np.argsort(labels_N, kind="stable")
        return cls(np.ascontiguousarray(_words(codes_NW)[order_N].T), labels_N[order_N], order_N)


def rank_codes(
    database: LabelledCodes, queries_QW: Codes, labels_Q: Rows, wanted: Sequence[Rows]
) -> tuple[Rankings, list[Rankings]]:
    """Rankings by Hamming distance: relevant are the items with the query's label, and then the rows of each of `wanted` (Q, K).

    The time goes into counting: a histogram of the distances for each query, and nothing is sorted.
    """
    levels = 64 * len(database.words_VN) + 1
    total, own, *rest = (np.zeros((len(queries_QW), levels), np.int64) for _ in range(2 + len(wanted)))
    starts, ends = (np.searchsorted(database.labels_N, labels_Q, side) for side in ("left", "right"))
    position_N = np.argsort(database.order_N)
    for i, query_V in enumerate(_words(queries_QW)):
        distances_N = _hamming(database.words_VN, query_V)
        total[i] = np.bincount(distances_N, minlength=levels)
        own[i] = np.bincount(distances_N[starts[i] : ends[i]], minlength=levels)
        for counts, rows_QK in zip(rest, wanted, strict=True):
            counts[i] = np.bincount(distances_N[position_N[rows_QK[i]]], minlength=levels)
    before = np.cumsum(total, 1) - total
    return Rankings(before, total, own), [Rankings(before, total, counts) for counts in rest]


def rank_vectors(
    vectors_ND: Vectors, labels_N: Rows, queries_QD: Vectors, labels_Q: Rows, k: int, measure: Measure = "Euclidean"
) -> Iterator[tuple[Rankings, Rows]]:
    """Exact rankings in float32, some queries at a time, and the k nearest rows, ties by row: int64 (q, K).

    By Euclidean distance; by the cosine between query and row; or by the cosine once the mean of the rows is taken off both. A
    vector without length has the cosine 0 with every other. `vectors_ND` may be a memory map: it is not copied.
    """
    order_N = np.argsort(labels_N, kind="stable")
    starts, ends = (np.searchsorted(labels_N, labels_Q, side, sorter=order_N) for side in ("left", "right"))
    centre_D = _mean(vectors_ND) if measure == "centred cosine" else np.zeros(vectors_ND.shape[1], np.float32)
    squares_N, scale_N = _scaled(_squared_lengths(vectors_ND, centre_D), measure)
    for block in blocks(len(queries_QD), QUERY_BLOCK):
        block_QD = queries_QD[block] - centre_D
        squares_Q, scale_Q = _scaled(_squared_lengths(queries_QD[block], centre_D), measure)
        squared_QN = np.empty((len(block_QD), len(vectors_ND)), np.float32)
        for rows in blocks(len(vectors_ND)):
            squared_QN[:, rows] = block_QD @ aligned(vectors_ND[rows]).T
        squared_QN -= (block_QD @ centre_D)[:, None]
        squared_QN *= -2 * scale_N
        squared_QN *= scale_Q[:, None]
        squared_QN += squares_N
        squared_QN += squares_Q[:, None]
        ties, nearest = [], []
        for i, squared_N in enumerate(squared_QN, block.start):
            nearest.append(_nearest(squared_N, k))
            values, relevant = np.unique(squared_N[order_N[starts[i] : ends[i]]], return_counts=True)
            squared_N.sort()
            before, after = (np.searchsorted(squared_N, values, side) for side in ("left", "right"))
            ties.append(np.stack([before, after - before, relevant]))
        padded = np.zeros((3, len(ties), max(tie.shape[1] for tie in ties)), np.int64)
        for i, tie in enumerate(ties):
            padded[:, i, : tie.shape[1]] = tie
        yield Rankings(*padded), np.stack(nearest)


def rank_lists(relevant_QK: NDArray[np.bool_]) -> Rankings:
    """Rankings without ties, of which only the first K ranks are known."""
    one = np.ones(relevant_QK.shape, np.int64)
    return Rankings(np.cumsum(one, 1) - 1, one, relevant_QK.astype(np.int64))


def average_precision(rankings: Rankings, depth: int, order: Order = "expected") -> Floats:
    """Average precision of each query over the first `depth` ranks, float64 (Q,); all items are the whole ranking.

    The precision at the rank of each relevant item, summed, and divided by how many relevant items so many ranks could hold.
    Queries without relevant items have 0.
    """
    before, size, relevant = rankings.before_QT, rankings.size_QT, rankings.relevant_QT
    relevant_before = np.cumsum(relevant, 1) - relevant
    last = int((before + size).max(initial=0))
    within = np.clip(depth - before, 0, size)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, last + 1))])

    def reciprocals(ranked_before: Rows, count: Rows) -> Floats:
        sums: Floats = harmonic[ranked_before + count] - harmonic[ranked_before]
        return sums

    if order == "expected":
        # at rank i of a tie the precision is (relevant_before + 1 + (i - 1) slope) / (before + i) where there is a relevant item
        slope = (relevant - 1) / np.maximum(size - 1, 1)
        sums = (relevant_before + 1 - (before + 1) * slope) * reciprocals(before, within) + slope * within
        sums *= relevant / np.maximum(size, 1)
    else:
        ranked_before = before if order == "best" else before + size - relevant
        counted = np.clip(before + within - ranked_before, 0, relevant)
        sums = counted + (relevant_before - ranked_before) * reciprocals(ranked_before, counted)
    sums[relevant == 0] = 0
    possible = np.minimum(rankings.relevant(), depth)
    precisions: Floats = sums.sum(1) / np.maximum(possible, 1)
    return precisions


def count_relevant(rankings: Rankings, depth: int, order: Order = "expected") -> Floats:
    """Relevant items among the first `depth` ranks of each ranking, float64 (Q,).

    Divided by `depth` this is precision@N; divided by the relevant items there are, recall.
    """
    size, relevant = rankings.size_QT, rankings.relevant_QT
    within = np.clip(depth - rankings.before_QT, 0, size)
    match order:
        case "expected":
            counts = relevant * (within / np.maximum(size, 1))
        case "best":
            counts = np.minimum(relevant, within).astype(np.float64)
        case "worst":
            counts = np.maximum(within - (size - relevant), 0).astype(np.float64)
    total: Floats = counts.sum(1)
    return total


def _words(codes_NW: Codes) -> NDArray[np.uint64]:
    padded = np.pad(codes_NW, ((0, 0), (0, -codes_NW.shape[1] % 8)))
    return padded.view(np.uint64)


def _hamming(words_VN: NDArray[np.uint64], query_V: NDArray[np.uint64]) -> NDArray[np.uint16]:
    distances_N = np.zeros(words_VN.shape[1], np.uint16)
    for words_N, word in zip(words_VN, query_V, strict=True):
        distances_N += np.bitwise_count(words_N ^ word)
    return distances_N


def _mean(vectors_ND: Vectors) -> Vectors:
    total_D = sum((vectors_ND[block].sum(0, dtype=np.float64) for block in blocks(len(vectors_ND))), np.zeros(1))
    mean_D: Vectors = (total_D / len(vectors_ND)).astype(np.float32)
    return mean_D


def _squared_lengths(vectors_ND: Vectors, centre_D: Vectors) -> Floats:
    parts = (vectors_ND[block].astype(np.float64) - centre_D for block in blocks(len(vectors_ND), QUERY_BLOCK))
    return np.concatenate([np.einsum("nd,nd->n", part, part) for part in parts])


def _scaled(squares_N: Floats, measure: Measure) -> tuple[Vectors, Vectors]:
    """The squared lengths that distances are taken with, and what rows are multiplied by for it."""
    if measure == "Euclidean":
        return squares_N.astype(np.float32), np.ones(len(squares_N), np.float32)
    lengths_N = np.where(squares_N > 0, np.sqrt(squares_N), 1)
    return np.ones(len(squares_N), np.float32), (1 / lengths_N).astype(np.float32)


def _nearest(distances_N: NDArray[np.float32], k: int) -> Rows:
    k = min(k, len(distances_N))
    candidates = np.flatnonzero(distances_N <= np.partition(distances_N, k - 1)[k - 1])
    return candidates[np.argsort(distances_N[candidates], kind="stable")[:k]]
