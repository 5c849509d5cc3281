"""Principal components of vectors, put into a byte each, and the distances that they estimate.

192 components of every row, and two lengths, estimate |x - q|^2 as |x|^2 - 2 Px.Pq - 2 c rx rq. rx and rq are what the components
leave out of the two. c is the cosine between these rests, measured between neighbours: it is 0.1 for FC7 of photographs and
0.9 for tight clusters.

Legend: N rows, Q queries, D width of a vector, P components, W bytes of a code, R rows proposed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from indexer.arrays import Components, Floats, Mask, Rows, Vectors, blocks, sample
from indexer.scans import native, scan
from indexer.scans.native import Wanted
from training.errors import BadValue, Mismatch
from training.files import write_tensors

DIRECTIONS: Final = 256  # that are found; the layers of the autoencoder take all
BYTES_A_ROW: Final = 192  # components of a row that are kept for the estimate
_PAIRS: Final = 200  # rows whose neighbours tell the cosine
_K: Final = 10
_PROPOSALS: Final = 2**20  # rows on the short-lists that are made at a time, each with its estimate in every thread
_FEW: Final = 64  # rows that a pass over the basis is not worth several threads' waking for
_LONGEST: Final = float(np.sqrt(np.finfo(np.float32).max))  # a row, for the square of its length to be a float32
_RANGE: Final = 4.0  # standard deviations of the first component that a byte spans, each way
_ARRAYS: Final = ("mean", "basis", "numbers")


@dataclass(frozen=True)
class Principal:
    """Principal components of vectors, and how they are put into bytes."""

    mean_D: Vectors
    basis_DP: Vectors
    step: float  # of a component, in the vectors' unit, per unit of a byte
    cosine: float  # between the rests of neighbours

    def encode(self, vectors_ND: Vectors) -> tuple[Components, Vectors]:
        """Components in bytes, offset by 128, uint8 (N, P); the centred rows' squared lengths and their rests' lengths (N, 2)."""
        components_NP, lengths_N2 = self._project(vectors_ND)
        return (components_NP + 128).astype(np.uint8), lengths_N2

    def candidates(self, rows_NP: Components, lengths_N2: Vectors, queries_QD: Vectors, r: int, allowed_N: Mask | None) -> Rows:
        """The r rows of least estimated distance from each query, int64 (Q, R), in any order; padded with -1."""
        components_QP, lengths_Q2 = self._project(queries_QD)
        wanted = Wanted(min(r, len(rows_NP)), allowed_N, None, None)
        scale, weights_Q = 2 * self.step * self.step, 2 * self.cosine * lengths_Q2[:, 1].astype(np.float64)
        estimate = native.principal if native.library() else _by_estimate
        lists = [np.empty((0, wanted.k), np.int64)]
        for block in blocks(len(queries_QD), max(1, _PROPOSALS // max(1, wanted.k))):
            lists.append(estimate(rows_NP, lengths_N2, components_QP[block].astype(np.int8), scale, weights_Q[block], wanted))
        return np.concatenate(lists)

    def save(self, path: Path) -> None:
        """Writes a safetensors file."""
        numbers = torch.tensor([self.step, self.cosine], dtype=torch.float64)
        arrays = {"mean": torch.from_numpy(self.mean_D), "basis": torch.from_numpy(self.basis_DP), "numbers": numbers}
        write_tensors(path, arrays)

    def _project(self, vectors_ND: Vectors) -> tuple[Vectors, Vectors]:
        centred_ND = vectors_ND - self.mean_D
        multiply = native.products if native.library() and len(vectors_ND) <= _FEW else native.product
        components_NP: Vectors = multiply(centred_ND, self.basis_DP)
        square_N = _squares(centred_ND)
        rest_N = np.sqrt(np.maximum(square_N - np.einsum("np,np->n", components_NP, components_NP), 0))
        return np.clip(np.rint(components_NP / self.step), -127, 127), np.stack([square_N, rest_N], 1)


def leading_directions(covariance_DD: Tensor) -> Tensor:
    """Eigenvectors of the largest eigenvalues, those first: float64 (D, D) -> float32 (D, P); P is 256, or D where that is less.

    By subspace iteration where P is a small part of D.
    """
    width, components = len(covariance_DD), min(DIRECTIONS, len(covariance_DD))
    if width <= 4 * components:
        exact_DP: Tensor = torch.linalg.eigh(covariance_DD)[1].flip(1)[:, :components]
        return exact_DP.float()
    c_DD = covariance_DD.float()
    basis_DP = torch.randn(width, components + components // 4, generator=torch.Generator().manual_seed(0))
    for _ in range(8):
        basis_DP = torch.linalg.qr(c_DD @ basis_DP)[0]
    small_PP = basis_DP.T @ c_DD @ basis_DP
    leading_DP: Tensor = basis_DP @ torch.linalg.eigh((small_PP + small_PP.T) / 2)[1].flip(1)[:, :components]
    return leading_DP


def train(vectors_ND: Vectors, seed: int) -> Principal:
    """Learns from a sample of float32 (N, D) rows, a memory map perhaps; the cosine from neighbours within the sample.

    Raises BadValue, as `encode` does, for rows whose squared lengths are beyond float32.
    """
    rng = np.random.default_rng(seed)
    rows = sample(len(vectors_ND), rng)
    sample_ND = np.asarray(vectors_ND[rows])
    mean_D = sample_ND.mean(0, dtype=np.float64).astype(np.float32)
    centred_ND = torch.from_numpy(sample_ND - mean_D)
    _squares(centred_ND.numpy())
    basis_DP = leading_directions((centred_ND.T @ centred_ND / len(rows)).double()).numpy()[:, :BYTES_A_ROW]
    short = -basis_DP.shape[1] % 64  # the scan takes 64 bytes at a time
    basis_DP = np.ascontiguousarray(np.pad(basis_DP, ((0, 0), (0, short))))
    spread = float((centred_ND.numpy() @ basis_DP[:, 0]).std())
    step = _RANGE * spread / 127 if spread > 0 else 1.0
    queries_Q = rng.permutation(len(rows))[:_PAIRS]
    nearest_QK = scan.exact(sample_ND, sample_ND[queries_Q], _K + 1)[1]
    centred = centred_ND.numpy()
    pairs = zip(queries_Q, nearest_QK, strict=True)
    parts = [_cosine(centred, basis_DP, own, nearest_K[nearest_K != own]) for own, nearest_K in pairs]
    cosines = np.concatenate([np.empty(0), *parts])
    return Principal(mean_D, basis_DP, step, float(cosines.mean()) if len(cosines) else 0.0)


def load(path: Path, width: int) -> Principal:
    """Reads what Principal.save wrote, for vectors of this width. Raises Mismatch where it is damaged or something else."""
    try:
        with safe_open(path, "numpy") as file:
            mean_D, basis_DP, numbers = (file.get_tensor(name) for name in _ARRAYS)
    except (SafetensorError, OSError) as error:
        raise Mismatch(f"{path} has no principal components, or damaged ones: {error}") from error
    if {mean_D.dtype, basis_DP.dtype} != {np.dtype(np.float32)} or basis_DP.ndim != 2 or basis_DP.shape[1] % 64:
        raise Mismatch(f"{path} has a basis of {basis_DP.shape} {basis_DP.dtype}, not of float32 in multiples of 64")
    if mean_D.shape != (width,) or basis_DP.shape[:1] != (width,) or numbers.shape != (2,):
        raise Mismatch(f"{path} is for vectors of {mean_D.shape[0]} components, the index has {width}")
    if not (all(np.isfinite(array).all() for array in (mean_D, basis_DP, numbers)) and numbers[0] > 0):
        raise Mismatch(f"{path} has principal components that are not finite, or no step above 0")
    return Principal(mean_D, basis_DP, float(numbers[0]), float(numbers[1]))


def _squares(centred_ND: Vectors) -> Vectors:
    """The squared length of each row, float32 (N,). Raises BadValue where that is beyond float32."""
    squares_N: Vectors = np.einsum("nd,nd->n", centred_ND, centred_ND)
    if not np.isfinite(squares_N).all():
        raise BadValue("features", "one that is longer", f"no longer than {_LONGEST:.1g}, unless the short-list is codes")
    return squares_N


def _cosine(centred_ND: Vectors, basis_DP: Vectors, own: int, others: Rows) -> Floats:
    """The cosines between what the components leave out of a row and of its neighbours."""
    both = centred_ND[np.concatenate([[own], others[:_K]])]
    rest = (both - (both @ basis_DP) @ basis_DP.T).astype(np.float64)
    lengths = np.sqrt(np.square(rest).sum(1)).clip(1e-9)
    cosines: Floats = (rest[1:] @ rest[0]) / (lengths[1:] * lengths[0])
    return cosines


def _by_estimate(
    rows_NP: Components,
    lengths_N2: Vectors,
    queries_QP: NDArray[np.int8],
    scale: float,
    weights_Q: Floats,
    wanted: Wanted,
) -> Rows:
    """native.principal in NumPy."""
    rows_QK = np.full((len(queries_QP), wanted.k), -1, np.int64)
    for query_P, weight, found_K in zip(queries_QP, weights_Q, rows_QK, strict=True):
        products_N = np.concatenate([(rows_NP[block].astype(np.float32) - 128) @ query_P for block in blocks(len(rows_NP))])
        about_N = lengths_N2[:, 0] - scale * products_N - weight * lengths_N2[:, 1]
        if wanted.allowed_N is not None:
            about_N = np.where(wanted.allowed_N == 0, np.inf, about_N)
        order = np.argsort(about_N, kind="stable")[: wanted.k]
        order = order[np.isfinite(about_N[order])]
        found_K[: len(order)] = order
    return rows_QK
