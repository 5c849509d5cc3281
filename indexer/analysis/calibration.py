"""What distances mean, measured: probabilities of the same class, fitted to some queries and held against others.

Queries are labelled photographs that the index does not hold and the network was not trained on, since it has seen the labels of
what it was trained on. They are two halves, by their files' SHA-256. Each half is measured by what is fitted to the other; what
is kept is fitted to both.

Pairs are a query and an item: its 50 nearest, and 50 of the other items at random. Probabilities are asked of what is shown, of
which the first places are looked at most: the pair at rank r counts 1/r, and those drawn from the ranks behind the nearest count
as these ranks together. Each query counts as much as any other.

Legend: Q queries, P pairs, B bins, R resamples, S sampled items, D feature width, W bytes of a code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from indexer.arrays import Codes, Floats, Labels, Rows, Vectors, blocks
from indexer.evaluation.intervals import Resamples
from indexer.opening import OpenStore
from indexer.search.calibration import between, measure_of, usual
from indexer.storage.calibration import MOST_PAIRS, MOST_VECTORS, Bin, DistanceRecord, Measure, Measurement, Quality
from indexer.storage.version import load_autoencoder
from indexer.store import Mode, Query
from training.program import progress

NEAREST: Final = 50  # neighbours of each query
FIRST: Final = 10  # that a page shows
FAR: Final = 50  # other items of each query
BINS: Final = 15
LEFT_OUT: Final = 1000  # items that are queries for the comparison with leave-one-out
KINDS: Final = (f"first {FIRST}", f"first {NEAREST}", "all items")
ISOTONIC, BASE_RATE, LOGISTIC, RAW, SEEN = "isotonic", "base rate", "logistic", "raw distance", "leave-one-out"
_BLOCK: Final = 256

Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """Pairs of queries and items, query after query."""

    query_P: Rows  # which query, from 0 on
    distance_P: Floats
    step_P: Floats  # the distance in the query's own unit; see search/calibration.py
    same_P: Marks  # whether both are of one class
    rank_P: Rows  # from 1 on; 0 for an item that was drawn from those behind the nearest
    far_P: Floats  # of such an item, how many it stands for, else 1
    weight_P: Floats  # for the fit

    def where(self, chosen_P: Marks) -> "Pairs":
        """Some of them."""
        return Pairs(*(getattr(self, field.name)[chosen_P] for field in fields(self)))

    def counts(self, kind: str) -> Floats:
        """How much each pair counts among the first 10, the first 50 or all items of its query."""
        if kind == KINDS[2]:
            return self.far_P
        return ((self.rank_P > 0) & (self.rank_P <= (FIRST if kind == KINDS[0] else NEAREST))).astype(np.float64)


@dataclass(frozen=True)
class Asked:
    """Queries that are put to an index."""

    vectors_QD: Vectors  # as the metric has them
    labels_Q: Labels
    ids_Q: Rows  # of those that are items, which are no neighbours of themselves; -1 for others


class Ruler:
    """One measure of an index's distances: finds pairs, with what a distance is in the query's own unit."""

    def __init__(self, store: OpenStore, mode: Mode, sample: Sequence[int], seed: int = 0) -> None:
        """`sample` are ids of items; see CalibrationRecord.sample."""
        self.measure: Measure = measure_of(mode, store)
        self._store, self._mode, self._rng = store, mode, np.random.default_rng(seed)
        self._encoder = load_autoencoder(store.folder, store.manifest) if self.measure == "hamming" else None
        ids = list(sample if self._encoder else sample[:MOST_VECTORS])
        self._ids_S = np.array(ids)
        self._sample_S: Vectors | Codes = store.codes(ids) if self._encoder else store.vectors(ids)
        self._labels_S = np.array([item.label for item in store.items(ids)])

    def random_distances(self) -> Floats:
        """Of random pairs of two items, ascending."""
        count = min(len(self._ids_S), MOST_VECTORS)
        first, second = np.triu_indices(count, 1)
        drawn = self._rng.permutation(len(first))[:MOST_PAIRS]
        distances = between(self._sample_S[:count], self._sample_S[:count], self.measure)
        return np.sort(distances[first[drawn], second[drawn]])

    def pairs(self, asked: Asked) -> Pairs:
        """The nearest items of each query, and some of the others."""
        parts: list[list[NDArray[np.generic]]] = []
        rows = list(blocks(len(asked.labels_Q), _BLOCK))
        for block in progress(rows, len(rows), f"pairs by {self.measure} distance", "blocks"):
            parts += self._of_block(asked, block)
        return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def _of_block(self, asked: Asked, block: slice) -> list[list[NDArray[np.generic]]]:
        queries_QD = asked.vectors_QD[block]
        codes = self._encoder.encode(queries_QD) if self._encoder else queries_QD
        own = usual(codes, self._sample_S, self.measure)
        far_QS = between(codes, self._sample_S, self.measure)
        hits = self._store.search(queries_QD, Query(min(NEAREST + 1, len(self._store)), self._mode))
        found = np.unique(hits.ids_QK[hits.ids_QK >= 0]).tolist()
        label_of = dict(zip(found, (item.label for item in self._store.items(found)), strict=True))
        parts = []
        for i, query in enumerate(range(block.start, block.stop)):
            itself = int(asked.ids_Q[query])
            near = [(item, distance) for item, distance, _ in hits.of(i) if item != itself][:NEAREST]
            items = len(self._store) - (itself >= 0)
            behind = np.flatnonzero(~np.isin(self._ids_S, [item for item, _ in near] + [itself]))
            far = self._rng.permutation(behind)[: FAR if items > len(near) else 0]
            distances = np.array([distance for _, distance in near] + far_QS[i, far].tolist())
            labels = np.array([label_of[item] for item, _ in near] + self._labels_S[far].tolist())
            ranks = np.arange(1, items + 1)
            beyond = np.sum(1 / ranks[len(near) :]) / max(1, len(far))
            parts.append(
                [
                    np.full(len(distances), query),
                    distances,
                    own.steps(i, distances),
                    labels == asked.labels_Q[query],
                    np.concatenate([ranks[: len(near)], np.zeros(len(far), np.int64)]),
                    np.concatenate([np.ones(len(near)), np.full(len(far), (items - len(near)) / max(1, len(far)))]),
                    np.concatenate([1 / ranks[: len(near)], np.full(len(far), beyond)]),
                ]
            )
        return parts


def calibrate(ruler: Ruler, asked: Asked, half_Q: Rows, seen: Asked) -> DistanceRecord:
    """Measures each half of the queries (0 or 1) by what is fitted to the other, beside simpler ways; then fits to both.

    `seen` are items as queries: a calibration by leave-one-out, as it would be without photographs of its own.
    """
    pairs, of_seen = ruler.pairs(asked), ruler.pairs(seen)
    half_P = half_Q[pairs.query_P]
    told = {name: np.empty(len(half_P)) for name in (ISOTONIC, LOGISTIC, RAW, SEEN)}
    rates = {kind: np.empty(len(half_P)) for kind in KINDS}
    told[SEEN] = _isotonic(of_seen.step_P, of_seen).predict(pairs.step_P)
    for half in (0, 1):
        here_P, others = half_P == half, pairs.where(half_P != half)
        told[ISOTONIC][here_P] = _isotonic(others.step_P, others).predict(pairs.step_P[here_P])
        told[RAW][here_P] = _isotonic(others.distance_P, others).predict(pairs.distance_P[here_P])
        told[LOGISTIC][here_P] = _logistic(others, pairs.step_P[here_P])
        for kind in KINDS:
            rates[kind][here_P] = np.average(others.same_P, weights=others.counts(kind))
    isotonic = _isotonic(pairs.step_P, pairs)
    predicted_P = told.pop(ISOTONIC)
    return DistanceRecord(
        measure=ruler.measure,
        random=ruler.random_distances().tolist(),
        steps=isotonic.X_thresholds_.tolist(),
        chances=isotonic.y_thresholds_.tolist(),
        measurements=[measure(kind, pairs, predicted_P, {BASE_RATE: rates[kind], **told}) for kind in KINDS],
    )


def _isotonic(values_P: Floats, pairs: Pairs) -> IsotonicRegression:
    return fit(values_P, pairs.same_P, pairs.weight_P, len(np.unique(pairs.query_P)))


def fit(values_P: Floats, same_P: Marks, weight_P: Floats, queries: int) -> IsotonicRegression:
    """Probabilities that fall as values rise (isotonic regression: Zadrozny & Elkan 2002).

    Of so few queries nothing is certain: no probability is nearer to 0 or 1 than 1 / (queries + 2), the rule of succession.
    """
    least = 1 / (queries + 2)
    isotonic = IsotonicRegression(increasing=False, out_of_bounds="clip", y_min=least, y_max=1 - least)
    return isotonic.fit(values_P, same_P.astype(np.float64), sample_weight=weight_P)


def measure(kind: str, pairs: Pairs, predicted_P: Floats, others: dict[str, Floats]) -> Measurement:
    """How far probabilities of one kind of pairs are from what is observed.

    The error is the mean over bins of |predicted - observed|, weighted (Naeini et al. 2015); bins have equally many pairs, and
    pairs of one probability are in one bin. Its interval is the basic bootstrap's over the queries (Davison & Hinkley 1997,
    section 5.2), since errors of resamples are larger than that of the sample, as that is than the truth. `floor` is what
    probabilities without error would be measured at: the mean of |gap| where it is normal around 0 with the resamples' spread.
    """
    counts_P = pairs.counts(kind)
    bin_P = bins_of(predicted_P, counts_P)
    number = int(bin_P.max()) + 1
    queries = int(pairs.query_P.max()) + 1
    weight_QB, predicted_QB, same_QB = (
        _table(pairs.query_P, bin_P, counts_P * value, (queries, number)) for value in (1.0, predicted_P, pairs.same_P)
    )
    weights_RQ = Resamples.of(queries).weights_RQ
    total_R = weights_RQ @ weight_QB.sum(1)
    gap_RB = weights_RQ @ (predicted_QB - same_QB) / total_R[:, None]
    error = float(np.abs((predicted_QB - same_QB).sum(0)).sum() / weight_QB.sum())
    low, high = np.percentile(np.abs(gap_RB).sum(1), (97.5, 2.5))
    observed_RB = (weights_RQ @ same_QB) / np.maximum(weights_RQ @ weight_QB, 1e-12)
    bounds_B2 = np.percentile(observed_RB, (2.5, 97.5), axis=0).T
    weight_B = weight_QB.sum(0)
    return Measurement(
        pairs=kind,
        error=error,
        brier=_brier(pairs, predicted_P, counts_P),
        interval=(max(0.0, 2 * error - float(low)), min(1.0, max(0.0, 2 * error - float(high)))),
        floor=float(np.sqrt(2 / np.pi) * gap_RB.std(0).sum()),
        others={
            name: Quality(error=_error(pairs, values_P, counts_P), brier=_brier(pairs, values_P, counts_P))
            for name, values_P in others.items()
        },
        bins=[
            Bin(
                predicted=_share(predicted_QB.sum(0)[b] / weight_B[b]),
                observed=_share(same_QB.sum(0)[b] / weight_B[b]),
                interval=(_share(bounds_B2[b, 0]), _share(bounds_B2[b, 1])),
                weight=_share(weight_B[b] / weight_B.sum()),
            )
            for b in range(number)
            if weight_B[b] > 0
        ],
    )


def bins_of(predicted_P: Floats, counts_P: Floats) -> Rows:
    """The bin of each pair, from 0 on by rising probability: BINS of equal counts, but that equal probabilities stay together."""
    values, number_P = np.unique(predicted_P, return_inverse=True)
    count_V = np.bincount(number_P, weights=counts_P, minlength=len(values))
    ends_V = np.cumsum(count_V)
    middle_V = (ends_V - count_V / 2) / max(ends_V[-1], 1e-12)
    bin_V = np.unique(np.minimum((middle_V * BINS).astype(np.int64), BINS - 1), return_inverse=True)[1]
    bins_P: Rows = bin_V[number_P]
    return bins_P


def _error(pairs: Pairs, predicted_P: Floats, counts_P: Floats) -> float:
    gaps_B = np.bincount(bins_of(predicted_P, counts_P), weights=counts_P * (predicted_P - pairs.same_P))
    return float(np.abs(gaps_B).sum() / counts_P.sum())


def _brier(pairs: Pairs, predicted_P: Floats, counts_P: Floats) -> float:
    return float(np.average((predicted_P - pairs.same_P) ** 2, weights=counts_P))


def _share(value: float) -> float:
    return float(np.clip(value, 0, 1))  # rounding may lead beyond


def _table(rows_P: Rows, columns_P: Rows, values_P: Floats, shape: tuple[int, int]) -> Floats:
    flat = np.bincount(rows_P * shape[1] + columns_P, weights=values_P, minlength=shape[0] * shape[1])
    return flat.astype(np.float64).reshape(shape)


def _logistic(pairs: Pairs, steps_P: Floats) -> Floats:
    """Probabilities at some steps by logistic regression (Platt 1999)."""
    if pairs.same_P.all() or not pairs.same_P.any():
        return np.full(len(steps_P), float(pairs.same_P[0]))
    model = LogisticRegression().fit(pairs.step_P[:, None], pairs.same_P, sample_weight=pairs.weight_P)
    chances: Floats = model.predict_proba(steps_P[:, None])[:, 1]
    return chances
