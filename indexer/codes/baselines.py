"""Short codes as others make them, from the features that the autoencoder has: ITQ, LSH, and the signs of principal components.

Legend: N rows, D feature width, B bits, W bytes of a code.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import faiss
import numpy as np
from sklearn.decomposition import PCA

from indexer.arrays import Codes, Vectors, blocks, sample

RAW_ROWS: Final = ", raw rows"


class Encoder(Protocol):
    """Anything that makes codes."""

    def encode(self, features_ND: Vectors) -> Codes:
        """Codes of float32 (N, D) features: uint8 (N, W); bit i is bit i % 8 of byte i // 8."""


@dataclass(frozen=True)
class Hyperplanes:
    """Bit b of a row x is 1 where (x - centre) . projection_b > 0; of x at length 1 where `at_length_1`."""

    centre_D: Vectors
    projection_DB: Vectors
    at_length_1: bool

    def encode(self, features_ND: Vectors) -> Codes:
        """Codes of float32 (N, D) features: uint8 (N, W)."""
        parts = (_scaled(features_ND[block], self.at_length_1) for block in blocks(len(features_ND)))
        sums = ((part_ND - self.centre_D) @ self.projection_DB for part_ND in parts)
        return np.concatenate([np.packbits(sums_NB > 0, axis=1, bitorder="little") for sums_NB in sums])


@dataclass(frozen=True)
class RandomHyperplanes:
    """FAISS's IndexLSH: orthogonal random projections, each cut at its median over the rows fitted to."""

    index: faiss.IndexLSH
    at_length_1: bool

    def encode(self, features_ND: Vectors) -> Codes:
        """Codes of float32 (N, D) features: uint8 (N, W)."""
        parts = (_scaled(features_ND[block], self.at_length_1) for block in blocks(len(features_ND)))
        return np.concatenate([self.index.sa_encode(part_ND) for part_ND in parts])


def fit(
    features_ND: Vectors, lengths: Sequence[int], seeds: Sequence[int], raw_rows: bool
) -> Iterator[tuple[str, int, dict[int | None, Encoder]]]:
    """Fits each baseline at each length to float32 (N, D) features, or to a sample of SAMPLE_ROWS of them.

    Gives name, bits, and an encoder for each seed; PCA-sign has no chance in it, and one encoder, of None. Each is fitted to rows
    at length 1, as the autoencoder is, and where `raw_rows` to rows as they are. Principal components come from scikit-learn,
    once for all lengths; ITQ's rotations (Gong & Lazebnik 2011) and LSH from FAISS. ITQ sees rows centred and scaled to length 1,
    as in FAISS's ITQTransform, whose own decomposition takes minutes at 4096 components. Lengths beyond the components that there
    are, are left out for ITQ and PCA-sign.
    """
    rows = sample(len(features_ND), np.random.default_rng(0))
    for at_length_1 in (True, False) if raw_rows else (True,):
        yield from _fit(_scaled(features_ND[rows], at_length_1), lengths, seeds, at_length_1)


def _fit(
    features_ND: Vectors, lengths: Sequence[int], seeds: Sequence[int], at_length_1: bool
) -> Iterator[tuple[str, int, dict[int | None, Encoder]]]:
    suffix = "" if at_length_1 else RAW_ROWS
    for bits in lengths:
        yield f"LSH{suffix}", bits, {seed: RandomHyperplanes(_lsh(features_ND, bits, seed), at_length_1) for seed in seeds}
    centre_D = features_ND.mean(0, dtype=np.float64).astype(np.float32)
    components = min(max(lengths, default=0), *features_ND.shape)
    usable = [bits for bits in lengths if bits <= components]
    if not usable:
        return
    basis_DB = _principal(features_ND - centre_D, components)
    for bits in usable:
        yield f"PCA-sign{suffix}", bits, {None: Hyperplanes(centre_D, basis_DB[:, :bits], at_length_1)}
    unit_ND = _scaled(features_ND - centre_D, at_length_1=True)
    basis_DB = _principal(unit_ND.copy(), components)
    rows_NB = unit_ND @ basis_DB
    for bits in usable:
        turns = {seed: _itq(np.ascontiguousarray(rows_NB[:, :bits]), seed) for seed in seeds}
        yield (
            f"ITQ{suffix}",
            bits,
            {seed: Hyperplanes(centre_D, basis_DB[:, :bits] @ turn_BB, at_length_1) for seed, turn_BB in turns.items()},
        )


def _lsh(features_ND: Vectors, bits: int, seed: int) -> faiss.IndexLSH:
    lsh = faiss.IndexLSH(features_ND.shape[1], bits, True, True)
    lsh.rrot.init(seed)
    lsh.train(features_ND)
    return lsh


def _itq(rows_NB: Vectors, seed: int) -> Vectors:
    itq = faiss.ITQMatrix(rows_NB.shape[1])
    itq.seed = seed
    itq.train(rows_NB)
    rotation_BB: Vectors = faiss.vector_to_array(itq.A).reshape(itq.d_out, itq.d_in).T
    return rotation_BB


def _principal(rows_ND: Vectors, components: int) -> Vectors:
    """Principal directions, float32 (D, B). Overwrites the rows, to do without another copy."""
    pca = PCA(components, copy=False, svd_solver="randomized", n_oversamples=32, random_state=0).fit(rows_ND)
    return np.ascontiguousarray(pca.components_.T, np.float32)


def _scaled(rows_ND: Vectors, at_length_1: bool) -> Vectors:
    scaled_ND = np.array(rows_ND, np.float32, order="C")
    if at_length_1:
        faiss.normalize_L2(scaled_ND)
    return scaled_ND
