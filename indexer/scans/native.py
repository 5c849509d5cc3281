"""native.c from Python: the scans of a search, on the CPU, where the installation compiled it.

Legend: N rows, Q queries, D width of a vector, P principal components, W bytes of a code, K wanted, R rows given.
"""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from indexer.arrays import Codes, Components, Floats, Keys, Mask, Rows, Vectors
from training.compiled import compiled_beside

HIT: Final = np.dtype([("key", np.float64), ("row", np.int64)])
_FIRST: Final = (-1.0, -1)


class _Wanted(ctypes.Structure):
    _fields_ = [
        ("k", ctypes.c_int64),
        ("allowed", ctypes.c_void_p),
        ("after_key", ctypes.c_double),
        ("after_row", ctypes.c_int64),
        ("most", ctypes.c_double),
    ]


class _Rows(ctypes.Structure):
    _fields_ = [
        ("values", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("stride", ctypes.c_int64),
        ("lengths", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class _Vectors:
    """Rows of float32 at any address, or a part of each; where there are lengths, each is compared over its length."""

    rows_ND: Vectors
    lengths_N: Floats | None = None

    def check(self, width: int) -> None:
        """Raises ValueError where they are not rows of so many components, or not of as many lengths."""
        rows_ND = self.rows_ND
        fits = rows_ND.ndim == 2 and rows_ND.dtype == np.float32 and rows_ND.shape[1] == width
        if not fits or rows_ND.strides[0] % 4 or rows_ND.strides[0] < 4 * width or (width > 1 and rows_ND.strides[1] != 4):
            raise ValueError(f"expected rows of {width} float32, got {rows_ND.dtype} {rows_ND.shape} {rows_ND.strides}")
        if self.lengths_N is not None:
            _check(self.lengths_N, np.float64, (len(rows_ND),))

    def struct(self) -> Any:
        """For C; holds on to nothing."""
        lengths = None if self.lengths_N is None else self.lengths_N.ctypes.data
        return _Rows(self.rows_ND.ctypes.data, *self.rows_ND.shape, self.rows_ND.strides[0] // 4, lengths)


@dataclass(frozen=True)
class Wanted:
    """What a row must be to count, and how many are wanted."""

    k: int
    allowed_N: Mask | None  # rows with 0 are not there
    after: tuple[float, int] | None  # only what comes after this (distance, row) in the order
    most: float | None  # only distances up to this

    def check(self, rows: int) -> None:
        """Raises ValueError where it is not about so many rows: C believes what it is given."""
        if not 0 <= self.k <= rows:
            raise ValueError(f"{self.k} wanted of {rows} rows")
        if self.allowed_N is not None:
            _check(self.allowed_N, np.uint8, (rows,))

    def struct(self) -> Any:
        """For C; holds on to nothing."""
        mask = None if self.allowed_N is None else self.allowed_N.ctypes.data
        return _Wanted(self.k, mask, *(self.after or _FIRST), np.inf if self.most is None else self.most)


@cache
def library() -> ctypes.CDLL | None:
    """The compiled native.c beside this module; None where there is none that loads: NumPy then serves."""
    loaded = compiled_beside(__file__)
    if loaded is not None:
        loaded.fc7_nearest.restype = ctypes.c_int64
    return loaded


def product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """The matrix product, by PyTorch, whose threads these scans share.

    Those of NumPy's BLAS would still be spinning on the cores when the next scan begins: 8 ms for a search of 1.
    """
    result: NDArray[Any] = (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()
    return result


def distances(vectors_ND: Vectors, query_D: Vectors, rows_R: Rows, lengths_N: Floats | None = None) -> Keys:
    """Squared Euclidean distances of some rows, or of these over their lengths: float64 (R,)."""
    vectors = _Vectors(vectors_ND, lengths_N)
    vectors.check(len(query_D))
    _check(query_D, np.float32, (None,))
    _check(rows_R, np.int64, (None,))
    if len(rows_R) and not (rows_R.min() >= 0 and rows_R.max() < len(vectors_ND)):
        raise IndexError(f"rows from {rows_R.min()} to {rows_R.max()} of {len(vectors_ND)}")
    squared_R = np.empty(len(rows_R), np.float64)
    _call("fc7_squared_distances", vectors, query_D, rows_R, len(rows_R), torch.get_num_threads(), squared_R)
    return squared_R


def exact(vectors_ND: Vectors, query_D: Vectors, wanted: Wanted, lengths_N: Floats | None = None) -> NDArray[Any]:
    """The first rows for one query, at most k: HIT records with squared distances, of rows over their lengths where given."""
    _check(query_D, np.float32, (None,))
    vectors = _Vectors(vectors_ND, lengths_N)
    vectors.check(len(query_D))
    wanted.check(len(vectors_ND))
    threads = torch.get_num_threads()
    hits = np.empty(max(1, threads * wanted.k), HIT)
    found = _call("fc7_nearest", vectors, query_D, wanted, threads, hits)
    return hits[:found]


def copied(rows_ND: Vectors, out_ND: Vectors) -> Vectors:
    """Copies rows, from any address, or a part of each; their squared lengths, float32 (N,)."""
    rows = _Vectors(rows_ND)
    rows.check(rows_ND.shape[1])
    _check(out_ND, np.float32, rows_ND.shape)
    squares_N = np.empty(len(rows_ND), np.float32)
    _call("fc7_copy", rows, torch.get_num_threads(), out_ND, squares_N)
    return squares_N


def hamming(codes_NW: Codes, queries_QW: Codes, wanted: Wanted) -> NDArray[Any]:
    """The first rows for each query, HIT records (Q, K), filled up with (-1, -1)."""
    _check(queries_QW, np.uint8, (None, None))
    _check(codes_NW, np.uint8, (None, queries_QW.shape[1]))
    wanted.check(len(codes_NW))
    hits = np.empty((len(queries_QW), wanted.k), HIT)
    _call("fc7_hamming", codes_NW, *codes_NW.shape, queries_QW, len(queries_QW), wanted, torch.get_num_threads(), hits)
    return hits


def products(rows_ND: Vectors, matrix_DP: Vectors) -> Vectors:
    """What `product` gives, for few rows, without waking other threads than the scans': float32 (N, P), P a multiple of 64."""
    _check(rows_ND, np.float32, (None, None))
    _check(matrix_DP, np.float32, (rows_ND.shape[1], None))
    if matrix_DP.shape[1] % 64:
        raise ValueError(f"the scan takes 64 columns at a time, not {matrix_DP.shape[1]}")
    out_NP = np.empty((len(rows_ND), matrix_DP.shape[1]), np.float32)
    _call("fc7_products", rows_ND, *rows_ND.shape, matrix_DP, matrix_DP.shape[1], torch.get_num_threads(), out_NP)
    return out_NP


def principal(
    rows_NP: Components,
    lengths_N2: Vectors,
    queries_QP: NDArray[np.int8],
    scale: float,
    weights_Q: Floats,
    wanted: Wanted,
) -> Rows:
    """For each query the k rows of least square - scale * (row - 128) . query - weight * rest, with lengths (square, rest).

    int64 (Q, K), in no order, filled up with -1.
    """
    _check(queries_QP, np.int8, (len(weights_Q), None))
    _check(rows_NP, np.uint8, (None, queries_QP.shape[1]))
    _check(lengths_N2, np.float32, (len(rows_NP), 2))
    if rows_NP.shape[1] % 64:
        raise ValueError(f"the scan takes 64 components at a time, not {rows_NP.shape[1]}")
    wanted.check(len(rows_NP))
    shifts_Q = 128.0 * queries_QP.sum(1, dtype=np.int64)
    estimates_Q3 = np.stack([np.full(len(queries_QP), scale), shifts_Q, weights_Q], 1)
    rows_QK = np.empty((len(queries_QP), wanted.k), np.int64)
    sizes = (len(queries_QP), wanted, torch.get_num_threads())
    _call("fc7_principal", rows_NP, *rows_NP.shape, lengths_N2, queries_QP, estimates_Q3, *sizes, rows_QK)
    return rows_QK


def _check(array: NDArray[Any], dtype: DTypeLike, shape: tuple[int | None, ...]) -> None:
    """Raises ValueError for an array that is not what C takes it for; None: any length."""
    if not array.flags.aligned:
        raise ValueError(f"expected {np.dtype(dtype)} at a multiple of its size, got the address {array.ctypes.data}")
    fits = array.ndim == len(shape) and all(size in (None, own) for own, size in zip(array.shape, shape, strict=True))
    if not fits or array.dtype != np.dtype(dtype) or not array.flags.c_contiguous:
        raise ValueError(f"expected {np.dtype(dtype)} {shape}, row by row, got {array.dtype} {array.shape} {array.strides}")


def _call(name: str, *arguments: NDArray[Any] | Wanted | _Vectors | float) -> int:
    passed: list[Any] = []
    for argument in arguments:
        if isinstance(argument, Wanted | _Vectors):
            passed.append(ctypes.byref(argument.struct()))
        elif isinstance(argument, int):
            passed.append(ctypes.c_int64(argument))
        elif isinstance(argument, float):
            passed.append(ctypes.c_double(argument))
        else:
            passed.append(ctypes.c_void_p(argument.ctypes.data))
    result = int(getattr(library(), name)(*passed))
    if result < 0:
        raise MemoryError(f"{name} found no memory for its scratch")
    return result
