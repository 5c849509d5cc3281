"""One search over all segments of an index on disk: every mode, filters and pages; distances first, ties by id.

Legend: N rows, Q queries, D feature width, K neighbours, W bytes of a code, R rows of a short-list.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from indexer.arrays import Codes, Ids, Keys, Mask, Vectors
from indexer.metric import Metric, most_squared
from indexer.scans import scan
from indexer.scans.native import Wanted
from indexer.scans.scan import Buckets
from indexer.search.exact import Exact, exact_part, exact_search
from indexer.search.ranking import by_vector, cut, hamming, stack
from indexer.search.shortlist import Shortlist, length_for
from indexer.storage.segment import Segment
from indexer.store import ALL, Columns, Filter, Hits, Query, metric_of

# How much longer a short-list becomes when it did not give as many neighbours as were asked for.
_GROWTH: Final = 4
_FILTERS_KEPT: Final = 32  # as masks
_COUNTS_KEPT: Final = 4096
_MOST_BITS: Final = 2**16


class Searcher:
    """Searches segments as one collection."""

    def __init__(
        self,
        segments: Sequence[Segment],
        shortlists: Sequence[Shortlist | None],
        length: int,
        bits: int,
        deleted: Ids,
        metric: Metric,
    ) -> None:
        """`shortlists` has one a segment, None where all its rows are compared exactly; `length` is R for NEIGHBORS."""
        self._segments = segments
        self._exact_of = [exact_search(segment.vectors_ND) for segment in segments]
        self._parts: dict[tuple[Columns, Metric], list[Exact]] = {}
        self._shortlists = shortlists
        self._length, self._bits, self._metric = length, bits, metric
        self._longest = max(map(len, segments), default=0)
        self._live = [_without(segment, deleted, None) for segment in segments]
        self._masks: dict[Filter, list[Mask | None]] = {}
        self._counts: dict[Filter, int] = {}
        self._buckets: dict[int, Buckets] = {}

    def needs_codes(self, query: Query) -> bool:
        """Whether a search goes by the codes of its queries."""
        by_code = (shortlist for shortlist in self._shortlists if shortlist is not None and shortlist.by_code)
        return query.mode in ("code", "ball") or (not query.is_exact and any(by_code))

    def search(self, queries_QD: Vectors, codes_QW: Codes | None, query: Query) -> Hits:
        """The hits of each float32 (Q, D) vector, as Query.compared has it; `codes_QW` are its codes, where a mode needs them."""
        masks = self.passing(query.filter)
        if query.without:
            ids = np.array(query.without, np.int64)
            masks = [_without(segment, ids, mask) for segment, mask in zip(self._segments, masks, strict=True)]
        if query.is_exact:
            return self._exact(queries_QD, query, masks)
        match query.mode:
            case "code":
                assert codes_QW is not None  # noqa: S101
                return self._code(codes_QW, query, masks)
            case "ball":
                assert codes_QW is not None  # noqa: S101
                return self._ball(codes_QW, query, masks)
            case _:
                return self._two_stage(queries_QD, codes_QW, query, masks)

    def count(self, filter: Filter) -> int:
        """The rows that pass a filter and have not been removed."""
        if filter not in self._counts:
            if len(self._counts) >= _COUNTS_KEPT:
                self._counts.clear()
            masks = zip(self._segments, self._masks.get(filter) or self._mask(filter), strict=True)
            self._counts[filter] = sum(len(rows) if mask is None else int(np.count_nonzero(mask)) for rows, mask in masks)
        return self._counts[filter]

    def _exact(self, queries_QD: Vectors, query: Query, masks: list[Mask | None]) -> Hits:
        metric = metric_of(query, self._metric)
        parts = []
        for segment, exact, mask in zip(self._segments, self._comparing(query, metric), masks, strict=True):
            after, most = _row_after(segment, query), most_squared(query.max_distance, metric)
            squared, rows = exact.nearest(queries_QD, Wanted(min(query.k, len(segment)), mask, after, most))
            parts.append((squared, _ids(segment, rows)))
        return by_vector(_merge(parts, len(queries_QD), query.k), metric)

    def _comparing(self, query: Query, metric: Metric) -> Sequence[Exact]:
        """What compares with each segment: with whole vectors by the index's metric, or otherwise."""
        if query.columns == "both" and metric == self._metric:
            return self._exact_of
        if (query.columns, metric) not in self._parts:
            self._parts[query.columns, metric] = [exact_part(segment.vectors_ND, query, metric) for segment in self._segments]
        return self._parts[query.columns, metric]

    def _code(self, codes_QW: Codes, query: Query, masks: list[Mask | None]) -> Hits:
        parts = []
        for segment, mask in zip(self._segments, masks, strict=True):
            assert segment.codes_NW is not None  # noqa: S101
            after, most = _row_after(segment, query), query.max_distance
            code_after = None if after is None else (int(after[0]), after[1])
            limit = None if most is None else int(min(most, _MOST_BITS))
            distances, rows = scan.hamming(segment.codes_NW, codes_QW, min(query.k, len(segment)), mask, code_after, limit)
            parts.append((np.where(rows < 0, np.inf, distances), _ids(segment, rows)))
        return hamming(_merge(parts, len(codes_QW), query.k))

    def _ball(self, codes_QW: Codes, query: Query, masks: list[Mask | None]) -> Hits:
        radius = query.radius or 0
        if query.max_distance is not None:
            radius = int(min(radius, query.max_distance))
        rows_of_query, visited = [], []
        for code_W in codes_QW:
            parts, count = [], 0
            for number, (segment, mask) in enumerate(zip(self._segments, masks, strict=True)):
                distances, rows, looked = self._buckets_of(number).ball(code_W, radius, mask)
                parts.append((distances.astype(np.float64), segment.ids_N[rows]))
                count += looked
            rows_of_query.append(cut(parts, query))
            visited.append(count)
        return hamming(stack(rows_of_query), np.array(visited, np.int64))

    def _two_stage(self, queries_QD: Vectors, codes_QW: Codes | None, query: Query, masks: list[Mask | None]) -> Hits:
        lists = []
        proposed = self._proposed(queries_QD, codes_QW, length_for(self._length, query.k), masks)
        for i in range(len(queries_QD)):
            code = None if codes_QW is None else codes_QW[i : i + 1]
            first = [None if rows_QR is None else rows_QR[i : i + 1] for rows_QR in proposed]
            lists.append(self._refined(queries_QD[i : i + 1], code, query, masks, first))
        return by_vector(stack(lists), self._metric)

    def _proposed(self, queries_QD: Vectors, codes_QW: Codes | None, length: int, masks: list[Mask | None]) -> list[Ids | None]:
        """The rows (Q, R) on the short-list of each segment; None where all of its rows are compared."""
        return [
            None if shortlist is None or length >= len(segment) else shortlist.candidates(queries_QD, codes_QW, length, mask)
            for segment, shortlist, mask in zip(self._segments, self._shortlists, masks, strict=True)
        ]

    def _refined(
        self,
        query_1D: Vectors,
        code_1W: Codes | None,
        query: Query,
        masks: list[Mask | None],
        proposed: list[Ids | None],
    ) -> tuple[Keys, Ids]:
        """The first hits of one query in two stages; `proposed` are the rows (1, R) of the first short-list of each segment.

        The short-list grows until it gives as many as were asked for or has all.
        """
        length, before = length_for(self._length, query.k), -1
        while True:
            stages = zip(self._segments, proposed, masks, strict=True)
            parts = [self._stage(segment, query_1D, query, rows_1R, mask) for segment, rows_1R, mask in stages]
            keys, ids = cut(parts, query)
            stuck = query.max_distance is not None and len(ids) == before
            if len(ids) == query.k or stuck or length >= self._longest:
                return keys, ids
            length, before = length * _GROWTH, len(ids)
            proposed = self._proposed(query_1D, code_1W, length, masks)

    def _stage(
        self, segment: Segment, query_1D: Vectors, query: Query, rows_1R: Ids | None, mask: Mask | None
    ) -> tuple[Keys, Ids]:
        most = most_squared(query.max_distance, self._metric)
        if rows_1R is None:
            squared, rows = scan.exact(segment.vectors_ND, query_1D, min(query.k, len(segment)), mask, most=most)
            here = rows[0] >= 0
            return squared[0][here], segment.ids_N[rows[0][here]]
        rows = np.sort(rows_1R[rows_1R >= 0])
        squared = scan.distances(segment.vectors_ND, query_1D[0], rows)
        if most is not None:
            near = squared <= most
            squared, rows = squared[near], rows[near]
        return squared, segment.ids_N[rows]

    def _buckets_of(self, number: int) -> Buckets:
        if number not in self._buckets:
            codes = self._segments[number].codes_NW
            assert codes is not None  # noqa: S101
            self._buckets[number] = Buckets(codes, self._bits)
        return self._buckets[number]

    def passing(self, filter: Filter) -> list[Mask | None]:
        """The rows of each segment that pass a filter and have not been removed; None for all."""
        masks = self._masks.get(filter)
        if masks is None:
            masks = self._mask(filter)
            if len(self._masks) >= _FILTERS_KEPT:
                self._masks.clear()
            self._masks[filter] = masks
        return masks

    def _mask(self, filter: Filter) -> list[Mask | None]:
        if filter == ALL:
            return self._live
        masks = [segment.passing(filter) for segment in self._segments]
        return [mask if live is None else mask & live for mask, live in zip(masks, self._live, strict=True)]


def _without(segment: Segment, ids: Ids, mask: Mask | None) -> Mask | None:
    """A mask that leaves out these items too."""
    rows = segment.rows_of(ids)
    if not len(rows):
        return mask
    mask = np.ones(len(segment), np.uint8) if mask is None else mask.copy()
    mask[rows] = 0
    return mask


def _ids(segment: Segment, rows_QK: Ids) -> Ids:
    if not len(segment):
        return rows_QK
    return np.where(rows_QK < 0, -1, segment.ids_N[rows_QK])


def _row_after(segment: Segment, query: Query) -> tuple[float, int] | None:
    """Query.after in the rows of a segment: of its equals in distance, what comes after has a higher id, and so a higher row."""
    if query.after is None:
        return None
    return query.after[0], int(np.searchsorted(segment.ids_N, query.after[1], "right")) - 1


def _merge(parts: Sequence[tuple[Keys, Ids]], queries: int, k: int) -> tuple[Keys, Ids]:
    """(Q, K) hits of each segment -> the first k of all of them."""
    keys = np.concatenate([np.full((queries, 0), np.inf), *(keys for keys, _ in parts)], 1)
    ids = np.concatenate([np.full((queries, 0), -1, np.int64), *(ids for _, ids in parts)], 1)
    order = np.lexsort((ids, keys), axis=1)[:, :k]
    return np.take_along_axis(keys, order, 1), np.take_along_axis(ids, order, 1)
