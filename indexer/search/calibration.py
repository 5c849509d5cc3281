"""Distances told as what they mean: how rare they are among random pairs, and how probable the same class is.

A distance that is small for one query is large for another: features differ in length, and some lie among many others. So the
probability goes by the distance in the query's own unit, a z-score: how many standard deviations it is beyond the mean of the
query's distances from a fixed sample of the items.

Legend: Q queries, S sampled items, K hits, D feature width, W bytes of a code.
"""

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from indexer.arrays import Codes, Floats, Rows, Vectors
from indexer.codes.autoencoder import Autoencoder
from indexer.metric import distances_of
from indexer.storage import calibration
from indexer.storage.artifact import WithManifest
from indexer.storage.calibration import LEAST_SAMPLED, MOST_VECTORS, REMEDY, CalibrationRecord, DistanceRecord, Measure
from indexer.storage.version import load_autoencoder
from indexer.store import Mode, Store
from training.errors import FC7Error, NotFound, NotReady

_TINY: Final = 1e-12  # a spread that is none
_SCALES: Final[WeakKeyDictionary[object, "dict[Measure, Scale] | FC7Error"]] = WeakKeyDictionary()  # by store


class _Store(Store, WithManifest, Protocol):
    """A store, and the version that may hold what its distances mean."""


@dataclass(frozen=True, eq=False)
class Usual:
    """What is usual for each of Q queries: the mean and the standard deviation of its distances from the sample."""

    mean_Q: Floats
    spread_Q: Floats

    def steps(self, query: int, distances_K: Floats) -> Floats:
        """Distances from one query in its own unit: standard deviations beyond its mean."""
        steps_K: Floats = (distances_K - self.mean_Q[query]) / self.spread_Q[query]
        return steps_K


@dataclass(frozen=True, eq=False)
class Scale:
    """What distances of one measure mean."""

    record: DistanceRecord
    sample_S: Vectors | Codes  # a row for each sampled item
    encoder: Autoencoder | None  # of the codes, where the measure compares these

    def usual(self, queries_QD: Vectors) -> Usual:
        """What is usual for queries, which are vectors as the metric has them."""
        return usual(self.encoder.encode(queries_QD) if self.encoder else queries_QD, self.sample_S, self.record.measure)

    @cached_property
    def _line(self) -> tuple[Floats, Floats]:
        return np.array(self.record.steps), np.array(self.record.chances)

    @cached_property
    def _random(self) -> Floats:
        return np.array(self.record.random)

    def percentiles(self, distances_K: Floats) -> Floats:
        """Of 100 random pairs of items, how many are as near or nearer."""
        nearer_K: Rows = np.searchsorted(self._random, distances_K, side="right")
        return 100 * nearer_K / len(self._random)

    def chances(self, steps_K: Floats) -> Floats:
        """The probability that what lies so many steps from a query is of its class; see Usual.steps."""
        return np.interp(steps_K, *self._line)


def scale_of(store: _Store, mode: Mode) -> Scale:
    """What the distances of a search in this mode mean. The last stores' are kept.

    Raises NotFound, Mismatch or NotReady with the reason where that is not known. One thread at a time may ask.
    """
    if store not in _SCALES:
        try:
            _SCALES[store] = _scales(store, calibration.read(store))
        except FC7Error as error:
            _SCALES[store] = copy(error)  # without its traceback, whose frames hold the store
    found, measure = _SCALES[store], measure_of(mode, store)
    if isinstance(found, FC7Error):
        raise copy(found)
    if measure not in found:
        raise NotFound(f"what {measure} distances mean in this index has not been measured; {REMEDY} does")
    return found[measure]


def _scales(store: _Store, record: CalibrationRecord) -> dict[Measure, Scale]:
    """By the measure. Raises NotReady where half of the sample has been removed."""
    there: list[int] = np.array(record.sample)[np.isin(record.sample, store.ids())].tolist()
    if len(there) < max(LEAST_SAMPLED, len(record.sample) / 2):
        gone = len(record.sample) - len(there)
        raise NotReady(f"{gone} of the {len(record.sample)} photographs that calibration goes by have been removed; use {REMEDY}")
    found: dict[Measure, Scale] = {}
    for one in record.distances:
        if one.measure == store.metric:
            found[one.measure] = Scale(one, store.vectors(there[:MOST_VECTORS]), None)
        elif one.measure == "hamming" and store.bits:
            found[one.measure] = Scale(one, store.codes(there), load_autoencoder(store.folder, store.manifest))
    return found


def measure_of(mode: Mode, store: Store) -> Measure:
    """What the distances of a search in this mode are."""
    return "hamming" if mode in ("code", "ball") else store.metric


def usual(queries_Q: Vectors | Codes, sample_S: Vectors | Codes, measure: Measure) -> Usual:
    """What is usual for queries: vectors as the metric has them, or codes."""
    distances_QS = between(queries_Q, sample_S, measure)
    return Usual(distances_QS.mean(1), np.maximum(distances_QS.std(1), _TINY))


def between(queries_Q: Vectors | Codes, rows_S: Vectors | Codes, measure: Measure) -> Floats:
    """The distance of each query from each row: float64 (Q, S). Of vectors in float32, which is enough to tell what is usual."""
    if measure == "hamming":
        bits = [np.bitwise_count(rows_S ^ query).sum(1, dtype=np.float64) for query in queries_Q]
        return np.array(bits).reshape(len(queries_Q), len(rows_S))
    lengths_Q, lengths_S = (np.vecdot(rows, rows).astype(np.float64) for rows in (queries_Q, rows_S))
    squared_QS = lengths_Q[:, None] + lengths_S - 2.0 * (queries_Q @ rows_S.T)
    return distances_of(np.maximum(squared_QS, 0), measure).astype(np.float64)
