"""Every pair within a radius or a distance is found, and none beyond, whatever vectors and codes are like."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from indexer.grouping import near
from indexer.store import Store
from tests.indexer.grouping import brute
from tests.indexer.synthetic import features


class Rows:
    """What is asked of a store here: rows by their ids, which are their positions."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows

    def rows(self, ids: Sequence[int]) -> np.ndarray:
        found: np.ndarray = self._rows[list(ids)]
        return found

    vectors = codes = rows


def groups_of(first_N: np.ndarray) -> list[list[int]]:
    found = [np.flatnonzero(first_N == first).tolist() for first in np.unique(first_N)]
    assert all(first_N[group[0]] == group[0] for group in found)
    return sorted([group for group in found if len(group) > 1], key=lambda group: (-len(group), group))


def by_distance(x_ND: np.ndarray, most_squared: float) -> list[list[int]]:
    return groups_of(near.by_distance(cast(Store, Rows(x_ND)), np.arange(len(x_ND)), most_squared))


def by_codes(codes_NW: np.ndarray, radius: int) -> list[list[int]]:
    return groups_of(near.by_codes(cast(Store, Rows(codes_NW)), np.arange(len(codes_NW)), radius))


def numbers(rows: np.ndarray) -> list[int]:
    return list(range(len(rows)))


@pytest.fixture(params=["whole", "in small parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in small parts":
        for name, size in {
            "_CODES": 7,
            "_FIRST": 2,
            "_MOST_HITS": 64,
            "_ROWS": 11,
            "_COLUMNS": 13,
            "_PAIRS": 5,
            "_LINKS": 3,
        }.items():
            monkeypatch.setattr(near, name, size)


def families(rows: int, width: int, seed: int, offset: float = 0.0) -> np.ndarray:
    """Vectors of which each is near some others, at distances of every size: float32 (rows, width)."""
    rng = np.random.default_rng(seed)
    parents_ND = rng.normal(size=(rows // 4, width)) * 5 + offset
    steps_ND = rng.normal(size=(rows, width)) * rng.uniform(0, 3, (rows, 1))
    x_ND: np.ndarray = (parents_ND[rng.integers(0, len(parents_ND), rows)] + steps_ND).astype(np.float32)
    return x_ND


@pytest.mark.parametrize(
    "x_ND",
    [
        families(300, 40, 0),
        families(300, 600, 1),
        families(200, 12, 2, offset=1000.0),
        features(300),
        np.ones((50, 8), np.float32),
        families(300, 40, 0) * np.float32(2.0**60),
        families(300, 40, 0) * np.float32(2.0**-80),
        np.concatenate([families(60, 40, 5), families(4, 40, 6) * np.float32(1e18)]),
    ],
    ids=["40 wide", "300 wide", "far from the origin", "sparse", "all equal", "huge", "tiny", "some huge"],
)
def test_vectors_within_a_distance_are_linked_and_no_others(scans: str, parts: None, x_ND: np.ndarray) -> None:
    distances_NN = brute.euclidean(x_ND)
    different = np.unique(distances_NN)
    squares = np.unique(np.square(x_ND.astype(np.float64)[:, None] - x_ND).sum(2))
    for share in (0.0, 0.01, 0.03, 0.1, 0.5):
        most = float(different[int(share * (len(different) - 1))])
        squared = float(squares[squares.searchsorted(most * most * (1 + 1e-7), "right") - 1])  # of that very pair
        assert by_distance(x_ND, squared) == brute.groups(distances_NN, most, numbers(x_ND))


def test_a_pair_just_beyond_the_distance_is_not_linked(parts: None) -> None:
    x_ND = np.zeros((3, 5), np.float32)
    x_ND[:, 1] = [10, 13, 20]
    assert by_distance(x_ND, 9.0) == [[0, 1]]
    assert by_distance(x_ND, float(np.nextafter(9.0, 0))) == []
    assert by_distance(x_ND, 49.0) == [[0, 1, 2]]  # the ends are at 10 from each other


@pytest.mark.parametrize("width", [2, 4, 16])
def test_codes_within_a_radius_are_linked_and_no_others(scans: str, parts: None, width: int) -> None:
    rng = np.random.default_rng(width)
    codes_NW = rng.integers(0, 256, (40, width), np.uint8)[rng.integers(0, 40, 300)]
    codes_NW ^= np.packbits(rng.random((300, 8 * width)) < rng.uniform(0, 0.2, (300, 1)), axis=1)
    for radius in (0, 1, 2, 5):
        assert by_codes(codes_NW, radius) == brute.groups(brute.hamming(codes_NW), radius, numbers(codes_NW))


def test_thousands_of_equal_rows_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """5000 copies have 12 500 000 pairs, of which few are looked at."""
    looked: list[int] = []
    distances = near.distances

    def counted(vectors_ND: np.ndarray, one_R: np.ndarray, other_R: np.ndarray) -> Any:
        looked.append(len(one_R))
        return distances(vectors_ND, one_R, other_R)

    monkeypatch.setattr(near, "distances", counted)
    x_ND = np.zeros((5000, 4), np.float32)
    x_ND[-1] = 9
    assert by_distance(x_ND, 1.0) == [numbers(x_ND)[:-1]]
    assert sum(looked) < 100_000
    codes_NW = np.zeros((5000, 2), np.uint8)
    codes_NW[-1] = 255
    assert by_codes(codes_NW, 3) == [numbers(codes_NW)[:-1]]
