"""Made-up FC7 features of any number: sparse, not negative, in clusters.

An item of a cluster is max(0, A (h + 0.35 g) - 0.84 + 0.1 e), the noise e being added where there is something already: h is the
cluster's place among 128 latent directions, g the item's own, both standard normal, and A a fixed normal matrix whose columns
have length 1, so that a fifth of the components are active. 50 items a cluster are easy to search, all of 10 neighbours being of
the query's cluster; with 5 a cluster half of them are from all over the collection, hardly nearer than the rest of it.

Real FC7 varies along few directions too: what 192 principal components leave out of two neighbours has a cosine of 0.05 to 0.1
in FC7 of Caltech-101 and CIFAR-10, of 0.13 here. 128 directions were chosen because 50 candidates by 128 principal components
then hold 0.9 of the neighbours at 5 items a cluster. Of clusters whose centres are independent in all 4096 components (an earlier
form of this file: a fifth of them exponential, the rest 0) our short-lists do not find 0.99: 192 principal components hold 0.63
with 400 candidates, codes of 128 bits 0.5 with 100.

Rows come in blocks of whole clusters, shuffled within the block; a block is the same whenever it is made.

Legend: N rows, Q queries, D width, L latent directions, C clusters of a block, M items of a cluster.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BLOCK: Final = 4000  # rows
_LATENT: Final = 128  # directions
_SPREAD: Final = 0.35
_THRESHOLD: Final = 0.84
_NOISE: Final = 0.1
_CENTRES, _ITEMS, _QUERIES, _MATRIX = range(4)

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
            centres_CL = self._centres(int(number))
            queries.append(self._items(rng, centres_CL[rng.integers(0, len(centres_CL), asked)]))
        return np.concatenate(queries)

    def _block(self, number: int) -> Vectors:
        rng = self._rng(_ITEMS, number)
        items_MCD = np.stack([self._items(rng, self._centres(number)) for _ in range(self.items_per_cluster)])
        return rng.permutation(items_MCD.reshape(BLOCK, self.width))

    def _centres(self, number: int) -> Vectors:
        return self._rng(_CENTRES, number).standard_normal((BLOCK // self.items_per_cluster, _LATENT), np.float32)

    def _items(self, rng: np.random.Generator, centres_CL: Vectors) -> Vectors:
        """An item of each centre."""
        places_CL = centres_CL + np.float32(_SPREAD) * rng.standard_normal(centres_CL.shape, np.float32)
        items_CD = places_CL @ self._matrix() - np.float32(_THRESHOLD)
        noise_CD = np.float32(_NOISE) * rng.standard_normal(items_CD.shape, np.float32)
        return np.maximum(items_CD + noise_CD * (items_CD > 0), 0)

    def _matrix(self) -> Vectors:
        matrix_LD: Vectors = self._rng(_MATRIX, 0).standard_normal((_LATENT, self.width), np.float32) / np.float32(_LATENT**0.5)
        return matrix_LD

    def _rng(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([self.seed, purpose, number]))
