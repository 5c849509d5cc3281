"""Maps: how true they are by scikit-learn's measure and by counting, of few and of equal items, and bit for bit the same."""

from collections.abc import Iterator
from importlib import metadata

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from indexer.analysis import layout
from indexer.codes import principal
from indexer.storage.layout import LARGEST, Layout
from training.errors import BadValue


def clusters(rows: int, seed: int = 0) -> np.ndarray:
    """Five clusters far from each other, row i in cluster i % 5: float32 (rows, 40)."""
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 10, (5, 40))[np.arange(rows) % 5] + rng.normal(0, 1, (rows, 40))).astype(np.float32)


def made(x_ND: np.ndarray, seed: int = 0, labels: list[str] | None = None) -> Layout:
    components_NP = principal.train(x_ND, 0).encode(x_ND)[0]
    return layout.make(components_NP, labels or [""] * len(x_ND), lambda: in_blocks(x_ND), "m" * 64, seed)


def in_blocks(x_ND: np.ndarray) -> Iterator[np.ndarray]:
    return (x_ND[start : start + 37] for start in range(0, len(x_ND), 37))


def counted(places_N2: np.ndarray, x_ND: np.ndarray, k: int) -> tuple[float, float]:
    """Trustworthiness and recall by sorting all distances of every row, as Venna and Kaski 2001 write them."""
    rows, penalty, shared = len(x_ND), 0, 0
    for row in range(rows):
        by_map = np.argsort(((places_N2 - places_N2[row]) ** 2).sum(1)).tolist()
        by_vector = np.argsort(((x_ND - x_ND[row]) ** 2).sum(1)).tolist()
        by_map.remove(row)
        by_vector.remove(row)
        for other in by_map[:k]:
            rank = by_vector.index(other) + 1
            penalty += max(0, rank - k)
            shared += rank <= k
    return 1 - 2 * penalty / (rows * k * (2 * rows - 3 * k - 1)), shared / (rows * k)


@pytest.mark.parametrize(("rows", "k"), [(3, 1), (11, 5), (60, 10), (150, 7)])
def test_the_measures_are_those_of_the_books(rows: int, k: int) -> None:
    rng = np.random.default_rng(rows)
    x_ND = rng.normal(size=(rows, 12)).astype(np.float32)
    places_N2 = rng.permutation(LARGEST)[: 2 * rows].reshape(rows, 2).astype(np.uint16)
    got = layout.measure(places_N2, np.arange(rows), lambda: in_blocks(x_ND), k)
    wide_N2 = places_N2.astype(np.float64)
    np.testing.assert_allclose(got, counted(wide_N2, x_ND.astype(np.float64), k), rtol=0, atol=1e-4)
    assert got[0] == pytest.approx(trustworthiness(x_ND.astype(np.float64), wide_N2, n_neighbors=k), abs=1e-4)


def test_a_map_of_equal_distances_is_wholly_true() -> None:
    places_N2 = np.arange(40, dtype=np.uint16).reshape(20, 2)
    assert layout.measure(places_N2, np.arange(20), lambda: iter([np.ones((20, 8), np.float32)]), 5) == (1.0, 1.0)


def test_clusters_lie_apart_and_the_report_says_how_true_it_is() -> None:
    x_ND = clusters(300)
    places = made(x_ND)
    assert places.report.method == "t-SNE"
    assert places.report.library.startswith("openTSNE 1.")
    assert places.report.trustworthiness > 0.95
    assert places.report.sampled == 200
    assert places.ids_N.tolist() == list(range(300))
    xy_N2 = places.places_N2.astype(np.float64)
    near = np.argsort(((xy_N2[:, None] - xy_N2) ** 2).sum(2), axis=1)[:, 1:6]
    assert (near % 5 == np.arange(300)[:, None] % 5).all()
    assert xy_N2.min() == 0
    assert xy_N2.max() == LARGEST
    assert xy_N2[:, 0].std() > xy_N2[:, 1].std()
    assert abs(np.corrcoef(*xy_N2.T).flat[1]) < 0.001


def test_a_map_is_the_same_again_and_another_with_another_seed() -> None:
    x_ND = clusters(200)
    first, again, other = made(x_ND), made(x_ND), made(x_ND, seed=1)
    assert first.places_N2.tobytes() == again.places_N2.tobytes()
    assert first.places_N2.tobytes() != other.places_N2.tobytes()


def test_the_order_of_rows_makes_no_difference_to_who_is_near_whom() -> None:
    x_ND = clusters(200)
    order = np.random.default_rng(4).permutation(200)
    xy_N2 = made(x_ND[order]).places_N2.astype(np.float64)
    near = np.argsort(((xy_N2[:, None] - xy_N2) ** 2).sum(2), axis=1)[:, 1:6]
    assert (order[near] % 5 == order[:, None] % 5).all()


@pytest.mark.parametrize("rows", [1, 2, 3, 10, layout.FEWEST - 1])
def test_few_items_lie_where_their_first_two_components_are(rows: int) -> None:
    x_ND = clusters(rows)
    places = made(x_ND)
    assert places.report.method == "principal components"
    assert places.report.neighbors == min(10, (rows - 1) // 2)
    centred = x_ND.astype(np.float64) - x_ND.mean(0, dtype=np.float64)
    axes = np.linalg.svd(centred, full_matrices=False)[2][: min(2, rows - 1)]
    expected = centred @ axes.T
    got = places.places_N2[:, : len(axes)].astype(np.float64)
    for axis in range(len(axes)):
        if np.ptp(got[:, axis]) > LARGEST / 20:
            assert abs(np.corrcoef(got[:, axis], expected[:, axis])[0, 1]) > 0.99


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_equal_items_lie_in_the_middle(rows: int) -> None:
    places = made(np.full((rows, 40), 3, np.float32))
    assert np.unique(places.places_N2).tolist() == [round(LARGEST / 2)]
    assert places.report.trustworthiness == 1


def test_many_copies_lie_together() -> None:
    x_ND = clusters(300)
    x_ND[100:200] = x_ND[100]
    places = made(x_ND).places_N2.astype(np.float64)
    own = places[100:200]
    assert np.isfinite(places).all()
    assert np.linalg.norm(own - own.mean(0), axis=1).max() < LARGEST / 10


def test_labels_are_numbered_commonest_first_and_equals_by_name() -> None:
    labels = ["b", "", "c", "c", "a", "", "c"]
    places = made(clusters(7), labels=labels)
    assert places.report.labels == ["c", "", "a", "b"]
    assert [places.report.labels[number] for number in places.numbers_N] == labels


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    layout.check()
    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(BadValue, match=r"map.*pip install 'fc7\[map\]'"):
        layout.check()
