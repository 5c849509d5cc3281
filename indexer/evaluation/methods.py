"""The methods of finding neighbours that an evaluation compares, a row of its tables each; and how fast each mode answers.

Legend: N database, Q queries, D feature width, P raw pixels, K neighbours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from indexer.arrays import Labels, Rows, Vectors, blocks
from indexer.codes import autoencoder, baselines
from indexer.evaluation.protocol import LIST_LENGTH, GroundTruth, Latency, MethodResult, latency
from indexer.evaluation.queries import Database, Queries
from indexer.opening import OpenStore
from indexer.storage import artifact
from indexer.storage.segment import code_bytes
from indexer.storage.version import load_autoencoder, load_pixel_autoencoder
from indexer.store import Mode, Query
from training.program import progress

EXACT: Final = "FC7, exact"
TWO_STAGE: Final = "FC7, two-stage"
AUTOENCODER: Final = "autoencoder"
RAW_EXACT: Final = "raw pixels, exact"
RAW_AUTOENCODER: Final = "raw pixels, autoencoder"
_K: Final = 5  # neighbours whose labels are given
_QUERY_BLOCK: Final = 256
_BALL_BITS: Final = 32  # the longest codes whose bits are all an address
_BALL_RADIUS: Final = 2


@dataclass(frozen=True)
class Comparison:
    """What every method finds, and the labels of the five nearest neighbours in order."""

    methods: list[MethodResult]
    neighbors_QK: Labels  # by FC7
    raw_neighbors_QK: Labels  # by raw pixels


def compare(store: OpenStore, database: Database, queries: Queries, lengths: Sequence[int], raw_pixel_codes: bool) -> Comparison:
    """Measures exact search, two stages, and codes of these lengths in bits: the index's own, newly trained ones, the baselines'.

    Codes of raw pixels are compared where `raw_pixel_codes`, and at the length that the index has them in.
    """
    numbers = np.unique(np.concatenate([database.labels_N, queries.labels_Q]), return_inverse=True)[1]
    truth = GroundTruth(numbers[: len(database.items)], numbers[len(database.items) :])
    exact, nearest_QK = truth.measure_vectors(EXACT, database.vectors_ND, queries.features_QD, 4 * store.width)
    raw_bytes = database.pixels_NP.shape[1]
    raw, raw_nearest_QK = truth.measure_vectors(RAW_EXACT, database.pixels_NP, queries.pixels_QP, raw_bytes)
    by_lists = [_two_stage(store, database, queries, truth, nearest_QK)] if _has_two_stages(store) else []
    by_codes = _code_methods(store, database, queries, truth, nearest_QK, lengths, raw_pixel_codes)
    methods = [exact, raw, *sorted([*by_lists, *by_codes], key=lambda method: method.bits)]
    return Comparison(methods, database.labels_N[nearest_QK[:, :_K]], database.labels_N[raw_nearest_QK[:, :_K]])


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


def _two_stage(store: OpenStore, database: Database, queries: Queries, truth: GroundTruth, nearest_QK: Rows) -> MethodResult:
    query = Query(k=min(LIST_LENGTH, len(store)), mode="two-stage")
    parts = list(blocks(len(queries.features_QD), _QUERY_BLOCK))
    lists = [
        database.rows(store.search(queries.features_QD[part], query)) for part in progress(parts, len(parts), TWO_STAGE, "blocks")
    ]
    size = _bytes_per_item(store, "two-stage")
    return truth.measure_lists(TWO_STAGE, _shortlist_bits(store), np.concatenate(lists), nearest_QK, size)


def _code_methods(
    store: OpenStore,
    database: Database,
    queries: Queries,
    truth: GroundTruth,
    nearest_QK: Rows,
    lengths: Sequence[int],
    raw_pixel_codes: bool,
) -> Iterator[MethodResult]:
    for bits in lengths:
        own = bits == store.bits
        coder = load_autoencoder(store.folder, store.manifest) if own else None
        coder = coder or autoencoder.train(database.vectors_ND, bits)
        codes_NW = store.codes(database.ids_N.tolist()) if own else coder.encode(database.vectors_ND)
        yield truth.measure_codes(AUTOENCODER, bits, codes_NW, coder.encode(queries.features_QD), nearest_QK)
    for name, bits, baseline in baselines.fit(database.vectors_ND, lengths):
        codes = baseline.encode(database.vectors_ND), baseline.encode(queries.features_QD)
        yield truth.measure_codes(name, bits, *codes, nearest_QK)
    for bits in lengths:
        own = bits == store.manifest.pixel_bits
        if own or raw_pixel_codes:
            coder = load_pixel_autoencoder(store.folder, store.manifest) if own else None
            coder = coder or autoencoder.train(database.pixels_NP, bits)
            codes = coder.encode(database.pixels_NP), coder.encode(queries.pixels_QP)
            yield truth.measure_codes(RAW_AUTOENCODER, bits, *codes, nearest_QK)


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
