"""Vectors -> a map: t-SNE of their principal components, or where items are few their first two components themselves.

Neighbours are found exactly: of components in bytes the squared distances are whole numbers that float32 holds. With the same
versions on the same processor a map is the same bit for bit, however many threads make it.

Legend: N items, P principal components, D width of a vector, K neighbours, S items sampled.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Final, Literal

import faiss
import numpy as np

from indexer.arrays import Components, Floats, Rows, Vectors, blocks
from indexer.storage.layout import LARGEST, Layout, LayoutReport, Numbers, Places
from training.errors import BadValue
from training.program import progress

NEIGHBORS: Final = 15  # that attract each item
FEWEST: Final = 4 * NEIGHBORS  # items that t-SNE is for
_EARLY, _LATE = 250, 500  # steps, the first with attraction exaggerated
_EXAGGERATION: Final = 12
_EVERY: Final = 10  # steps between two looks at the progress
_START: Final = 1e-4  # standard deviation of the first places, as in Kobak and Berens 2019
_APART: Final = 1e-6  # and of what parts those of equal rows
_MEASURED: Final = 200  # items
_K: Final = 10
_ROUNDING: Final = 1e-5  # of a squared distance by a matrix product in float32, as a share of the squared lengths


def check() -> None:
    """Raises BadValue where the library is missing."""
    try:
        _library()
    except metadata.PackageNotFoundError as error:
        raise BadValue("map", True, "false, or the extra `map` installed: pip install 'fc7[map]'") from error


def make(
    components_NP: Components, labels: Sequence[str], vectors: Callable[[], Iterator[Vectors]], fingerprint: str, seed: int
) -> Layout:
    """A map of the items 0 to N - 1, and how true it is to the vectors, which `vectors` gives block by block."""
    began = time.monotonic()
    method: Literal["t-SNE", "principal components"]
    if len(components_NP) < FEWEST or not np.ptp(components_NP, 0).any():
        method, library = "principal components", ""
        parameters = {"components": 2}
        places_N2 = within(components_NP[:, :2].astype(np.float64))
    else:
        method, library = "t-SNE", _library()
        parameters = {
            "components": components_NP.shape[1],
            "neighbors": NEIGHBORS,
            "steps": _EARLY + _LATE,
            "exaggeration": _EXAGGERATION,
            "exaggerated_steps": _EARLY,
            "seed": seed,
        }
        places_N2 = within(by_tsne(components_NP, seed))
    names, numbers_N = _numbered(labels)
    rows_S = np.sort(np.random.default_rng(seed).permutation(len(places_N2))[:_MEASURED])
    k = min(_K, (len(places_N2) - 1) // 2)
    trustworthiness, recall = measure(places_N2, rows_S, vectors, k) if k else (1.0, 1.0)
    report = LayoutReport(
        fingerprint=fingerprint,
        method=method,
        library=library,
        parameters=parameters,
        seconds=time.monotonic() - began,
        sampled=len(rows_S),
        neighbors=k,
        trustworthiness=trustworthiness,
        neighbor_recall=recall,
        labels=names,
    )
    return Layout(np.arange(len(places_N2)), places_N2, numbers_N, report)


def measure(places_N2: Places, rows_S: Rows, vectors: Callable[[], Iterator[Vectors]], k: int) -> tuple[float, float]:
    """Trustworthiness (Venna and Kaski 2001) of some items' k neighbours on a map, and recall of their k neighbours by vectors.

    A row as near as the k-th is none nearer: of equal rows any may be the neighbours. k is less than half of the rows.
    """
    queries_SD = np.concatenate(list(chosen(vectors(), rows_S)))
    near_SK = np.stack([_nearest(places_N2, row, k) for row in rows_S])
    near = np.concatenate(list(chosen(vectors(), np.unique(near_SK))))[np.searchsorted(np.unique(near_SK), near_SK)]
    squares_SK = np.square(near - queries_SD[:, None]).sum(2)
    lengths_S = np.square(queries_SD).sum(1)
    nearer_SK = np.zeros(near_SK.shape, np.int64)
    first = 0
    for block_ND in vectors():
        lengths_N = np.square(block_ND).sum(1)
        squares_SN = lengths_S[:, None] + lengths_N - 2 * (queries_SD @ block_ND.T)
        own = (rows_S >= first) & (rows_S < first + len(block_ND))
        squares_SN[own, rows_S[own] - first] = np.inf
        squares_SN += _ROUNDING * (lengths_S[:, None] + lengths_N)
        for place in range(k):
            nearer_SK[:, place] += (squares_SN < squares_SK[:, place, None]).sum(1)
        first += len(block_ND)
    beyond = np.maximum(nearer_SK + 1 - k, 0).sum()
    most = len(rows_S) * k * (2 * len(places_N2) - 3 * k - 1) / 2
    return float(1 - beyond / most), float((nearer_SK < k).mean())


def _library() -> str:
    return f"openTSNE {metadata.version('openTSNE')}"


def by_tsne(components_NP: Components, seed: int) -> Floats:
    """Places by t-SNE with equal attraction of the nearest neighbours, begun at the first two components."""
    from openTSNE import TSNEEmbedding, affinity
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    threads = faiss.omp_get_max_threads()
    neighbors = PrecomputedNeighbors(*_graph(components_NP))
    affinities = affinity.Uniform(k_neighbors=NEIGHBORS, knn_index=neighbors, symmetrize="mean", n_jobs=threads)
    start_N2 = components_NP[:, :2].astype(np.float64)
    start_N2 = (start_N2 - start_N2.mean(0)) * (_START / max(start_N2[:, 0].std(), 1.0))
    start_N2 += np.random.default_rng(seed).normal(0, _APART, start_N2.shape)
    embedding = TSNEEmbedding(start_N2, affinities, n_jobs=threads, random_state=seed)
    total = (_EARLY + _LATE) // _EVERY
    steps = progress(range(total), total, "map", f"x {_EVERY} steps")

    def step(*_: object) -> None:
        next(steps, None)

    options = {"momentum": 0.8, "callbacks": step, "callbacks_every_iters": _EVERY}
    embedding = embedding.optimize(_EARLY, exaggeration=_EXAGGERATION, **options)
    embedding = embedding.optimize(_LATE, **options)
    next(steps, None)
    return _turned(np.asarray(embedding))


def _graph(components_NP: Components) -> tuple[Rows, Floats]:
    """The nearest neighbours of each row, itself apart: rows and distances, (N, NEIGHBORS)."""
    rows_NP = components_NP.astype(np.float32) - 128
    index = faiss.IndexFlatL2(rows_NP.shape[1])
    index.add(rows_NP)
    rows, squares = [], []
    parts = list(blocks(len(rows_NP)))
    for block in progress(parts, len(parts), "neighbours", "blocks"):
        squares_NK, near_NK = index.search(rows_NP[block], NEIGHBORS + 1)
        others = near_NK != np.arange(block.start, block.stop)[:, None]
        others[others.all(1), -1] = False  # of many equal rows a row may find others alone
        rows.append(near_NK[others].reshape(-1, NEIGHBORS))
        squares.append(squares_NK[others].reshape(-1, NEIGHBORS))
    return np.concatenate(rows), np.sqrt(np.maximum(np.concatenate(squares), 0)).astype(np.float64)


def _turned(places_N2: Floats) -> Floats:
    """Places turned so that most of their spread is from left to right, as screens are wider than high."""
    centred_N2 = places_N2 - places_N2.mean(0)
    axes: Floats = np.linalg.eigh(np.einsum("ni,nj->ij", centred_N2, centred_N2))[1][:, ::-1]
    turned_N2: Floats = centred_N2 @ axes
    return turned_N2


def within(places_N2: Floats) -> Places:
    """Places within the square, in its middle, by one scale."""
    low, high = places_N2.min(0), places_N2.max(0)
    extent = float((high - low).max()) or 1.0
    places: Places = np.rint(((places_N2 - (low + high) / 2) / extent + 0.5) * LARGEST).astype(np.uint16)
    return places


def _numbered(labels: Sequence[str]) -> tuple[list[str], Numbers]:
    """The labels, commonest first, and the number of each item's."""
    counts = Counter(labels)
    names = sorted(counts, key=lambda name: (-counts[name], name))
    numbers = {name: number for number, name in enumerate(names)}
    return names, np.array([numbers[label] for label in labels], np.int32)


def _nearest(places_N2: Places, row: int, k: int) -> Rows:
    """The k rows nearest to one on the map, itself apart."""
    squares_N = np.square(places_N2.astype(np.int64) - places_N2[row]).sum(1)
    squares_N[row] = 2**62
    return np.argpartition(squares_N, k)[:k]


def chosen(vectors: Iterator[Vectors], rows: Rows) -> Iterator[Vectors]:
    """Some rows, ascending, of all that come in blocks."""
    first = 0
    for block_ND in vectors:
        yield block_ND[rows[(rows >= first) & (rows < first + len(block_ND))] - first]
        first += len(block_ND)
