"""The protocol of an evaluation, on arrays: every method is measured on the same queries, by the same figures.

An item is relevant to a query when it has the query's label. Legend: N database, Q queries, D feature width, W bytes of a code,
K neighbours, O orders of ties (expected, best, worst).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from indexer.arrays import Codes, Floats, Rows, Vectors
from indexer.evaluation import intervals, metrics
from indexer.evaluation.intervals import Interval, Resamples, Verdict
from indexer.evaluation.metrics import ORDERS, LabelledCodes, Measure, Order, Rankings
from training.program import progress

PRECISIONS: Final = (1, 5, 10, 100, 1000)  # precision@N
CUTS: Final = (1000, 5000)  # mAP@N
NEIGHBORS: Final = (10, 100)  # recall@k
LIST_LENGTH: Final = max(NEIGHBORS)
_POINTS: Final = 40
_SINGLE_QUERIES: Final = 200  # timed one at a time
_BATCH_QUERIES: Final = 256  # timed together

Key = tuple[str, int]  # a figure and its depth; the depth 0 is the whole ranking
Tally = dict[Key, Floats]  # (Q, O)
_OF_CURVES: Final = ("curve recall", "curve precision")
TEN_IN_HUNDRED: Final[Key] = ("ten in hundred", 0)
OTHER_HALF: Final[Key] = ("other half", NEIGHBORS[0])


class Figure(BaseModel):
    """A mean over the queries: expected over random orders of equal distances, and with the best and the worst of them."""

    expected: float
    best: float
    worst: float
    over_queries: Interval | None = None  # of 95 %, as all intervals here; none for the points of a curve
    over_seeds: Interval | None = None  # where there are several
    difference: float | None = None  # from the method that this one is compared with
    difference_over_queries: Interval | None = None
    verdict: Verdict | None = None  # None for that method itself, and where a method that has chance in it has one seed only


class MethodResult(BaseModel):
    """How well a method finds neighbours. Keys of dictionaries are depths; depths beyond what is known are left out."""

    name: str
    bits: int = 0  # of its codes; 0 where it compares no codes
    bytes_per_item: int
    seeds: list[int] = []  # that the figures are means over; empty where a method has no chance in it
    labels_seen: float | None = None  # share of the database whose labels the network was trained on; None where it is not known
    compared_with: str = ""  # the method that the verdicts are about
    is_paired: bool = False  # whether that is another than for the methods beside it
    mean_average_precision: dict[int, Figure]  # 0: over the whole ranking
    precision: dict[int, Figure]
    recall: dict[int, Figure]  # of the k exact nearest neighbours, among the first k
    ten_in_hundred: Figure | None  # share of the 10 exact nearest neighbours that is among the first 100
    other_half: Figure | None = None  # of half the components: share of its 10 nearest that the other half has among its 10
    curve: dict[int, tuple[Figure, Figure]]  # recall and precision


@dataclass(frozen=True)
class Measurement:
    """The figures of one run of a method."""

    means: dict[Key, Floats]  # expected, best, worst: (O,)
    values: dict[Key, Floats]  # expected, of each query: (Q,); none of curves


@dataclass(frozen=True)
class Method:
    """A method and its figures: of each seed, or of the one run that it has without chance."""

    name: str
    bits: int  # of its codes; 0 where it compares no codes
    bytes_per_item: int
    labels_seen: float | None
    seeds: Sequence[int]
    runs: Sequence[Measurement]
    against: str = ""  # the method that this one is compared with, where it is none of those that are by default

    def values(self, key: Key) -> Floats:
        """The figure of each query, float64 (Q,), a mean over the seeds."""
        mean_Q: Floats = np.mean([run.values[key] for run in self.runs], 0)
        return mean_Q

    def means(self, key: Key) -> list[float]:
        """The figure of each seed."""
        return [float(run.values[key].mean()) for run in self.runs]


class Latency(BaseModel):
    """How fast a mode of search answers."""

    mode: str
    k: int
    bytes_per_item: int  # of what every search reads
    queries: int  # one at a time
    p50_ms: float
    p95_ms: float
    p99_ms: float
    queries_per_second: float  # up to 256 at once


@dataclass(frozen=True)
class GroundTruth:
    """The labels of database and queries, as numbers: they say what is relevant."""

    labels_N: Rows
    labels_Q: Rows

    def measure_vectors(self, name: str, vectors_ND: Vectors, queries_QD: Vectors, measure: Measure) -> tuple[Measurement, Rows]:
        """Ranks exactly; also gives the rows of the 100 nearest, int64 (Q, K). `name` is shown meanwhile."""
        tallies, nearest = [], []
        ranked = metrics.rank_vectors(vectors_ND, self.labels_N, queries_QD, self.labels_Q, LIST_LENGTH, measure)
        for rankings, rows_QK in progress(ranked, -(-len(queries_QD) // metrics.QUERY_BLOCK), name, "blocks"):
            tallies.append(self._tally(rankings))
            nearest.append(rows_QK)
        return _measurement({key: np.concatenate([tally[key] for tally in tallies]) for key in tallies[0]}), np.concatenate(
            nearest
        )

    def measure_halves(
        self, name: str, vectors_ND: Vectors, queries_QD: Vectors, first_D: NDArray[np.bool_], measure: Measure, nearest_QK: Rows
    ) -> list[Measurement]:
        """Ranks exactly by some of the components, and by the others; recall is against the exact nearest neighbours' rows."""
        runs, lists = [], []
        for half_D in (first_D, ~first_D):
            run, rows_QK = self.measure_vectors(name, vectors_ND[:, half_D], queries_QD[:, half_D], measure)
            runs.append(run)
            lists.append(rows_QK)
        known = nearest_QK.shape[1]
        for run, rows_QK, other_QK in zip(runs, lists, reversed(lists), strict=True):
            shares = {("recall", k): _overlap(rows_QK, nearest_QK, k) for k in NEIGHBORS if k <= known}
            shares[OTHER_HALF] = _overlap(rows_QK, other_QK, OTHER_HALF[1])
            for key, share_Q in shares.items():
                run.values[key], run.means[key] = share_Q, np.repeat(share_Q.mean(), len(ORDERS))
        return runs

    def measure_codes(self, codes_NW: Codes, queries_QW: Codes, nearest_QK: Rows) -> Measurement:
        """Ranks by Hamming distance, against the rows of the exact nearest neighbours."""
        wanted = [nearest_QK[:, :k] for k in NEIGHBORS]
        rankings, true = metrics.rank_codes(LabelledCodes.of(codes_NW, self.labels_N), queries_QW, self.labels_Q, wanted)
        return _measurement(self._tally(rankings) | _recalls(true, nearest_QK))

    def measure_lists(self, rows_QK: Rows, nearest_QK: Rows) -> Measurement:
        """Measures lists of the 100 first rows, -1 where there is none."""
        there_QK = rows_QK >= 0
        relevant = metrics.rank_lists((self.labels_N[rows_QK] == self.labels_Q[:, None]) & there_QK)
        true = [metrics.rank_lists((rows_QK[:, :, None] == nearest_QK[:, None, :k]).any(2) & there_QK) for k in NEIGHBORS]
        depths = [depth for depth in PRECISIONS if depth <= rows_QK.shape[1]]
        tally = {("precision", depth): _over_orders(metrics.count_relevant, relevant, depth) / depth for depth in depths}
        return _measurement(tally | _recalls(true, nearest_QK))

    def _tally(self, rankings: Rankings) -> Tally:
        items = len(self.labels_N)
        tally = {("map", depth): _over_orders(metrics.average_precision, rankings, depth or items) for depth in (0, *CUTS)}
        tally |= {("precision", n): _over_orders(metrics.count_relevant, rankings, n) / n for n in PRECISIONS if n <= items}
        relevant_Q1 = rankings.relevant()[:, None]
        for depth in np.unique(np.geomspace(1, items, _POINTS).round().astype(int)).tolist():
            count_QO = _over_orders(metrics.count_relevant, rankings, depth)
            tally["curve recall", depth], tally["curve precision", depth] = count_QO / relevant_Q1, count_QO / depth
        return tally


def latency(search: Callable[[Vectors, int], object], queries_QD: Vectors, mode: str, size: int) -> Latency:
    """Times `search`(queries, k) for the 10 nearest: up to 200 queries one at a time, then up to 256 at once."""
    k, rows = NEIGHBORS[0], np.linspace(0, len(queries_QD) - 1, min(_SINGLE_QUERIES, len(queries_QD))).astype(int)
    batch_QD = queries_QD[:_BATCH_QUERIES]
    for warm_up_QD in (queries_QD[:1], batch_QD):
        search(warm_up_QD, k)
    seconds = [_seconds(search, queries_QD[row : row + 1], k) for row in rows]
    p50_ms, p95_ms, p99_ms = (round(1000 * float(value), 4) for value in np.percentile(seconds, [50, 95, 99]))
    rate = len(batch_QD) / _seconds(search, batch_QD, k)
    return Latency(
        mode=mode,
        k=k,
        bytes_per_item=size,
        queries=len(rows),
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        p99_ms=p99_ms,
        queries_per_second=round(rate, 1),
    )


def _seconds(search: Callable[[Vectors, int], object], queries_QD: Vectors, k: int) -> float:
    started = time.perf_counter()
    search(queries_QD, k)
    return time.perf_counter() - started


def _overlap(rows_QK: Rows, others_QK: Rows, k: int) -> Floats:
    """The share of the first k that two lists have in common, float64 (Q,)."""
    common: Floats = (rows_QK[:, :k, None] == others_QK[:, None, :k]).any(2).sum(1) / k
    return common


def _recalls(true: Sequence[Rankings], nearest_QK: Rows) -> Tally:
    known = nearest_QK.shape[1]
    tally = {
        ("recall", k): _over_orders(metrics.count_relevant, ranked, k) / k
        for k, ranked in zip(NEIGHBORS, true, strict=True)
        if k <= known
    }
    few = NEIGHBORS[0]
    if few <= known:
        tally[TEN_IN_HUNDRED] = _over_orders(metrics.count_relevant, true[0], LIST_LENGTH) / few
    return tally


def _over_orders(measure: Callable[[Rankings, int, Order], Floats], rankings: Rankings, depth: int) -> Floats:
    if not rankings.has_ties():
        return np.repeat(measure(rankings, depth, "expected")[:, None], len(ORDERS), 1)
    return np.stack([measure(rankings, depth, order) for order in ORDERS], 1)


def _measurement(tally: Tally) -> Measurement:
    values = {key: values_QO[:, 0] for key, values_QO in tally.items() if key[0] not in _OF_CURVES}
    return Measurement({key: values_QO.mean(0) for key, values_QO in tally.items()}, values)


def result(method: Method, reference: Method | None, resamples: Resamples) -> MethodResult:
    """The figures of a method with their intervals, and how they compare with those of another, where both have a figure."""
    figures = {key: _figure(method, reference, key, resamples) for key in method.runs[0].means}

    def of(name: str) -> dict[int, Figure]:
        return {depth: figure for (figure_name, depth), figure in figures.items() if figure_name == name}

    precisions = of("curve precision")
    return MethodResult(
        name=method.name,
        bits=method.bits,
        bytes_per_item=method.bytes_per_item,
        seeds=list(method.seeds),
        labels_seen=method.labels_seen,
        compared_with=reference.name if reference else "",
        is_paired=bool(method.against),
        mean_average_precision=of("map"),
        precision=of("precision"),
        recall=of("recall"),
        ten_in_hundred=figures.get(TEN_IN_HUNDRED),
        other_half=figures.get(OTHER_HALF),
        curve={depth: (recall, precisions[depth]) for depth, recall in of("curve recall").items()},
    )


def _figure(method: Method, reference: Method | None, key: Key, resamples: Resamples) -> Figure:
    means = np.mean([run.means[key] for run in method.runs], 0)
    figure = Figure(**dict(zip(ORDERS, means.tolist(), strict=True)))
    if key[0] in _OF_CURVES:
        return figure
    figure.over_queries = resamples.interval(method.values(key))
    figure.over_seeds = intervals.over_seeds(method.means(key))
    if reference and key in reference.runs[0].values:
        figure.difference = float(np.mean(method.means(key)) - np.mean(reference.means(key)))
        figure.difference_over_queries = resamples.interval(method.values(key) - reference.values(key))
        if not any(len(one.seeds) == 1 for one in (method, reference)):
            figure.verdict = intervals.verdict(
                [
                    figure.difference_over_queries,
                    intervals.over_seeds_of_difference(method.means(key), reference.means(key)),
                ]
            )
    return figure
