"""Exact search against brute force in NumPy: distances, ids, and ties by id."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from indexer.search import FloatIndex, open_float_index, write_float_index
from training.errors import Mismatch


def index_of(vectors_ND: np.ndarray) -> FloatIndex:
    index = faiss.IndexFlatL2(vectors_ND.shape[1])
    index.add(vectors_ND)
    return FloatIndex(index)


def brute_force(vectors_ND: np.ndarray, query_D: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    distances = np.sqrt(((vectors_ND.astype(np.float64) - query_D.astype(np.float64)) ** 2).sum(1))
    ids = np.lexsort((np.arange(len(distances)), distances))[:k]
    return distances[ids], ids


def features(rows: int, width: int = 64, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (np.maximum(rng.normal(size=(rows, width)), 0) * 5).astype(np.float32)


@pytest.mark.parametrize("queries", [1, 3, 40])
@pytest.mark.parametrize("k", [1, 5, 100, 1000])
def test_equals_brute_force(queries: int, k: int) -> None:
    vectors, asked = features(500), features(queries, seed=1)
    hits = index_of(vectors).search(asked, k)
    assert hits.ids_QK.shape == hits.distances_QK.shape == (queries, min(k, 500))
    for query, distances, ids in zip(asked, hits.distances_QK, hits.ids_QK, strict=True):
        expected_distances, expected_ids = brute_force(vectors, query, k)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_allclose(distances, expected_distances, rtol=1e-4)


def test_ties_are_in_order_of_id_wherever_the_list_is_cut() -> None:
    vectors = np.repeat(features(10), 50, axis=0)
    np.random.default_rng(2).shuffle(vectors)
    index = index_of(vectors)
    for k in (1, 7, 49, 50, 51, 120):
        hits = index.search(vectors[:1], k)
        np.testing.assert_array_equal(hits.ids_QK[0], brute_force(vectors, vectors[0], k)[1])


def test_an_item_is_its_own_nearest_at_exactly_zero_far_from_the_origin() -> None:
    vectors = features(300) + 1000
    hits = index_of(vectors).search(vectors, 1)
    np.testing.assert_array_equal(hits.ids_QK[:, 0], np.arange(300))
    np.testing.assert_array_equal(hits.distances_QK[:, 0], 0)


def test_an_answer_does_not_depend_on_how_many_queries_come_together() -> None:
    vectors, asked = features(300), features(64, seed=3)
    index = index_of(vectors)
    together = index.search(asked, 9)
    for i, query in enumerate(asked):
        alone = index.search(query[None], 9)
        np.testing.assert_array_equal(alone.ids_QK[0], together.ids_QK[i])
        np.testing.assert_array_equal(alone.distances_QK[0], together.distances_QK[i])


def test_vectors_come_back_from_the_file_as_they_went_in(tmp_path: Path) -> None:
    vectors = features(30)
    assert write_float_index(tmp_path / "x.faiss", [vectors[:20], vectors[20:]], 64) == 30
    index = open_float_index(tmp_path / "x.faiss")
    assert (len(index), index.width) == (30, 64)
    np.testing.assert_array_equal(index.vector(17), vectors[17])
    with pytest.raises(ValueError, match="read-only"):
        index.vector(17)[0] = 1


def test_other_files_and_other_indexes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 100)
    with pytest.raises(Mismatch, match="is not a FAISS index"):
        open_float_index(tmp_path / "junk")
    faiss.write_index(faiss.IndexFlatIP(8), str(tmp_path / "ip"))
    with pytest.raises(Mismatch, match="holds a IndexFlatIP, expected an IndexFlatL2"):
        open_float_index(tmp_path / "ip")
