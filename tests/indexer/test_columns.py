"""Neighbours by one column's half of the components, and by the angle on an index by distance: against NumPy and scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_distances, euclidean_distances

from indexer.assembly import Plan, assemble
from indexer.index import Index, open_index
from indexer.metric import Metric
from indexer.store import START, Columns, Mode, Query
from tests.indexer.synthetic import SOURCE, WIDTH, block, features
from training.errors import BadValue

REMOVED = [7, 130]
HALVES: dict[Columns, slice] = {0: slice(0, WIDTH // 2), 1: slice(WIDTH // 2, WIDTH), "both": slice(0, WIDTH)}


def grown(folder: Path, metric: Metric, x_ND: np.ndarray) -> Index:
    """An index of two segments, of which some items have been removed."""
    assemble(folder, [block(x_ND[:200])], SOURCE, Plan(bits=0, metric=metric))
    store, _ = open_index(folder).add([block(x_ND[200:], 200)], Path("/c"))
    return store.remove(REMOVED)


def rows(zeros: bool = False) -> np.ndarray:
    x_ND = features(260)
    if zeros:
        x_ND[11, : WIDTH // 2] = 0
    return x_ND


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("columns", [0, 1, "both"])
@pytest.mark.parametrize("queries", [2, 30])
def test_a_columns_half_is_compared_by_the_metric_of_the_index(
    tmp_path: Path, metric: Metric, columns: Columns, queries: int
) -> None:
    x_ND, asked = rows(), features(queries, seed=3)
    store = grown(tmp_path, metric, x_ND)
    distances = {"euclidean": euclidean_distances, "cosine": cosine_distances}[metric]
    half = HALVES[columns]
    expected = distances(asked[:, half].astype(np.float64), x_ND[:, half].astype(np.float64))
    expected[:, REMOVED] = np.inf
    hits = store.search(asked, Query(20, columns=columns))
    np.testing.assert_allclose(hits.distances_QK, np.sort(expected, 1)[:, :20], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(expected, hits.ids_QK, 1), hits.distances_QK, rtol=1e-5, atol=1e-6)
    assert (np.diff(hits.ids_QK)[np.diff(hits.keys_QK) == 0] > 0).all()
    own = store.search(store.vectors([5]), Query(260, columns=columns))
    assert own.of(0)[0][:2] == (5, 0.0)


def test_the_halves_of_a_vector_add_up_to_its_distance(tmp_path: Path) -> None:
    x_ND = rows()
    store = grown(tmp_path, "euclidean", x_ND)
    keys = [{item: key for item, _, key in store.search(x_ND[:1], Query(260, columns=one)).of(0)} for one in HALVES]
    for item in store.ids().tolist():
        assert keys[0][item] + keys[1][item] == pytest.approx(keys[2][item], rel=1e-12)


def test_an_index_by_distance_is_searched_by_angle_too_but_none_by_angle_the_other_way(tmp_path: Path) -> None:
    x_ND, asked = rows(), features(3, seed=3)
    store = grown(tmp_path / "distance", "euclidean", x_ND)
    expected = cosine_distances(asked.astype(np.float64), x_ND.astype(np.float64))
    expected[:, REMOVED] = np.inf
    hits = store.search(asked, Query(258, metric="cosine"))
    np.testing.assert_allclose(hits.distances_QK, np.sort(expected, 1)[:, :258], atol=1e-6)
    by_angle = grown(tmp_path / "angle", "cosine", x_ND)
    np.testing.assert_array_equal(hits.keys_QK, by_angle.search(asked, Query(258)).keys_QK)
    half = store.search(asked, Query(50, columns=1, metric="cosine"))
    np.testing.assert_allclose(half.distances_QK, by_angle.search(asked, Query(50, columns=1)).distances_QK, atol=1e-6)
    with pytest.raises(BadValue, match=r"metric must be cosine: this index holds vectors of length 1; .* --metric euclidean"):
        by_angle.search(asked, Query(5, metric="euclidean"))
    with pytest.raises(BadValue, match="max_distance must be at most 2"):
        store.search(asked, Query(5, metric="cosine", max_distance=3.0))


def test_by_angle_a_half_of_zeros_is_no_neighbour_and_asks_for_none(tmp_path: Path) -> None:
    x_ND = rows(zeros=True)
    store = grown(tmp_path, "cosine", x_ND)
    found = store.search(x_ND[12:42], Query(260, columns=0)).ids_QK
    assert 11 not in found
    assert (found == -1).sum(1).tolist() == [3] * 30  # of 260 rows two have been removed
    assert 11 in store.search(x_ND[:1], Query(260, columns=1)).ids_QK
    with pytest.raises(BadValue, match="columns must be something with a direction"):
        store.search(x_ND[11:12], Query(5, columns=0))
    other = grown(tmp_path / "distance", "euclidean", x_ND)
    assert 11 in other.search(x_ND[:1], Query(260, columns=0)).ids_QK


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_pages_of_a_half_give_every_item_once_in_order(tmp_path: Path, metric: Metric) -> None:
    x_ND = rows()
    store = grown(tmp_path, metric, x_ND)
    [asked] = features(1, seed=3)
    whole = store.search(asked[None], Query(258, columns=1)).of(0)
    after, found = START, []
    while page := store.search(asked[None], Query(50, columns=1, after=after)).of(0):
        found += page
        after = page[-1][2], page[-1][0]
        assert store.key(asked, page[-1][0], Query(1, columns=1)) == page[-1][2]
    assert found == whole
    near = store.search(asked[None], Query(258, columns=1, max_distance=whole[99][1])).of(0)
    assert [item for item, _, _ in near] == [item for item, distance, _ in whole if distance <= whole[99][1]]


def test_what_a_half_cannot_be_asked_is_named() -> None:
    modes: tuple[Mode, ...] = ("code", "two-stage")
    for mode in modes:
        with pytest.raises(BadValue, match=f"mode must be exact with columns=0: .*, got '{mode}'"):
            Query(5, mode, columns=0)
    with pytest.raises(BadValue, match="columns must be one of 0, 1, both, got 2"):
        Query(5, columns=2)  # type: ignore[arg-type]
    with pytest.raises(BadValue, match="mode must be exact with a metric"):
        Query(5, "two-stage", metric="cosine")
