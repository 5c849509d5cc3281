"""A query of several examples, by Rocchio's formula written out."""

import numpy as np
import pytest

from indexer.search.feedback import query_of
from tests.indexer.synthetic import features

NONE = np.empty((0, 32), np.float32)


def written_out(like_LD: np.ndarray, unlike_UD: np.ndarray) -> list[float]:
    """Component by component, in Python's numbers: 0.75 of the one mean less 0.15 of the other, so that weights sum to 1.

    No component of the examples is negative, and none of the query may be.
    """
    query = []
    for d in range(like_LD.shape[1]):
        like = sum(float(row[d]) for row in like_LD) / len(like_LD)
        unlike = sum(float(row[d]) for row in unlike_UD) / len(unlike_UD)
        moved = 0.75 / 0.6 * like - 0.15 / 0.6 * unlike
        query.append(max(moved, 0.0))
    return query


@pytest.mark.parametrize(("likes", "unlikes"), [(1, 1), (3, 1), (2, 5)])
def test_a_query_is_as_the_formula_written_out(likes: int, unlikes: int) -> None:
    like_LD, unlike_UD = features(likes, seed=1), features(unlikes, seed=2)
    query_D = query_of(like_LD, unlike_UD)
    assert query_D.dtype == np.float32
    np.testing.assert_allclose(query_D, written_out(like_LD, unlike_UD), rtol=1e-6)
    assert (query_D == 0).any()
    assert (query_D >= 0).all()


def test_without_anything_to_be_unlike_it_is_the_mean_and_one_example_is_itself() -> None:
    like_LD = features(4, seed=3) - 1
    np.testing.assert_allclose(query_of(like_LD, NONE), np.mean(like_LD.astype(np.float64), axis=0), rtol=1e-6)
    np.testing.assert_array_equal(query_of(like_LD[:1], NONE), like_LD[0])


def test_what_is_like_and_unlike_alike_moves_nothing() -> None:
    like_LD = features(3, seed=4)
    np.testing.assert_allclose(query_of(like_LD, like_LD), query_of(like_LD, NONE), rtol=1e-6)


def test_a_query_moves_with_its_examples_and_comes_nearer_to_the_ones_than_to_the_others() -> None:
    like_LD, unlike_UD = features(5, seed=5) + 100, features(5, seed=6) + 100
    np.testing.assert_allclose(query_of(like_LD + 7, unlike_UD + 7), query_of(like_LD, unlike_UD) + 7, rtol=1e-6)
    mean_D, query_D = query_of(like_LD, NONE), query_of(like_LD, unlike_UD)
    away = (like_LD.mean(0) - unlike_UD.mean(0)).astype(np.float64)
    np.testing.assert_allclose((query_D - mean_D).astype(np.float64), away / 4, atol=1e-4)
