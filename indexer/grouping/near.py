"""Which items of a store are near each other: every pair within a Hamming radius or a distance, and the components they link.

Both ways are exact: no pair is missed. Codes are compared all with all, equal ones once.
Vectors are compared where their places on principal directions are within the distance too: on a few, all with all, then on all
of them. A place has one more coordinate, the length of what its directions leave out. So |place(x) - place(y)| <= |x - y|: what
the directions leave out of x - y is at least as long as the difference of the two lengths.

Legend: N items, D width of a vector, P coordinates of a place, C of a coarse one, W bytes of a code, U distinct codes, R pairs.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from indexer.arrays import Codes, Floats, Ids, Rows, Vectors, blocks, sample
from indexer.codes.principal import leading_directions
from indexer.scans import native, scan
from indexer.store import Store
from training.program import progress

_COARSE: Final = 32  # directions on which all are compared with all
_CODES: Final = 512  # compared with all others together
_FIRST: Final = 32  # near codes that are looked for at first, for each
_GROWTH: Final = 16
_MOST_HITS: Final = 2**21  # that are held at once
_ROWS, _COLUMNS = 512, 2048  # places that are compared together
_PAIRS: Final = 2048  # whose places, or vectors, are read together
_LINKS: Final = 2**14  # that wait until they are followed together
_UNIT: Final = 2.0**-24  # the largest relative error of one float32 operation


class Components:
    """Rows that pairs link, directly or by way of others (single linkage)."""

    def __init__(self, rows: int) -> None:
        self._first_N: Rows = np.arange(rows)
        self._one_R, self._other_R = np.empty(0, np.int64), np.empty(0, np.int64)  # pairs that have not been followed yet

    def link(self, one_R: Rows, other_R: Rows) -> None:
        """Links rows in pairs."""
        apart = self.are_apart(one_R, other_R)
        self._one_R = np.concatenate([self._one_R, one_R[apart]])
        self._other_R = np.concatenate([self._other_R, other_R[apart]])
        if len(self._one_R) >= _LINKS:
            self._merge()

    def are_apart(self, one_R: Rows, other_R: Rows) -> NDArray[np.bool_]:
        """Which pairs are not known to be linked already."""
        apart: NDArray[np.bool_] = self._first_N[one_R] != self._first_N[other_R]
        return apart

    def first(self) -> Rows:
        """The first row of each row's component, int64 (N,)."""
        self._merge()
        return self._first_N

    def _merge(self) -> None:
        ends = self._first_N[np.concatenate([self._one_R, self._other_R])]
        self._one_R = self._other_R = np.empty(0, np.int64)
        firsts, places = np.unique(ends, return_inverse=True)
        one, other = places.reshape(2, -1)
        graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(len(firsts), len(firsts)))
        count, component = connected_components(graph, directed=False)
        smallest = np.full(count, len(self._first_N))
        np.minimum.at(smallest, component, firsts)
        renamed = np.arange(len(self._first_N))
        renamed[firsts] = smallest[component]
        self._first_N = renamed[self._first_N]


def by_codes(store: Store, ids_N: Ids, radius: int) -> Rows:
    """The first row of each row's component, where codes within `radius` bits are linked. Raises NotFound like Store.codes."""
    codes_NW = np.concatenate([store.codes(ids_N[block].tolist()) for block in _read(len(ids_N))])
    distinct_UW, first_U, code_N = np.unique(codes_NW, axis=0, return_index=True, return_inverse=True)
    components = Components(len(ids_N))
    components.link(np.arange(len(ids_N)), first_U[code_N])
    steps = list(blocks(len(distinct_UW), _CODES))
    for block in progress(steps, len(steps), "comparing codes", "blocks"):
        for one_R, other_R in _near_codes(distinct_UW[block.start :], block.stop - block.start, radius):
            components.link(first_U[block.start + one_R], first_U[block.start + other_R])
    return components.first()


def by_distance(store: Store, ids_N: Ids, most_squared: float) -> Rows:
    """The first row of each row's component, where vectors at a squared distance of at most `most_squared` are linked."""
    places_NP, unit = _places(store, ids_N)
    width = places_NP.shape[1]
    # places are rounded, and products of them in float32 off by up to 2 (P + 8) u (|x|^2 + |y|^2); see scan.py
    slack = 8 * (width + 8) * _UNIT * float(np.square(places_NP).sum(1).max())
    most = min(most_squared / unit**2, 4.0 * width) + slack  # no two places are farther apart
    components = Components(len(ids_N))
    coarse = _in_portions(_near_places(places_NP, most), components)
    near = (_near_on_all(places_NP, one_R, other_R, most) for one_R, other_R in coarse)
    for one_R, other_R in _in_portions(near, components):
        rows, numbers = np.unique(np.concatenate([one_R, other_R]), return_inverse=True)
        squared_R = distances(store.vectors(ids_N[rows].tolist()), *numbers.reshape(2, -1))
        within = squared_R <= most_squared
        components.link(one_R[within], other_R[within])
    return components.first()


def _read(rows: int) -> Iterator[slice]:
    steps = list(blocks(rows))
    return progress(steps, len(steps), "reading", "blocks")


def _near_codes(codes_UW: Codes, queries: int, radius: int) -> Iterator[tuple[Rows, Rows]]:
    """Pairs (row, row) of the first `queries` rows and all rows, within `radius`."""
    waiting, k = np.arange(queries), _FIRST
    while len(waiting):
        full = np.zeros(len(waiting), np.bool_)
        for block in blocks(len(waiting), max(1, _MOST_HITS // k)):
            hits_QK = scan.hamming(codes_UW, codes_UW[waiting[block]], k, most=radius)[1]
            full[block] = (hits_QK[:, -1] >= 0) & (hits_QK.shape[1] < len(codes_UW))
            near_QK = (hits_QK >= 0) & ~full[block, None]
            yield np.repeat(waiting[block], near_QK.sum(1)), hits_QK[near_QK]
        waiting, k = waiting[full], k * _GROWTH


def _places(store: Store, ids_N: Ids) -> tuple[Vectors, float]:
    """Where each vector is on its principal directions, and how long the rest of it is, centred: float32 (N, P), and their unit.

    In that unit no coordinate is beyond 1, so that float32 holds the squares of vectors of any length.
    """
    some_ND = store.vectors(ids_N[sample(len(ids_N), np.random.default_rng(0))].tolist())
    unit = _unit_of(some_ND)
    some_ND /= np.float32(unit)
    mean_D = some_ND.mean(0, dtype=np.float64)
    centred_ND = torch.from_numpy(some_ND - mean_D.astype(np.float32))
    covariance_DD = (centred_ND.T @ centred_ND / len(centred_ND)).double()
    basis_DP = torch.linalg.qr(leading_directions(covariance_DD).double())[0].numpy()
    places: list[Vectors] = []
    units: list[float] = []
    for block in _read(len(ids_N)):
        vectors_ND = store.vectors(ids_N[block].tolist()) - mean_D * unit
        on_basis_NP = native.product(vectors_ND, basis_DP)
        rest_N = np.square(vectors_ND).sum(1) - np.square(on_basis_NP).sum(1)
        places_NP = np.column_stack([on_basis_NP, np.sqrt(np.maximum(rest_N, 0))])
        units.append(_unit_of(places_NP))
        places.append((places_NP / units[-1]).astype(np.float32))
    largest = max(units)
    for places_NP, own in zip(places, units, strict=True):
        places_NP *= np.float32(own / largest)
    return np.concatenate(places), largest


def _unit_of(rows: NDArray[np.floating]) -> float:
    """The least power of two that is beyond every component; 1 where all are zero."""
    largest = float(np.abs(rows).max())
    return float(np.ldexp(1.0, np.frexp(largest)[1])) if largest else 1.0


def _near_places(places_NP: Vectors, most: float) -> Iterator[tuple[Rows, Rows]]:
    """Pairs of rows whose coarse places may be within a squared distance."""
    order_N = np.argsort(places_NP[:, 0], kind="stable")
    rest_N = np.sqrt(np.square(places_NP[:, _COARSE:]).sum(1))
    coarse_NC = np.column_stack([places_NP[:, :_COARSE], rest_N])[order_N]
    squares_N, one_N = np.square(coarse_NC).sum(1), np.ones(len(coarse_NC), np.float32)
    # their products are squared distances
    left_NC = np.column_stack([coarse_NC, squares_N, one_N])
    right_CN = np.ascontiguousarray(np.column_stack([-2 * coarse_NC, one_N, squares_N]).T)
    steps = list(blocks(len(order_N), _ROWS))
    for block in progress(steps, len(steps), "comparing vectors", "blocks"):
        end = int(np.searchsorted(coarse_NC[:, 0], coarse_NC[block.stop - 1, 0] + np.sqrt(most), "right"))
        for start in range(block.start, end, _COLUMNS):
            stop = min(start + _COLUMNS, end)
            near_R = np.flatnonzero(native.product(left_NC[block], right_CN[:, start:stop]) <= most)
            one_R, other_R = near_R // (stop - start) + block.start, near_R % (stop - start) + start
            later = one_R < other_R
            yield order_N[one_R[later]], order_N[other_R[later]]


def _near_on_all(places_NP: Vectors, one_R: Rows, other_R: Rows, most: float) -> tuple[Rows, Rows]:
    near = np.square(places_NP[one_R] - places_NP[other_R]).sum(1) <= most
    return one_R[near], other_R[near]


def _in_portions(pairs: Iterable[tuple[Rows, Rows]], components: Components) -> Iterator[tuple[Rows, Rows]]:
    """Pairs by _PAIRS, which are looked at together, without those that others link already."""
    one_R, other_R = np.empty(0, np.int64), np.empty(0, np.int64)
    for more in pairs:
        apart = components.are_apart(*more)
        one_R, other_R = (np.concatenate([rows, new[apart]]) for rows, new in zip((one_R, other_R), more, strict=True))
        while len(one_R) >= _PAIRS:
            yield one_R[:_PAIRS], other_R[:_PAIRS]
            one_R, other_R = one_R[_PAIRS:], other_R[_PAIRS:]
            apart = components.are_apart(one_R, other_R)
            one_R, other_R = one_R[apart], other_R[apart]
    yield one_R, other_R


def distances(vectors_ND: Vectors, one_R: Rows, other_R: Rows) -> Floats:
    """The squared distances of rows in pairs, float64 (R,): those that a search gives."""
    squared_R = np.empty(len(one_R))
    order = np.argsort(one_R, kind="stable")
    bounds = np.flatnonzero(np.diff(one_R[order], prepend=-1, append=len(vectors_ND)))
    for start, stop in pairwise(bounds):
        mine = order[start:stop]
        squared_R[mine] = scan.distances(vectors_ND, vectors_ND[one_R[mine[0]]], other_R[mine])
    return squared_R
