"""The methods of finding neighbours that an evaluation compares, a row of its tables each; and how fast each mode answers.

Legend: N database, Q queries, D feature width, P raw pixels, K neighbours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, get_args

import numpy as np

from indexer.arrays import Rows, Vectors, blocks
from indexer.codes import autoencoder, baselines
from indexer.codes.autoencoder import Autoencoder
from indexer.codes.binarise import Objective
from indexer.evaluation.intervals import Resamples
from indexer.evaluation.metrics import MEASURES, Measure
from indexer.evaluation.protocol import LIST_LENGTH, GroundTruth, Latency, Method, MethodResult, latency, result
from indexer.evaluation.queries import Database, Queries
from indexer.opening import OpenStore
from indexer.search.ways import AUTOENCODER, COLOURS, COLUMNS, HELLINGER, MEASURE_OF, RAW_AUTOENCODER, RAW_PIXELS
from indexer.storage import artifact
from indexer.storage.segment import code_bytes
from indexer.storage.version import load_autoencoder, load_pixel_autoencoder
from indexer.store import Mode, Query
from training.checkpoint import FeatureLayer, name_of
from training.program import progress

TWO_STAGE: Final = "two-stage"
RANDOM_HALF: Final = "random half"
AUTOENCODERS: Final[dict[Objective, str]] = {
    "both": AUTOENCODER,
    "neighborhood": f"{AUTOENCODER}, no contrast",
    "reconstruction": f"{AUTOENCODER}, reconstruction alone",
}
_NETWORKS: Final = tuple(map(name_of, get_args(FeatureLayer)))  # rows of the trained network
_QUERY_BLOCK: Final = 256
_BALL_BITS: Final = 32  # the longest codes whose bits are all an address
_BALL_RADIUS: Final = 2


@dataclass(frozen=True)
class Choice:
    """What an evaluation compares beside what it always does."""

    lengths: Sequence[int]  # of codes, in bits
    raw_pixel_codes: bool  # of raw pixels at every length, not only at the one that the index has them in
    seeds: int  # of whatever has chance in it
    columns: bool = False  # each of two columns by itself, and random halves of the components


@dataclass(frozen=True)
class _Comparison:
    store: OpenStore
    database: Database
    queries: Queries
    choice: Choice
    truth: GroundTruth
    labels_seen: float | None  # by the network

    def run(self) -> Iterator[Method]:
        """Every method: those without codes, then those with, by their length."""
        nearest_QK: Rows = np.empty((0, 0), np.int64)
        name = layer_of(self.store)
        by_cosine = self.store.metric == "cosine"  # vectors have length 1 there, and their own lengths are gone
        for measure in MEASURES[by_cosine:]:
            method, rows_QK = self._exact(name, self.database.vectors_ND, self.queries.features_QD, measure)
            if measure == MEASURE_OF[self.store.metric]:
                nearest_QK = rows_QK
            yield method
        if _has_two_stages(self.store):
            yield self._two_stage(nearest_QK)
        if self.choice.columns:
            yield from self._columns(nearest_QK)
        for layer in self.database.plain.layers:
            for measure in MEASURES[by_cosine:2]:
                held_ND, asked_QD = self.database.plain.layers[layer], self.queries.plain.layers[layer]
                yield replace(self._exact(name_of(layer), held_ND, asked_QD, measure)[0], against=f"{name}, {measure}")
        yield from self._plain()
        codes = [*self._codes(nearest_QK), *self._baselines(nearest_QK), *self._raw_pixel_codes(nearest_QK)]
        yield from sorted(codes, key=lambda method: method.bits)

    def _plain(self) -> Iterator[Method]:
        held, asked = self.database.plain, self.queries.plain
        for measure in MEASURES:
            if held.untrained_ND is not None and asked.untrained_ND is not None:
                yield self._exact("untrained FC7", held.untrained_ND, asked.untrained_ND, measure)[0]
        yield self._exact(COLOURS, held.colours_NL, asked.colours_NL, "Euclidean")[0]
        for measure in MEASURES:
            yield self._exact(RAW_PIXELS, held.pixels_NP, asked.pixels_NP, measure)[0]

    def _exact(self, rows: str, vectors_ND: Vectors, queries_QD: Vectors, measure: Measure) -> tuple[Method, Rows]:
        name = f"{rows}, {HELLINGER if rows == COLOURS else measure}"
        run, nearest_QK = self.truth.measure_vectors(name, vectors_ND, queries_QD, measure)
        labels_seen = self.labels_seen if rows in _NETWORKS else 0
        return Method(name, 0, 4 * vectors_ND.shape[1], labels_seen, (), [run]), nearest_QK

    def _columns(self, nearest_QK: Rows) -> Iterator[Method]:
        """Each column's half of the components, by the index's metric, and random halves: what half of them are worth anyhow."""
        vectors_ND, queries_QD = self.database.vectors_ND, self.queries.features_QD
        layer, width, measure = layer_of(self.store), self.store.width, MEASURE_OF[self.store.metric]
        of_seeds = []
        for seed in self._seeds(None):
            first_D = np.random.default_rng(seed).permutation(width) < width // 2
            name = f"{layer}, {RANDOM_HALF}"
            of_seeds.append(self.truth.measure_halves(name, vectors_ND, queries_QD, first_D, measure, nearest_QK)[0])
        first_D = np.arange(width) < width // 2
        halves = self.truth.measure_halves(f"{layer}, columns", vectors_ND, queries_QD, first_D, measure, nearest_QK)
        for name, run in zip(COLUMNS, halves, strict=True):
            yield Method(f"{layer}, {name}", 0, 2 * width, self.labels_seen, (), [run], f"{layer}, {RANDOM_HALF}")
        yield Method(f"{layer}, {RANDOM_HALF}", 0, 2 * width, self.labels_seen, self._seeds(None), of_seeds)

    def _two_stage(self, nearest_QK: Rows) -> Method:
        query = Query(k=min(LIST_LENGTH, len(self.store)), mode="two-stage")
        parts = progress(list(blocks(len(nearest_QK), _QUERY_BLOCK)), -(-len(nearest_QK) // _QUERY_BLOCK), TWO_STAGE, "blocks")
        lists = [self.database.rows(self.store.search(self.queries.features_QD[part], query)) for part in parts]
        run = self.truth.measure_lists(np.concatenate(lists), nearest_QK)
        size = _bytes_per_item(self.store, "two-stage")
        name = f"{layer_of(self.store)}, {TWO_STAGE}"
        return Method(name, _shortlist_bits(self.store), size, self.labels_seen, (), [run], exact_name(self.store))

    def _codes(self, nearest_QK: Rows) -> Iterator[Method]:
        """The autoencoder's codes by each objective. The index's own are those of its seed."""
        vectors_ND, queries_QD = self.database.vectors_ND, self.queries.features_QD
        for bits in self.choice.lengths:
            own = load_autoencoder(self.store.folder, self.store.manifest) if bits == self.store.bits else None
            seeds = self._seeds(own)
            for objective, name in AUTOENCODERS.items():
                runs = []
                for seed in seeds:
                    if own and objective == "both" and seed == own.report.seed:
                        coder, codes_NW = own, self.store.codes(self.database.ids_N.tolist())
                    else:
                        coder = autoencoder.train(vectors_ND, bits, seed, objective)
                        codes_NW = coder.encode(vectors_ND)
                    runs.append(self.truth.measure_codes(codes_NW, coder.encode(queries_QD), nearest_QK))
                yield Method(name, bits, codes_NW.shape[1], self.labels_seen, seeds, runs)

    def _baselines(self, nearest_QK: Rows) -> Iterator[Method]:
        vectors_ND, queries_QD = self.database.vectors_ND, self.queries.features_QD
        for name, bits, encoders in baselines.fit(
            vectors_ND, self.choice.lengths, self._seeds(None), raw_rows=self.store.metric == "euclidean"
        ):
            runs = []
            for encoder in encoders.values():
                codes_NW = encoder.encode(vectors_ND)
                runs.append(self.truth.measure_codes(codes_NW, encoder.encode(queries_QD), nearest_QK))
            seeds = [seed for seed in encoders if seed is not None]
            yield Method(name, bits, codes_NW.shape[1], self.labels_seen, seeds, runs)

    def _raw_pixel_codes(self, nearest_QK: Rows) -> Iterator[Method]:
        pixels_NP, queries_QP = self.database.plain.pixels_NP, self.queries.plain.pixels_NP
        for bits in self.choice.lengths:
            own = (
                load_pixel_autoencoder(self.store.folder, self.store.manifest) if bits == self.store.manifest.pixel_bits else None
            )
            if own or self.choice.raw_pixel_codes:
                runs, seeds = [], self._seeds(own)
                for seed in seeds:
                    coder = own if own and seed == own.report.seed else autoencoder.train(pixels_NP, bits, seed)
                    codes_NW = coder.encode(pixels_NP)
                    runs.append(self.truth.measure_codes(codes_NW, coder.encode(queries_QP), nearest_QK))
                yield Method(RAW_AUTOENCODER, bits, codes_NW.shape[1], 0, seeds, runs)

    def _seeds(self, own: Autoencoder | None) -> list[int]:
        first = own.report.seed if own else 0
        return list(range(first, first + self.choice.seeds))


def compare(
    store: OpenStore, database: Database, queries: Queries, choice: Choice, labels_seen: float | None
) -> list[MethodResult]:
    """Measures exact search, two stages, and codes: the index's own, newly trained ones, the baselines'.

    Codes are compared with the autoencoder's of as many bits, and all else with exact search by the index's metric. `labels_seen`
    is the share of the database whose labels the network was trained on, None where it is not known.
    """
    numbers = np.unique(np.concatenate([database.labels_N, queries.labels_Q]), return_inverse=True)[1]
    truth = GroundTruth(numbers[: len(database.items)], numbers[len(database.items) :])
    methods = list(_Comparison(store, database, queries, choice, truth, labels_seen).run())
    by_name = {(method.name, method.bits): method for method in methods}
    exact = by_name[exact_name(store), 0]
    resamples = Resamples.of(len(queries.labels_Q))
    results = []
    for method in methods:
        reference = by_name[method.against, 0] if method.against else by_name.get((AUTOENCODER, method.bits), exact)
        results.append(result(method, None if reference is method else reference, resamples))
    return results


def exact_name(store: OpenStore) -> str:
    """The name of exact search by the index's metric."""
    return f"{layer_of(store)}, {MEASURE_OF[store.metric]}"


def layer_of(store: OpenStore) -> str:
    """The layer that an index is made of, as rows are named after it."""
    return name_of(store.manifest.layer)


def latencies(store: OpenStore, queries_QD: Vectors) -> Iterator[Latency]:
    """How fast each mode that the index has answers."""
    modes: list[tuple[Mode, int | None]] = [("exact", None)]
    if store.bits:
        modes.append(("code", None))
    if _has_two_stages(store):
        modes.append(("two-stage", None))
    if 0 < store.bits <= _BALL_BITS:
        modes.append(("ball", _BALL_RADIUS))
    for mode, radius in modes:

        def search(block_QD: Vectors, k: int, mode: Mode = mode, radius: int | None = radius) -> object:
            return store.search(block_QD, Query(k, mode, radius=radius))

        name = mode if radius is None else f"{mode}, radius {radius}"
        yield latency(search, queries_QD, name, _bytes_per_item(store, mode))


def _has_two_stages(store: OpenStore) -> bool:
    return store.bits > 0 or store.manifest.shortlist is not None


def _shortlist_bits(store: OpenStore) -> int:
    """Bits of the codes that the short-list is made of; 0 where it is made of something else."""
    shortlist = store.manifest.shortlist
    return store.bits if shortlist is None or shortlist.kind == "codes" else 0


def _bytes_per_item(store: OpenStore, mode: Mode) -> int:
    """What a search in this mode looks through: without the vectors that a short-list then needs."""
    if mode == "two-stage" and not _shortlist_bits(store):
        names = (artifact.FAISS, artifact.COMPONENTS, artifact.LENGTHS)
        size = sum(record.bytes for name, record in store.manifest.files.items() if name.endswith(names))
        return round(size / len(store))
    return 4 * store.width if mode == "exact" else code_bytes(store.bits)
