"""Short codes as others make them, from the features that the autoencoder has: ITQ, LSH, and the signs of principal components.

Legend: N rows, D feature width, B bits, W bytes of a code.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import faiss
import numpy as np
from sklearn.decomposition import PCA

from indexer.arrays import Codes, Vectors, aligned, blocks, sample


class Encoder(Protocol):
    """Anything that makes codes."""

    def encode(self, features_ND: Vectors) -> Codes:
        """Codes of float32 (N, D) features: uint8 (N, W); bit i is bit i % 8 of byte i // 8."""


@dataclass(frozen=True)
class Hyperplanes:
    """Bit b of a row x is 1 where (x - centre) . projection_b > 0."""

    centre_D: Vectors
    projection_DB: Vectors

    def encode(self, features_ND: Vectors) -> Codes:
        """Codes of float32 (N, D) features: uint8 (N, W)."""
        sums = ((features_ND[block] - self.centre_D) @ self.projection_DB for block in blocks(len(features_ND)))
        return np.concatenate([np.packbits(sums_NB > 0, axis=1, bitorder="little") for sums_NB in sums])


@dataclass(frozen=True)
class RandomHyperplanes:
    """FAISS's IndexLSH: orthogonal random projections, each cut at its median over the rows fitted to."""

    index: faiss.IndexLSH

    def encode(self, features_ND: Vectors) -> Codes:
        """Codes of float32 (N, D) features: uint8 (N, W)."""
        parts = (aligned(features_ND[block]) for block in blocks(len(features_ND)))
        return np.concatenate([self.index.sa_encode(part_ND) for part_ND in parts])


def fit(features_ND: Vectors, lengths: Sequence[int], seed: int = 0) -> Iterator[tuple[str, int, Encoder]]:
    """Fits each baseline at each length to float32 (N, D) features, or to a sample of SAMPLE_ROWS of them: (name, bits, encoder).

    Principal components come from scikit-learn, once for all lengths; ITQ's rotations (Gong & Lazebnik 2011) and LSH from FAISS.
    ITQ sees rows centred and scaled to length 1, as in FAISS's ITQTransform, whose own decomposition takes minutes at 4096
    components. Lengths beyond the components that there are, are left out for ITQ and PCA-sign.
    """
    rows = sample(len(features_ND), np.random.default_rng(seed))
    if len(rows) < len(features_ND):
        features_ND = features_ND[rows]
    for bits in lengths:
        lsh = faiss.IndexLSH(features_ND.shape[1], bits, True, True)
        lsh.train(aligned(features_ND))
        yield "LSH", bits, RandomHyperplanes(lsh)
    centre_D = features_ND.mean(0, dtype=np.float64).astype(np.float32)
    components = min(max(lengths, default=0), *features_ND.shape)
    usable = [bits for bits in lengths if bits <= components]
    if not usable:
        return
    basis_DB = _principal(features_ND - centre_D, components, seed)
    for bits in usable:
        yield "PCA-sign", bits, Hyperplanes(centre_D, basis_DB[:, :bits])
    basis_DB = _principal(_at_length_1(features_ND - centre_D), components, seed)
    rows_NB = _at_length_1(features_ND - centre_D) @ basis_DB
    for bits in usable:
        itq = faiss.ITQMatrix(bits)
        itq.train(np.ascontiguousarray(rows_NB[:, :bits]))
        rotation_BB = faiss.vector_to_array(itq.A).reshape(bits, bits)
        yield "ITQ", bits, Hyperplanes(centre_D, basis_DB[:, :bits] @ rotation_BB.T)


def _principal(rows_ND: Vectors, components: int, seed: int) -> Vectors:
    """Principal directions, float32 (D, B). Overwrites the rows, to do without another copy."""
    pca = PCA(components, copy=False, svd_solver="randomized", n_oversamples=32, random_state=seed).fit(rows_ND)
    return np.ascontiguousarray(pca.components_.T, np.float32)


def _at_length_1(rows_ND: Vectors) -> Vectors:
    faiss.normalize_L2(rows_ND)
    return rows_ND
