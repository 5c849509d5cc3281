"""Arrays by the names that the index knows them by, and going through their rows in blocks.

Legend: N rows, Q queries, D width of a vector, W bytes of a code, P principal components, K hits.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # (N, D)
Codes = NDArray[np.uint8]  # (N, W)
Components = NDArray[np.uint8]  # (N, P): principal components, each in a byte and offset by 128
Mask = NDArray[np.uint8]  # (N,): rows with 0 are not there
Rows = NDArray[np.int64]  # positions of rows, -1 for none
Ids = NDArray[np.int64]  # of items, -1 for none
Keys = NDArray[np.float64]  # what hits are ordered by: squared Euclidean or Hamming distances
Floats = NDArray[np.float64]
Labels = NDArray[np.str_]  # of items or queries
SAMPLE_ROWS: Final = 20_000  # that codes and components are trained on at most
BLOCK: Final = 4096  # rows looked at together, so that memory does not grow with a file


def blocks(rows: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices that cover `rows`, a block of `size` each."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def aligned(rows: NDArray[Any]) -> NDArray[Any]:
    """The rows, or where their numbers lie at no multiples of their size, as in a mapped file of FAISS, a copy of them."""
    return np.require(rows, requirements=("C", "A"))


def sample(rows: int, rng: np.random.Generator) -> Rows:
    """Positions of SAMPLE_ROWS of so many rows, or of all where there are no more: ascending."""
    return np.sort(rng.permutation(rows)[:SAMPLE_ROWS])
