"""One query of several examples: "like these, unlike those".

Rocchio's formula (1971) moves a query towards the mean of what is relevant and away from the mean of what is not. The book of
Manning, Raghavan & Schütze (Introduction to Information Retrieval, 2008, section 9.1.1) gives the usual weights, .75 and .15. No
query is there before the examples, so what is left is .75 like - .15 unlike. It is divided by .75 - .15: no angle notices, and
where distances count the query stays among the features, since weights that sum to 1 move with the examples. Without that, what
is unlike only makes a query shorter there, and its neighbours worse than those of the mean alone.

Legend: L examples to be like, U examples to be unlike, D components of a vector.
"""

from typing import Final

import numpy as np

from indexer.arrays import Floats, Vectors

LIKE: Final = 0.75
UNLIKE: Final = 0.15


def query_of(like_LD: Vectors, unlike_UD: Vectors) -> Vectors:
    """The float32 (D,) query of float32 (L, D) and (U, D) vectors, as an index compares them; U may be 0.

    The mean of `like` where there is nothing to be unlike. As in the book no component becomes negative by what is unlike.
    """
    like_D: Floats = like_LD.mean(0, dtype=np.float64)
    query_D = like_D
    if len(unlike_UD):
        query_D = (LIKE * like_D - UNLIKE * unlike_UD.mean(0, dtype=np.float64)) / (LIKE - UNLIKE)
        query_D = np.maximum(query_D, np.minimum(like_D, 0))
    return query_D.astype(np.float32)
