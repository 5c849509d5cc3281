"""Groups of near-duplicates by comparing everything with everything, and following links one by one."""

import numpy as np
from numpy.typing import NDArray

from indexer.arrays import Codes, Vectors


def euclidean(vectors_ND: Vectors) -> NDArray[np.float64]:
    """All distances, float32's as a search gives them: (N, N)."""
    x_ND = vectors_ND.astype(np.float64)
    rows = [np.sqrt(np.square(x_ND - row_D).sum(1)).astype(np.float32) for row_D in x_ND]
    return np.stack(rows).astype(np.float64)


def hamming(codes_NW: Codes) -> NDArray[np.float64]:
    """All distances in bits: (N, N)."""
    bits_NB = np.unpackbits(codes_NW, axis=1).astype(np.float64)
    return np.stack([np.abs(bits_NB - row_B).sum(1) for row_B in bits_NB])


def groups(distances_NN: NDArray[np.float64], most: float, numbers: list[int]) -> list[list[int]]:
    """The numbers of rows that are linked by distances up to `most`, two at least, ascending; largest groups first."""
    left, found = set(range(len(distances_NN))), []
    while left:
        reached, new = set(), {min(left)}
        while new:
            reached |= new
            new = {int(j) for i in new for j in np.flatnonzero(distances_NN[i] <= most)} - reached
        left -= reached
        if len(reached) > 1:
            found.append(sorted(numbers[row] for row in reached))
    return sorted(found, key=lambda group: (-len(group), group))
