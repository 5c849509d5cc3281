"""The first of two stages: what proposes the rows whose distances are then taken exactly.

"codes" proposes by Hamming distance. "principal" proposes by principal components in a byte each (indexer/codes/principal.py).
Any other name is a string of FAISS's index_factory, over the vectors, or index_binary_factory, over the codes.

Legend: N rows, Q queries, D width of a vector, P components, W bytes of a code, R rows proposed.
"""

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.arrays import Codes, Mask, Rows, Vectors
from indexer.codes.principal import Principal
from indexer.scans import scan

NEIGHBORS: Final = 10  # of a query, that the length of a short-list is measured for


def length_for(length: int, k: int) -> int:
    """How long a short-list is for k neighbours, if it has to be of this length for NEIGHBORS; never shorter."""
    return max(length, length * k // NEIGHBORS)


class Shortlist(Protocol):
    """Proposes rows of a segment."""

    @property
    def by_code(self) -> bool:
        """Whether it goes by the codes of queries; else by their vectors."""

    def candidates(self, queries_QD: Vectors, codes_QW: Codes | None, r: int, allowed_N: Mask | None) -> Rows:
        """About the r nearest rows of each query, int64 (Q, R), in any order; padded with -1."""


class ByCodes:
    """Proposes the rows with the nearest codes."""

    by_code = True

    def __init__(self, codes_NW: Codes) -> None:
        self._codes_NW = codes_NW

    def candidates(self, queries_QD: Vectors, codes_QW: Codes | None, r: int, allowed_N: Mask | None) -> Rows:
        """See Shortlist."""
        assert codes_QW is not None  # noqa: S101
        return scan.hamming(self._codes_NW, codes_QW, r, allowed_N)[1]


class ByPrincipal:
    """Proposes the rows of least estimated distance."""

    by_code = False

    def __init__(self, principal: Principal, rows_NP: NDArray[np.uint8], lengths_N2: Vectors) -> None:
        self._principal, self._rows_NP, self._lengths_N2 = principal, rows_NP, lengths_N2

    def candidates(self, queries_QD: Vectors, codes_QW: Codes | None, r: int, allowed_N: Mask | None) -> Rows:
        """See Shortlist."""
        return self._principal.candidates(self._rows_NP, self._lengths_N2, queries_QD, r, allowed_N)
