"""Made-up FC7 features of any number: sparse, not negative, in clusters.

A cluster's centre has components c_d = b_d e_d, with b_d 1 in a fifth of all cases, else 0, and e_d exponential with mean 1. An
item of it has components max(0, c_d + [c_d > 0] 0.4 g_d + s_d 0.5 |h_d|), with g_d and h_d standard normal and s_d 1 in 3 of 100
cases, else 0: active components vary, few others come up. 50 items a cluster are easy to search, all of 10 neighbours being of
the query's cluster; with 5 a cluster half of them are from all over the collection, hardly nearer than the rest of it.

Rows come in blocks of whole clusters, shuffled within the block; a block is the same whenever it is made.

Legend: N rows, Q queries, D width, C clusters of a block, M items of a cluster.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BLOCK: Final = 4000  # rows
_ACTIVE: Final = 0.2
_SPREAD: Final = 0.4
_STRAY: Final = 0.03
_STRAY_SPREAD: Final = 0.5
_CENTRES, _ITEMS, _QUERIES = range(3)

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Mixture:
    """`rows` float32 vectors; `items_per_cluster` divides BLOCK."""

    rows: int
    items_per_cluster: int
    width: int = 4096
    seed: int = 0

    def blocks(self) -> Iterator[Vectors]:
        """All rows, in blocks of up to BLOCK."""
        for number in range(-(-self.rows // BLOCK)):
            yield self._block(number)[: self.rows - number * BLOCK]

    def array(self) -> Vectors:
        """All rows at once, float32 (N, D)."""
        rows_ND = np.empty((self.rows, self.width), np.float32)
        for number, block_ND in enumerate(self.blocks()):
            rows_ND[number * BLOCK : number * BLOCK + len(block_ND)] = block_ND
        return rows_ND

    def queries(self, count: int) -> Vectors:
        """Further items of clusters from all over the collection, float32 (Q, D)."""
        rng = self._rng(_QUERIES, 0)
        blocks_Q = np.sort(rng.integers(0, -(-self.rows // BLOCK), count))
        queries = []
        for number, asked in zip(*np.unique(blocks_Q, return_counts=True), strict=True):
            centres_CD = self._centres(int(number))
            queries.append(_items(rng, centres_CD[rng.integers(0, len(centres_CD), asked)]))
        return np.concatenate(queries)

    def _block(self, number: int) -> Vectors:
        rng = self._rng(_ITEMS, number)
        items_MCD = np.stack([_items(rng, self._centres(number)) for _ in range(self.items_per_cluster)])
        return rng.permutation(items_MCD.reshape(BLOCK, self.width))

    def _centres(self, number: int) -> Vectors:
        rng = self._rng(_CENTRES, number)
        shape = (BLOCK // self.items_per_cluster, self.width)
        active = rng.random(shape, np.float32) < _ACTIVE
        return np.where(active, rng.standard_exponential(shape, np.float32), np.float32(0))

    def _rng(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([self.seed, purpose, number]))


def _items(rng: np.random.Generator, centres_CD: Vectors) -> Vectors:
    """An item of each centre."""
    items_CD = centres_CD + np.float32(_SPREAD) * rng.standard_normal(centres_CD.shape, np.float32) * (centres_CD > 0)
    stray = np.flatnonzero(rng.random(centres_CD.shape, np.float32) < _STRAY)
    items_CD.reshape(-1)[stray] += np.float32(_STRAY_SPREAD) * np.abs(rng.standard_normal(len(stray), np.float32))
    return np.maximum(items_CD, 0)
